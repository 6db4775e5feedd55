#!/usr/bin/env python3
"""Writes the dashboards in this directory from the short lists below.

    deploy/grafana/generate.py           write them
    deploy/grafana/generate.py --check   exit 1 where one is not up to date
    deploy/grafana/generate.py --exprs   print every expression as a Prometheus rule file, to be checked by promtool

Standard library only. Each panel is a line: title, kind, unit, expressions with legends, thresholds. Positions, ids
and everything that Grafana wants besides follow from the order.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
B, G = "viworks_backend", "viworks_gateway"
SCHEMA = 39
SOURCE = {"type": "prometheus", "uid": "${source}"}
RED, AMBER, GREEN = "red", "orange", "green"


def rate(name, by="", where=""):
    """A counter's rise a second, by labels."""
    over = f"sum by ({by}) " if by else "sum "
    return f"{over}(rate({name}{{{where_job(where)}}}[$__rate_interval]))"


def where_job(where=""):
    return 'job=~"$job",instance=~"$instance"' + (f",{where}" if where else "")


def gauge(name, where="", over="max", by=""):
    by = f" by ({by})" if by else ""
    return f"{over}{by} ({name}{{{where_job(where)}}})"


def quantile(q, name, by="", where=""):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({name}_bucket{{{where_job(where)}}}[$__rate_interval])))"


def percentiles(name, where=""):
    return [(quantile(q, name, where=where), f"p{round(q * 100)}") for q in (0.5, 0.9, 0.99)]


def stat(title, unit, expr, *steps):
    return ("stat", title, unit, [(expr, "")], steps)


def lines(title, unit, *exprs, steps=()):
    return ("timeseries", title, unit, list(exprs), steps)


def bars(title, unit, *exprs):
    return ("bargauge", title, unit, list(exprs), ())


