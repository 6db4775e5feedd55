//! Descriptions, statements and JSON Schemas in plain words.

use serde_json::Value;
use viworks_signing::grant::Scopes;
use viworks_signing::provenance::Provenance;
use viworks_signing::release::{EffectClass, Limits, Release};
use viworks_signing::review::Review;

use super::{Claim, Found, Said};

/// The whole answer.
pub(super) fn lines(found: &Found) -> Vec<String> {
    let mut out =
        vec!["UNVERIFIED: what the files say of themselves, checked against no key".to_owned(), String::new()];
    let release = found.statement.as_ref().map(|claim| &claim.statement.predicate);
    if let Some(release) = release {
        out.push(format!("plugin     {} {}: {}", release.plugin, release.version, release.description));
        out.push(format!("sequence   {}.{}, not before {}", release.epoch, release.sequence, release.not_before));
    }
    out.push(format!("component  {} bytes, sha256 {}", found.size, found.digest));
    out.push(format!("world      {}", found.description.world));
    out.push(statement(found.statement.as_ref()));
    out.extend([String::new(), "verbs".to_owned()]);
    for (name, verb) in &found.description.verbs {
        let signed = release.and_then(|release| release.verbs.get(name));
        out.push(match signed {
            Some(signed) => format!("  {name}: {}, at most {} s", effect(signed.effect), signed.timeout_secs),
            None => format!("  {name}"),
        });
        out.extend(verb.docs.lines().map(|line| format!("    {line}")));
        arguments(&mut out, signed.map_or(&verb.args, |signed| &signed.args));
        out.push(format!("    gives {}", of(&verb.result)));
    }
    out.extend([String::new(), "imports".to_owned()]);
    out.extend(found.description.imports.iter().map(|import| format!("  {import}")));
    if let Some(release) = release {
        scopes(&mut out, release);
        limits(&mut out, release.limits);
    }
    for said in &found.reviews {
        review(&mut out, said);
    }
    for said in &found.provenance {
        built(&mut out, said);
    }
    out
}

fn review(out: &mut Vec<String>, said: &Said<Review>) {
    let review = &said.predicate;
    let whose = if said.matches { "of this release" } else { "OF ANOTHER RELEASE" };
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    out.extend([
        String::new(),
        format!("review {whose}, {}; says it is signed by {}", review.reviewed_at, said.keyids.join(", ")),
        format!("  verbs that may run: {}", list(review.verbs.iter().map(String::as_str).collect())),
        format!("  capabilities at most: {}", list(review.capabilities.names())),
    ]);
    capabilities(out, &review.capabilities);
    out.push(format!("  guest time {} ms, memory {} MiB at most", review.limits.cpu_ms, review.limits.memory_mib));
    out.extend(review.notes.lines().map(|line| format!("  {line}")));
}

fn built(out: &mut Vec<String>, said: &Said<Provenance>) {
    let (how, run) = (&said.predicate.build_definition, &said.predicate.run_details);
    let what = if said.matches { "these bytes" } else { "OTHER BYTES" };
    out.extend([
        String::new(),
        format!("provenance of {what}; says it is signed by {}", said.keyids.join(", ")),
        format!("  built by {}, as {}", run.builder.id, how.build_type),
    ]);
    for from in &how.resolved_dependencies {
        let name = if from.uri.is_empty() { &from.name } else { &from.uri };
        let digests: Vec<String> = from.digest.iter().map(|(kind, digest)| format!("{kind} {digest}")).collect();
        out.push(format!("  from {name} ({})", digests.join(", ")));
    }
}

fn statement(claim: Option<&Claim>) -> String {
    match claim {
        None => "statement  none: effects, scopes and limits are not known".to_owned(),
        Some(Claim { matches: false, .. }) => "statement  ABOUT OTHER BYTES than these".to_owned(),
        Some(Claim { keyids, .. }) => {
            format!("statement  about these bytes; says it is signed by {}", keyids.join(", "))
        }
    }
}

