//! What an operations team sees: metrics that promtool finds nothing wrong with, dashboards
//! and rules that ask for metrics that exist, an alert that reaches its webhook through the
//! real Prometheus and Alertmanager, and a trace from an API call to a host call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{eventually, program, run, workspace};
use viworks_tests::prometheus::{Watch, alerts, promtool};
use viworks_tests::receiver::Receiver;

use crate::Result;

/// The names of every sample that docs/metrics.md says there is.
fn documented() -> std::io::Result<BTreeSet<String>> {
    let text = fs::read_to_string(workspace().join("docs/metrics.md"))?;
    let mut names = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once('`').unwrap_or_default();
        let suffixes: &[&str] = match rest.trim_start_matches(" | ").split(' ').next() {
            Some("counter") => &["_total"],
            Some("histogram") => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    Ok(names)
}

/// The metrics of ours that an expression names.
fn named(expr: &str) -> BTreeSet<String> {
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("viworks_backend_") || word.starts_with("viworks_gateway_"))
        .map(str::to_owned)
        .collect()
}

/// The families of an exposition, as docs/metrics.md names them.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_either_program_s_metrics() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let ran = cluster.run("web-01", "add_user", &json!({"name": "ada"}))?;
    assert_eq!(ran["state"], "succeeded", "{ran}");
    assert_eq!(cluster.api.with_token(None).get("/agents")?.status, 401);

    let backend = cluster.api.get("/metrics")?.expect_status(200)?;
    let backend = backend.as_str().unwrap_or_default();
    let socket = gateway.dir.join("state/status.sock");
    let gateway_text =
        run(&program("viworks-gateway")?, ["metrics".as_ref(), "--socket".as_ref(), socket.as_os_str()])?;
    for text in [backend, &gateway_text] {
        let said = promtool(&["check", "metrics"], &workspace(), text)?;
        assert_eq!(said.trim(), "", "promtool has something to say");
    }
    for sample in [
        "viworks_backend_agents{state=\"online\"} 1",
        "viworks_backend_outcomes_total{kind=\"succeeded\"} 1",
        "viworks_backend_service_healthy{service=\"database\"} 1",
        "viworks_backend_invocation_duration_seconds_count{verb=\"add_user\",phase=\"run\"} 1",
        "viworks_backend_command_settle_duration_seconds_count 1",
        "viworks_backend_handshake_duration_seconds_count 1",
        "viworks_backend_api_problems_total{kind=\"unauthenticated\"} 1",
        "viworks_backend_ready 1",
    ] {
        assert!(backend.lines().any(|line| line == sample), "{sample} in\n{backend}");
    }
    for sample in [
        "viworks_gateway_invocations_total{outcome=\"succeeded\"} 1",
        "viworks_gateway_phase_seconds_count{phase=\"admission\"} 1",
        "viworks_gateway_service_healthy{service=\"journal\"} 1",
    ] {
        assert!(gateway_text.lines().any(|line| line == sample), "{sample} in\n{gateway_text}");
    }
    // The backend's own table is held by a test of the backend.
    let table: BTreeSet<String> = documented_families("viworks_gateway_")?;
    assert_eq!(families(&gateway_text), table, "docs/metrics.md lists every metric of the gateway and no other");
    Ok(())
}

fn documented_families(prefix: &str) -> std::io::Result<BTreeSet<String>> {
    let text = fs::read_to_string(workspace().join("docs/metrics.md"))?;
    let names = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

#[test]
fn dashboards_and_rules_ask_for_metrics_that_exist() -> Result {
    let (deploy, documented) = (workspace().join("deploy"), documented()?);
    let generate = deploy.join("grafana/generate.py");
    run(&generate, ["--check"]).map_err(|e| Error::other(format!("a dashboard is not up to date: {e}")))?;
    // Every query of every panel parses.
    let dir = tempfile::tempdir()?;
    let exprs = run(&generate, ["--exprs"])?;
    fs::write(dir.path().join("exprs.yml"), &exprs)?;
    promtool(&["check", "rules", "exprs.yml"], dir.path(), "")?;
    let rules = fs::read_to_string(deploy.join("prometheus/viworks.rules.yml"))?;
    let exprs: Value = serde_json::from_str(&exprs)?;
    let all = exprs["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert!(all.len() > 80, "{} queries", all.len());
    for text in all.iter().filter_map(|rule| rule["expr"].as_str()).chain([rules.as_str()]) {
        let names = named(text);
        assert!(names.is_subset(&documented), "{:?} in {text}", names.difference(&documented));
    }
    // And what is in the files is what was generated.
    for name in ["fleet", "commands", "gateways", "plugins", "security"] {
        let board: Value = serde_json::from_str(&fs::read_to_string(deploy.join(format!("grafana/{name}.json")))?)?;
        assert_eq!((&board["uid"], board["panels"].is_array()), (&json!(format!("viworks-{name}")), true));
    }
    Ok(())
}

#[test]
fn every_alert_fires_by_what_it_is_for() -> Result {
    let dir = workspace().join("deploy/prometheus");
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"], &dir, "")?;
    promtool(&["check", "rules", "viworks.rules.yml"], &dir, "")?;
    promtool(&["test", "rules", "viworks.test.yml"], &dir, "")?;
    let alertmanager = workspace().join("deploy/alertmanager/alertmanager.yml");
    run("/usr/bin/amtool".as_ref(), ["check-config".as_ref(), alertmanager.as_os_str()])?;
    let (rules, tests) =
        (fs::read_to_string(dir.join("viworks.rules.yml"))?, fs::read_to_string(dir.join("viworks.test.yml"))?);
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "no test fires {alert}");
    }
    Ok(())
}