DASHBOARDS = {
    "fleet": ("Fleet", [
        stat("Agents online", "short", gauge(f"{B}_agents", 'state="online"')),
        stat("Agents offline", "short", gauge(f"{B}_agents", 'state="offline"'), (0, GREEN), (1, AMBER), (10, RED)),
        stat("Agents stale", "short", gauge(f"{B}_agents", 'state="stale"')),
        stat("Backends ready", "short", gauge(f"{B}_ready", over="sum"), (0, RED), (1, GREEN)),
        stat("Certificates ending within a week", "short", gauge(f"{B}_agent_certificates_expiring", over="sum"), (0, GREEN), (1, RED)),
        stat("Backend certificate ends in", "s", gauge(f"{B}_certificate_not_after_timestamp_seconds", over="min") + " - time()", (0, RED), (1209600, GREEN)),
        lines("Agents by state", "short", (gauge(f"{B}_agents", by="state"), "{{state}}")),
        lines("Sessions by instance", "short", (gauge(f"{B}_agents_online", by="instance"), "{{instance}}")),
        lines("Services", "short", (gauge(f"{B}_service_healthy", over="min", by="service, instance"), "{{service}} {{instance}}"), steps=((0, RED), (1, GREEN))),
        lines("Sessions that ended", "ops", (rate(f"{B}_sessions_closed_total", "kind"), "{{kind}}")),
        lines("Handshakes", "s", *percentiles(f"{B}_handshake_duration_seconds")),
        lines("Frames", "ops", (rate(f"{B}_frames_total", "kind"), "{{kind}}")),
        lines("Room on data directories", "bytes", (gauge(f"{B}_data_dir_free_bytes", by="instance"), "{{instance}}")),
        lines("Memory", "bytes", (gauge(f"{B}_process_resident_memory_bytes", by="instance"), "{{instance}}")),
        lines("File descriptors", "percentunit", (f"{gauge(f'{B}_process_open_fds', by='instance')} / {gauge(f'{B}_process_max_fds', by='instance')}", "{{instance}}"), steps=((0, GREEN), (0.85, RED))),
    ]),
    "commands": ("Commands", [
        stat("Open", "short", gauge(f"{B}_commands_open")),
        stat("Active", "short", gauge(f"{B}_commands_active", over="sum")),
        stat("Slots free", "short", gauge(f"{B}_slots_available", over="min"), (0, RED), (5, GREEN)),
        stat("Await approval", "short", gauge(f"{B}_commands", 'state="awaiting_approval"')),
        stat("Refused as busy", "ops", rate(f"{B}_commands_busy_total"), (0, GREEN), (0.01, RED)),
        stat("Unknown in an hour", "short", f'sum (increase({B}_outcomes_total{{{where_job()},kind="unknown"}}[1h]))', (0, GREEN), (1, RED)),
        lines("Accepted", "ops", (rate(f"{B}_commands_accepted_total"), "commands"), (rate(f"{B}_deliveries_total"), "deliveries")),
        lines("Outcomes", "ops", (rate(f"{B}_outcomes_total", "kind"), "{{kind}}")),
        lines("From post to end", "s", *percentiles(f"{B}_command_settle_duration_seconds")),
        lines("Accepting", "s", *percentiles(f"{B}_command_accept_duration_seconds")),
        lines("Delivery", "s", *percentiles(f"{B}_delivery_duration_seconds")),
        lines("Results to their commit", "s", *percentiles(f"{B}_result_commit_duration_seconds")),
        lines("Commits of the store (99 %)", "s", (quantile(0.99, f"{B}_store_group_duration_seconds", "kind"), "{{kind}}")),
        lines("Changes in one commit (median)", "short", (quantile(0.5, f"{B}_store_group_changes", "kind"), "{{kind}}")),
        lines("Queues", "percentunit", (f"{gauge(f'{B}_queue_length', by='queue, instance')} / {gauge(f'{B}_queue_capacity', by='queue, instance')}", "{{queue}} {{instance}}"), steps=((0, GREEN), (0.9, RED))),
        lines("API by status", "ops", (rate(f"{B}_http_requests_total", "status"), "{{status}}")),
        lines("API by route (99 %)", "s", (quantile(0.99, f"{B}_http_request_duration_seconds", "route"), "{{route}}")),
        lines("Problems", "ops", (rate(f"{B}_api_problems_total", "kind"), "{{kind}}")),
        lines("Event streams", "short", (gauge(f"{B}_api_event_streams", over="sum", by="instance"), "{{instance}}")),
        lines("Spans of traces", "ops", (rate(f"{B}_spans_total", "kind"), "{{kind}}")),
    ]),
    "gateways": ("Gateways", [
        stat("Connected", "short", gauge(f"{G}_connected", over="sum")),
        stat("Journals that can't be written", "short", f"count ({G}_journal_writable{{{where_job()}}} == 0) or vector(0)", (0, GREEN), (1, RED)),
        stat("Policies refused", "short", gauge(f"{G}_policy_refused", over="sum"), (0, GREEN), (1, RED)),
        stat("Audit records lost in an hour", "short", f"sum (increase({G}_audit_lost_total{{{where_job()}}}[1h]))", (0, GREEN), (1, RED)),
        lines("Invocations", "ops", (rate(f"{G}_invocations_total", "outcome"), "{{outcome}}")),
        lines("Wall time of invocations", "s", *percentiles(f"{G}_invocation_seconds")),
        lines("Phases (99 %)", "s", (quantile(0.99, f"{G}_phase_seconds", "phase"), "{{phase}}")),
        lines("Running and waiting", "short", (gauge(f"{G}_running", over="sum"), "running"), (gauge(f"{G}_queued", over="sum"), "waiting"), (gauge(f"{G}_outbox", over="sum"), "not acknowledged")),
        lines("Ended early", "ops", (rate(f"{G}_timeouts_total"), "deadline"), (rate(f"{G}_limits_total"), "limit"), (rate(f"{G}_traps_total"), "trap"), (rate(f"{G}_busy_total"), "busy")),
        lines("Services", "short", (gauge(f"{G}_service_healthy", over="min", by="service"), "{{service}}"), steps=((0, RED), (1, GREEN))),
        lines("Clock beside the backend's", "s", (gauge(f"{G}_clock_offset_seconds", by="instance"), "{{instance}}")),
        lines("Memory", "bytes", (gauge(f"{G}_resident_memory_bytes", by="instance"), "{{instance}}")),
        lines("Reconnects", "ops", (rate(f"{G}_reconnects_total", "instance"), "{{instance}}")),
        lines("Host calls", "ops", (rate(f"{G}_host_calls_total"), "calls"), (rate(f"{G}_denials_total"), "denied")),
        lines("Certificates end in", "s", (gauge(f"{G}_certificate_not_after_timestamp_seconds", over="min", by="instance") + " - time()", "{{instance}}")),
    ]),
    "plugins": ("Plugins", [
        stat("Active releases", "short", gauge(f"{B}_releases", 'state="active"')),
        stat("Held releases", "short", gauge(f"{B}_releases", 'state="held"'), (0, GREEN), (1, AMBER)),
        stat("Rollouts running", "short", gauge(f"{B}_rollouts_open", 'state="running"')),
        stat("Rollouts paused", "short", gauge(f"{B}_rollouts_open", 'state="paused"'), (0, GREEN), (1, AMBER)),
        lines("Plugins on agents", "short", (gauge(f"{B}_agent_plugins", by="state"), "{{state}}")),
        lines("Steps of rollouts", "short", (f"sum by (kind) (increase({B}_rollouts_total{{{where_job()}}}[$__rate_interval]))", "{{kind}}")),
        lines("Repository", "short", (f"sum by (kind) (increase({B}_repository_updates_total{{{where_job()}}}[$__rate_interval]))", "{{kind}}")),
        lines("Chunks sent", "ops", (rate(f"{B}_chunks_total"), "chunks")),
        bars("Verbs: wall time (90 %)", "s", (quantile(0.9, f"{B}_invocation_duration_seconds", "verb", 'phase="run"'), "{{verb}}")),
        bars("Verbs: cpu (90 %)", "s", (quantile(0.9, f"{B}_invocation_duration_seconds", "verb", 'phase="cpu"'), "{{verb}}")),
        lines("Verbs", "ops", (rate(f"{B}_invocation_duration_seconds_count", "verb", 'phase="run"'), "{{verb}}")),
        lines("Gateways: compiled, taken from the cache", "ops", (rate(f"{G}_plugins_compiled_total"), "compiled"), (rate(f"{G}_plugins_from_cache_total"), "cached"), (rate(f"{G}_plugins_revoked_total"), "revoked")),
    ]),
    "security": ("Security", [
        stat("Receipt faults in a day", "short", f"sum (increase({B}_receipt_faults_total{{{where_job()}}}[1d]))", (0, GREEN), (1, RED)),
        stat("Repository updates refused in a day", "short", f'sum (increase({B}_repository_updates_total{{{where_job()},kind="refused"}}[1d]))', (0, GREEN), (1, RED)),
        stat("Orders refused by gateways in a day", "short", f"sum (increase({G}_orders_refused_total{{{where_job()}}}[1d]))", (0, GREEN), (1, RED)),
        stat("Changes lost in a day", "short", f"sum (increase({B}_store_notes_lost_total{{{where_job()}}}[1d]))", (0, GREEN), (1, RED)),
        lines("Refused at the API", "ops", (rate(f"{B}_api_refusals_total", "reason"), "{{reason}}")),
        lines("Refused at the port for agents", "ops", (rate(f"{B}_refusals_total", "kind"), "{{kind}}")),
        lines("Denied invocations", "ops", (rate(f"{B}_outcomes_total", "kind", 'kind="denied"'), "denied")),
        lines("Receipts and anchors", "ops", (rate(f"{B}_receipts_total"), "receipts"), (rate(f"{B}_anchors_total"), "anchors")),
        lines("Faults of receipts", "short", (f"sum by (kind) (increase({B}_receipt_faults_total{{{where_job()}}}[$__rate_interval]))", "{{kind}}")),
        lines("Denials by gateways", "ops", (rate(f"{G}_denials_total", "instance"), "{{instance}}")),
        lines("Frames refused by gateways", "ops", (rate(f"{G}_frames_refused_total", "instance"), "{{instance}}")),
        lines("Panics", "short", (rate(f"{B}_task_restarts_total", "kind"), "{{kind}}"), (rate(f"{G}_panics_total"), "gateways")),
    ]),
}