fn effect(effect: EffectClass) -> &'static str {
    match effect {
        EffectClass::Read => "reads",
        EffectClass::Change => "changes the host",
        EffectClass::Irreversible => "changes the host for good",
    }
}

fn arguments(out: &mut Vec<String>, args: &Value) {
    let required = args["required"].as_array().cloned().unwrap_or_default();
    let Some(properties) = args["properties"].as_object() else { return };
    let width = properties.keys().map(String::len).max().unwrap_or(0);
    for (name, schema) in properties {
        let may = if required.iter().any(|required| required == name) { "" } else { " (may be left out)" };
        let docs = schema["description"].as_str().map(|text| format!(": {}", first_line(text))).unwrap_or_default();
        out.push(format!("    {name:width$}  {}{may}{docs}", of(schema)));
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn scopes(out: &mut Vec<String>, release: &Release) {
    out.extend([String::new(), "scopes asked for".to_owned()]);
    capabilities(out, &release.capabilities);
    if release.capabilities.names().is_empty() {
        out.push("  none".to_owned());
    }
}

fn capabilities(out: &mut Vec<String>, scopes: &Scopes) {
    let scopes = serde_json::to_value(scopes).unwrap_or_default();
    for (capability, scope) in scopes.as_object().into_iter().flatten() {
        out.push(format!("  {capability}"));
        for (key, value) in scope.as_object().into_iter().flatten() {
            out.push(format!("    {key} = {value}"));
        }
    }
}

fn limits(out: &mut Vec<String>, limits: Limits) {
    out.extend([
        String::new(),
        "limits of one invocation".to_owned(),
        format!("  memory {} MiB, guest time {} ms, {} instances", limits.memory_mib, limits.cpu_ms, limits.instances),
        format!(
            "  {} host calls, {} KiB of result, {} KiB of log",
            limits.host_calls, limits.output_kib, limits.log_kib
        ),
    ]);
}

/// A schema of ours in words.
fn of(schema: &Value) -> String {
    if let Some(cases) = schema["oneOf"].as_array() {
        let case = |case: &Value| match (&case["const"], case["properties"].as_object().and_then(|p| p.iter().next())) {
            (Value::String(name), _) => name.clone(),
            (_, Some((name, payload))) => format!("{name} with {}", of(payload)),
            _ => "anything".to_owned(),
        };
        return format!("one of: {}", cases.iter().map(case).collect::<Vec<_>>().join("; "));
    }
    if let Some(inner) = schema["anyOf"].as_array().and_then(|any| any.first()) {
        return of(inner);
    }
    let kind = schema["type"].as_array().and_then(|kinds| kinds.first()).unwrap_or(&schema["type"]);
    match kind.as_str() {
        Some("null") => "nothing".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("string") => text(schema),
        Some("integer") => format!("whole number{}", range(schema)),
        Some("number") => format!("number{}", range(schema)),
        Some("array") => match schema["prefixItems"].as_array() {
            Some(items) => format!("({})", items.iter().map(of).collect::<Vec<_>>().join(", ")),
            None if schema["uniqueItems"] == true => format!("set of {}", of(&schema["items"])),
            None => format!("list of {}", of(&schema["items"])),
        },
        Some("object") => {
            let names = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            format!("record of {}", names.collect::<Vec<_>>().join(", "))
        }
        _ => "anything".to_owned(),
    }
}

fn text(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        return format!("one of: {}", values.join(", "));
    }
    match (schema["pattern"].as_str(), schema["contentEncoding"].as_str()) {
        (Some(pattern), _) => format!("text like {pattern}"),
        (None, Some(encoding)) => format!("bytes in {encoding}"),
        (None, None) => "text".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" from {min}"),
        (None, Some(max)) => format!(" up to {max}"),
        (None, None) => String::new(),
    }
}