#[test]
fn a_lost_agent_reaches_the_webhook() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "heartbeat_secs = 1".into() })?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 0)?;
    let webhook = Receiver::start(None, |_| "{}".to_owned())?;
    let token = cluster.token("prometheus", "viewer")?;
    let backend = cluster.api.url().trim_start_matches("http://").to_owned();
    let watch = Watch::start(&cluster.path("watch"), &backend, &token, webhook.port())?;
    let up = watch.value("up{job=\"viworks-backend\"} == 1", Duration::from_secs(30))?;
    assert!((up - 1.0).abs() < f64::EPSILON);
    watch.value("viworks_backend_agents{state=\"online\"} == 1", Duration::from_secs(15))?;

    let began = Instant::now();
    gateway.process.kill()?;
    let told = |status: &'static str| {
        eventually(&format!("the alert is {status}"), Duration::from_secs(40), || {
            Ok(alerts(&webhook.json("/tickets"), "ViworksAgentLost", status).into_iter().next())
        })
    };
    let lost = told("firing")?;
    assert_eq!(lost["labels"]["severity"], "warning", "{lost}");
    assert_eq!(lost["annotations"]["summary"], "1 agents are offline", "{lost}");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());

    gateway.restart()?;
    told("resolved")?;
    assert!(alerts(&webhook.json("/pager"), "ViworksBackendDown", "firing").is_empty(), "nothing else was wrong");
    Ok(())
}

/// The value of a span's attribute.
fn attribute<'s>(span: &'s Value, key: &str) -> Option<&'s str> {
    let all = span["attributes"].as_array()?;
    all.iter().find(|a| a["key"] == key)?["value"]["stringValue"].as_str()
}

#[test]
fn a_trace_leads_from_the_call_to_the_host() -> Result {
    let collector = Receiver::start(None, |_| r#"{"partialSuccess":{}}"#.to_owned())?;
    let keys = format!("otlp_endpoint = \"http://127.0.0.1:{}\"\ntrace_sample = 0.0\n", collector.port());
    let cluster = Cluster::start_with(&Options { backend: keys })?;
    cluster.publish("accounts")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    // Nobody asked for a trace: there is none.
    cluster.run("web-01", "list_users", &json!({}))?;

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "wait_secs": 60});
    let token = format!("Authorization: Bearer {}", cluster.token("tracer", "operator")?);
    let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let url = format!("{}/commands", cluster.api.url());
    let post = ["-sS", "-H", "Content-Type: application/json", "-H", &token, "-H", &parent, "-d"];
    let answer = run("/usr/bin/curl".as_ref(), post.iter().copied().chain([body.to_string().as_str(), url.as_str()]))?;
    let answer: Value = serde_json::from_str(&answer)?;
    assert_eq!(answer["invocations"][0]["state"], "succeeded", "{answer}");

    let spans = || -> Vec<Value> {
        let exports = collector.json("/v1/traces");
        let resources = exports.iter().filter_map(|export| export["resourceSpans"].as_array()).flatten();
        let scopes = resources.filter_map(|resource| resource["scopeSpans"].as_array()).flatten();
        scopes.filter_map(|scope| scope["spans"].as_array()).flatten().cloned().collect()
    };
    let wanted = ["POST /commands", "accept", "commit", "deliver", "invocation", "accounts.create", "settle"];
    let all = eventually("the whole trace", Duration::from_secs(20), || {
        let all = spans();
        let there: BTreeSet<&str> = all.iter().filter_map(|span| span["name"].as_str()).collect();
        match wanted.iter().all(|name| there.contains(name)) {
            true => Ok(Some(all.clone())),
            false => Err(Error::other(format!("{there:?}"))),
        }
    })?;
    assert!(all.iter().all(|span| span["traceId"] == trace), "what nobody asked for is not traced");
    let by_name: BTreeMap<&str, &Value> = all.iter().filter_map(|span| Some((span["name"].as_str()?, span))).collect();
    let parent_of = |name: &str| by_name.get(name).map(|span| &span["parentSpanId"]);
    let id_of = |name: &str| by_name.get(name).map(|span| &span["spanId"]);
    assert_eq!(parent_of("POST /commands"), Some(&json!("00f067aa0ba902b7")));
    for (child, parent) in [
        ("accept", "POST /commands"),
        ("commit", "accept"),
        ("deliver", "accept"),
        ("invocation", "deliver"),
        ("settle", "deliver"),
        ("admission", "invocation"),
        ("queue", "invocation"),
        ("instantiate", "invocation"),
        ("accounts.create", "invocation"),
        ("journal.intent", "invocation"),
        ("report", "invocation"),
    ] {
        assert!(id_of(parent).is_some(), "{parent}");
        assert_eq!(parent_of(child), id_of(parent), "{child} is below {parent}: {by_name:#?}");
    }
    let span = |name: &str| by_name.get(name).copied().unwrap_or(&Value::Null);
    assert_eq!(attribute(span("deliver"), "viworks.agent"), Some("web-01"));
    assert_eq!(attribute(span("accept"), "viworks.command"), answer["id"].as_str());
    assert_eq!(attribute(span("POST /commands"), "http.response.status_code"), Some("200"));
    let ns = |span: &Value, key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (inner, outer) = (span("accounts.create"), span("invocation"));
    assert!(ns(inner, "startTimeUnixNano") >= ns(outer, "startTimeUnixNano"));
    assert!(ns(inner, "endTimeUnixNano") <= ns(outer, "endTimeUnixNano"));
    // What is stored knows nothing of it.
    let stored = cluster.api.get(&format!("/commands/{}", answer["id"].as_str().unwrap_or_default()))?;
    assert!(!stored.body.to_string().contains("timings"), "{stored:?}");
    Ok(())
}