SIZES = {"stat": (4, 4), "timeseries": (8, 8), "bargauge": (8, 8)}


def panel(number, place, kind, title, unit, exprs, steps):
    steps = steps or ((0, GREEN),)
    thresholds = [{"color": colour, "value": None if n == 0 else value} for n, (value, colour) in enumerate(steps)]
    width, height = SIZES[kind]
    made = {
        "id": number, "type": kind, "title": title, "datasource": SOURCE,
        "gridPos": {"x": place[0], "y": place[1], "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0 if unit not in ("s",) else None, "thresholds": {"mode": "absolute", "steps": thresholds}}, "overrides": []},
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "instant": kind != "timeseries", "range": kind == "timeseries"}
            for n, (expr, legend) in enumerate(exprs)
        ],
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi"}} if kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    }
    if made["fieldConfig"]["defaults"]["min"] is None:
        del made["fieldConfig"]["defaults"]["min"]
    return made


def variable(name, query, label):
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "definition": query,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1,
    }


def dashboard(name):
    title, entries = DASHBOARDS[name]
    prefix = G if name == "gateways" else B
    panels, x, y, row = [], 0, 0, 0
    for number, (kind, heading, unit, exprs, steps) in enumerate(entries, 1):
        width, height = SIZES[kind]
        if x + width > 24 or (row and height != row):
            x, y = 0, y + row
        panels.append(panel(number, (x, y), kind, heading, unit, exprs, steps))
        x, row = x + width, height
    return {
        "uid": f"viworks-{name}", "title": f"ViWorkS {title}", "tags": ["viworks"], "schemaVersion": SCHEMA, "version": 1, "editable": False,
        "timezone": "utc", "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "graphTooltip": 1,
        # To the other dashboards, with the time range and the choice of instances.
        "links": [{"type": "dashboards", "title": "ViWorkS", "tags": ["viworks"], "asDropdown": False, "includeVars": True, "keepTime": True, "targetBlank": False}],
        "templating": {"list": [
            {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0, "refresh": 1},
            variable("job", f"label_values({prefix}_{'connected' if prefix == G else 'ready'}, job)", "Job"),
            variable("instance", f"label_values({prefix}_{'connected' if prefix == G else 'ready'}{{job=~\"$job\"}}, instance)", "Instance"),
        ]},
        "annotations": {"list": []}, "panels": panels,
    }


def text(name):
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


def rules():
    """Every expression as a recording rule, Grafana's variables filled in."""
    found = []
    for name in DASHBOARDS:
        for entry in DASHBOARDS[name][1]:
            for expr, _ in entry[3]:
                expr = expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
                found.append({"record": f"dashboard:{name}:{len(found)}", "expr": expr})
    # JSON is YAML.
    return json.dumps({"groups": [{"name": "dashboards", "rules": found}]}, indent=1)


def main(args):
    if args == ["--exprs"]:
        print(rules())
        return 0
    if args not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = [name for name in DASHBOARDS if not (HERE / f"{name}.json").is_file() or (HERE / f"{name}.json").read_text() != text(name)]
    if args:
        for name in stale:
            print(f"{name}.json is not up to date: run {pathlib.Path(__file__).name}", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (HERE / f"{name}.json").write_text(text(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
