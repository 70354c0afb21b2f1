"""What is wrong with the files below dashboards/ that are not dashboards: Prometheus' rules, Grafana's provisioning,
Alertmanager, compose.  Each function takes the folder and answers a list of findings."""
import json
import os
import re
import subprocess

import yaml

import promql

COST = "model_estimated_cost_dollars_total"


def load(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return yaml.safe_load(f)


def tool(*command):
    """A checker's complaint as a finding."""
    run = subprocess.run(command, capture_output=True, text=True)
    said = " ".join((run.stdout + run.stderr).split())
    return [] if run.returncode == 0 else [f"{command[0]} {command[1]}: {said[:600]}"]


def one_line(expr):
    return " ".join(expr.split())


# ---- Prometheus

def alert_rules(folder):
    return [r for g in load(folder, "prometheus", "alert-rules.yml")["groups"] for r in g["rules"]]


def alert_findings(rule, anchors):
    name, expr = rule["alert"], rule["expr"]
    out = [f"alert: {name}: {f}" for f in promql.arithmetic_findings(expr)]
    for label in ("severity", "service"):
        if label not in rule.get("labels", {}):
            out.append(f"alert: {name} has no label {label}")
    if "for" not in rule:
        out.append(f"alert: {name} fires at the first evaluation")
    if not rule["annotations"].get("summary"):
        out.append(f"alert: {name} has no summary")
    page, _, anchor = rule["annotations"].get("runbook_url", "").partition("#")
    if not re.fullmatch(r"https://\S+/runbook\.md", page):
        out.append(f"alert: {name}: runbook_url must be an absolute URL; Grafana and Alertmanager make a link of it")
    if anchor not in anchors or anchor != name.lower():
        out.append(f"alert: {name}: the runbook has no entry {anchor!r}")
    for n, parents in promql.selectors(expr):
        call = next((p.name for p in reversed(parents) if p.kind == "call"), None)
        if n.name.endswith("_total") and call not in ("rate", "increase", "absent"):
            out.append(f"alert: {name}: the counter {n.name} as it stands, not its increase")
        if n.name == COST and call in ("rate", "increase") and not any(p.kind == "sum" for p in parents):
            out.append(f"alert: {name}: cost by series: two models at $60 would be below $100")
    return out


def prometheus_findings(folder, runbook, unit_tests=True):
    at = os.path.join(folder, "prometheus")
    out = tool("promtool", "check", "config", os.path.join(at, "prometheus.yml"))
    out += tool("promtool", "check", "rules", os.path.join(at, "alert-rules.yml"),
                os.path.join(at, "recording-rules.yml"))
    with open(runbook, encoding="utf-8") as f:
        anchors = {line[3:].strip().lower() for line in f if line.startswith("## ")}
    rules = alert_rules(folder)
    for rule in rules:
        out += alert_findings(rule, anchors)
    watched = " ".join(one_line(r["expr"]) for r in rules)
    if f"absent({COST}" not in watched or "up{" not in watched:
        out.append("alert: none fires when the metrics are gone: absent() and up are missing")
    for g in load(at, "recording-rules.yml")["groups"]:
        for r in g["rules"]:
            # A division of two records has its guard, and matches on their label.
            out += [f"record: {r['record']}: {f}" for f in promql.arithmetic_findings(r["expr"])
                    if not (f.startswith("matching") and all(":" in m for m in promql.metrics(r["expr"])))]
    if not load(at, "prometheus.yml").get("rule_files"):
        out.append("config: prometheus.yml loads no rules")
    if unit_tests and not out:
        tests = os.path.join(at, "tests")
        out += tool("promtool", "test", "rules", *sorted(os.path.join(tests, f) for f in os.listdir(tests)))
    return out


def count_scenarios(folder):
    tests = os.path.join(folder, "prometheus", "tests")
    return sum(len(load(tests, f)["tests"]) for f in os.listdir(tests))


# ---- Grafana's provisioning, field by field.  A specification is a type, a tuple of choices, [of a list's elements],
# or {field: of a mapping}; a field that ends in "?" may be absent.

MODEL_QUERY = {"refId": str, "expr": str, "instant": bool, "range": bool, "intervalMs": int, "maxDataPoints": int}
MODEL_EXPRESSION = {"refId": str, "type": ("reduce", "threshold", "math"), "expression": str,
                    "reducer?": ("last", "mean", "max", "min", "sum", "count"),
                    "settings?": {"mode": ("dropNN", "replaceNN")},
                    "conditions?": [{"evaluator": {"type": ("gt", "lt", "within_range", "outside_range"),
                                                   "params": [(int, float)]}}]}
SPECS = {
    "datasources": {"apiVersion": (1,), "datasources": [{
        "name": str, "uid": str, "type": ("prometheus",), "access": ("proxy",), "orgId": int, "url": str,
        "isDefault": bool,
        "jsonData": {"timeInterval": str, "httpMethod": ("POST", "GET")}}]},
    "dashboards": {"apiVersion": (1,), "providers": [{
        "name": str, "orgId": int, "folder": str, "type": ("file",), "allowUiUpdates": bool,
        "updateIntervalSeconds": int,
        "options": {"path": str}}]},
    "alerting": {"apiVersion": (1,), "groups": [{
        "orgId": int, "name": str, "folder": str, "interval": str, "rules": [{
            "uid": str, "title": str, "condition": str, "for": str,
            "noDataState": ("OK", "NoData", "Alerting", "KeepLast"),
            "execErrState": ("OK", "Error", "Alerting", "KeepLast"), "labels": dict,
            "dashboardUid": str, "panelId": int,
            "annotations": {"summary": str, "description?": str, "runbook_url": str, "__dashboardUid__": str,
                            "__panelId__": str},
            "notification_settings?": {"receiver": str},
            "data": [{"refId": str, "datasourceUid": str, "relativeTimeRange": {"from": int, "to": int},
                      "model": dict}]}]}]},
    "contact": {"apiVersion": (1,), "contactPoints": [{
        "orgId": int, "name": str, "receivers": [{
            "uid": str, "type": ("webhook", "slack", "pagerduty", "email"), "disableResolveMessage": bool,
            "settings": {"url": str, "httpMethod": ("POST", "PUT")}}]}]},
}


def shape_findings(value, spec, at):
    if isinstance(spec, dict):
        if not isinstance(value, dict):
            return [f"{at}: must be a mapping"]
        known = {k.rstrip("?"): s for k, s in spec.items()}
        out = [f"{at}: unknown field {k!r}" for k in value if k not in known]
        out += [f"{at}: {k} is missing" for k in spec if not k.endswith("?") and k not in value]
        for k in value.keys() & known.keys():
            out += shape_findings(value[k], known[k], f"{at}.{k}")
        return out
    if isinstance(spec, list):
        if not isinstance(value, list) or not value:
            return [f"{at}: must be a list with something in it"]
        return [f for i, v in enumerate(value) for f in shape_findings(v, spec[0], f"{at}[{i}]")]
    if isinstance(spec, tuple) and not all(isinstance(s, type) for s in spec):
        return [] if value in spec else [f"{at}: {value!r} is not one of {spec}"]
    if isinstance(value, bool) and spec is not bool or not isinstance(value, spec) or value == "":
        return [f"{at}: {value!r} is not a {spec}"]
    return []


def expanded(text):
    """As Grafana reads it: $$ is a dollar, $NAME and ${NAME} come from the environment, here empty."""
    return "$".join(re.sub(r"\$(\w|\{[^}]*\}?)\w*", "", part) for part in text.split("$$"))


def literal_findings(at, text):
    if expanded(text) != text.replace("$$", "$"):
        return [f"{at}: Grafana would read {text!r} as {expanded(text)!r}; write $$ for a dollar"]
    return []


def duration(text):
    m = re.fullmatch(r"(\d+)([smhd])", text)
    return int(m[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[m[2]] if m else 0


def panel_findings(rule, at, panels):
    """An alert leads to its panel by two fields, which Grafana's pages read as annotations."""
    uid, panel = rule["dashboardUid"], rule["panelId"]
    out = []
    if panel not in panels.get(uid, ()):
        out.append(f"{at}: no panel {panel} in a dashboard {uid!r}")
    if (rule["annotations"]["__dashboardUid__"], rule["annotations"]["__panelId__"]) != (uid, str(panel)):
        out.append(f"{at}: its annotations lead to another panel than {panel}")
    return out


def dashboards(folder):
    """The dashboards of the folder, by the name of their file."""
    at = os.path.join(folder, "grafana")
    out = {}
    for name in sorted(os.listdir(at)):
        if name.endswith(".json"):
            with open(os.path.join(at, name), encoding="utf-8") as f:
                out[name] = json.load(f)
    return out


def rule_findings(rule, at, sources):
    out = literal_findings(f"{at}.title", rule["title"])
    for k, v in rule["labels"].items():
        out += literal_findings(f"{at}.labels.{k}", v)
    for k, v in rule["annotations"].items():
        if "${" in v:
            out.append(f"{at}.annotations.{k}: new versions read ${{…}} as the environment")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", rule["uid"]):
        out.append(f"{at}.uid: up to 40 of [A-Za-z0-9_-]")
    if not duration(rule["for"]):
        out.append(f"{at}.for: {rule['for']!r} is not a time")
    seen = set()
    for part in rule["data"]:
        ref = f"{at}.{part['refId']}"
        model = part["model"]
        expression = part["datasourceUid"] == "__expr__"
        out += shape_findings(model, MODEL_EXPRESSION if expression else MODEL_QUERY, f"{ref}.model")
        if model.get("refId") != part["refId"]:
            out.append(f"{ref}: the model calls itself {model.get('refId')!r}")
        if part["relativeTimeRange"].get("from", 0) <= part["relativeTimeRange"].get("to", 0):
            out.append(f"{ref}: an empty time range stops the provisioning")
        if expression and model.get("expression") not in seen:
            out.append(f"{ref}: {model.get('expression')!r} is not an earlier query")
        if not expression and part["datasourceUid"] not in sources:
            out.append(f"{ref}: no data source {part['datasourceUid']!r} is provisioned")
        if not expression and model.get("instant") is not True:
            out.append(f"{ref}: the window is in the query already; ask for one instant")
        seen.add(part["refId"])
    if rule["condition"] not in seen:
        out.append(f"{at}.condition: {rule['condition']!r} is not one of the queries")
    return out


def grafana_query(rule):
    return rule["data"][0]["model"]["expr"]


def same_rules_findings(rules, prometheus):
    """Grafana's rules ask what Prometheus' rules ask."""
    out = []
    for p in prometheus:
        anchor = p["annotations"]["runbook_url"]
        found = [r for r in rules if r["annotations"]["runbook_url"] == anchor]
        if len(found) != 1:
            out.append(f"same: {len(found)} rules of Grafana for {p['alert']}")
            continue
        r = found[0]
        asked, wanted = one_line(grafana_query(r)), one_line(p["expr"])
        limit = next(c for d in r["data"] for c in d["model"].get("conditions", []))["evaluator"]["params"][0]
        by_value = asked == f"{wanted.rpartition(' > ')[0]} or vector(0)" and wanted.endswith(f" > {limit}")
        by_filter = asked == wanted and r["noDataState"] == "OK" and limit <= 0
        if not by_value and not by_filter:
            out.append(f"same: {p['alert']}: Grafana asks {asked!r} > {limit}, Prometheus {wanted!r}")
        if by_filter and "== 0" in wanted and limit >= 0:
            out.append(f"same: {p['alert']}: the answer is 0 when it should fire, which is not above {limit}")
        if by_value and r["noDataState"] != "NoData":
            out.append(f"same: {p['alert']}: a value that is always there must not hide its absence")
        if (r["for"], r["labels"]) != (p["for"], p["labels"]):
            out.append(f"same: {p['alert']}: other labels or another time")
    return out + [f"same: Grafana alone has {r['title']!r}" for r in rules if
                  r["annotations"]["runbook_url"] not in {p["annotations"]["runbook_url"] for p in prometheus}]


def provisioning_findings(folder):
    at = os.path.join(folder, "grafana", "provisioning")
    out, loaded = [], {}
    files = [(kind, os.path.join(at, kind, f)) for kind in ("datasources", "dashboards", "alerting")
             for f in sorted(os.listdir(os.path.join(at, kind)))]
    files.append(("contact", os.path.join(folder, "grafana", "optional", "contact-point.yaml")))
    for kind, path in files:
        tree = load(path)
        loaded[kind] = tree
        name = os.path.basename(path)
        if not name.endswith((".yaml", ".yml")):
            out.append(f"{name}: Grafana would not load it")
        if isinstance(tree, dict) and ("policies" in tree or "resetPolicies" in tree):
            out.append(f"{name}: policies replace the organisation's whole policy tree")
        out += shape_findings(tree, SPECS[kind], name)
    if out:
        return out
    sources = {d["uid"] for d in loaded["datasources"]["datasources"]}
    for provider in loaded["dashboards"]["providers"]:
        out += literal_findings("provider.folder", provider["folder"])
    panels = {d["uid"]: {p["id"] for p in d["panels"] if p["type"] != "row"} for d in dashboards(folder).values()}
    rules, uids = [], []
    for g in loaded["alerting"]["groups"]:
        out += literal_findings("group.name", g["name"]) + literal_findings("group.folder", g["folder"])
        if not duration(g["interval"]):
            out.append(f"group {g['name']}: interval {g['interval']!r}")
        for r in g["rules"]:
            out += rule_findings(r, r["uid"], sources) + panel_findings(r, r["uid"], panels)
            rules.append(r)
            uids.append(r["uid"])
    if len(set(uids)) != len(uids):
        out.append("alerting: two rules have one uid")
    interval = loaded["datasources"]["datasources"][0]["jsonData"]["timeInterval"]
    scrape = load(folder, "prometheus", "prometheus.yml")["global"]["scrape_interval"]
    if interval != scrape:
        out.append(f"datasource: timeInterval {interval} is not the scrape interval {scrape}")
    return out + same_rules_findings(rules, alert_rules(folder))


# ---- Links to the documentation

def link_findings(folder):
    """One base for every link, so that one command replaces it."""
    bases = {}
    for path in sorted(os.path.join(at, f) for at, _, files in os.walk(folder) for f in files):
        with open(path, encoding="utf-8") as f:
            for base in re.findall(r"(https://[^\s\"'|]*/)(?:runbook|METRICS|troubleshooting)\.md", f.read()):
                bases.setdefault(base, path)
    return [f"links: {path} has {base}, others have {sorted(bases)[0]}" for base, path in sorted(bases.items())[1:]]


# ---- The others

def alertmanager_findings(folder):
    return tool("amtool", "check-config", os.path.join(folder, "alertmanager", "alertmanager.yml"))


def compose_findings(folder):
    out = []
    compose = load(folder, "docker-compose.yml")
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not os.path.exists(os.path.join(folder, source)):
                out.append(f"compose: {name} wants {source}, which is absent")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                out.append(f"compose: {name} is open to the network: {port}")
        if service["image"].endswith(":latest") or ":" not in service["image"]:
            out.append(f"compose: {name}: which version?")
    text = str(compose)
    for job in load(folder, "prometheus", "prometheus.yml")["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            if target.split(":")[0] not in compose["services"]:
                out.append(f"compose: no service {target}")
    path = load(folder, "grafana", "provisioning", "dashboards", "costd.yaml")["providers"][0]["options"]["path"]
    if path not in text:
        out.append(f"compose: Grafana looks for dashboards in {path}, where none is put")
    return out
