"""What is wrong with a Grafana dashboard: the rules of the published dashboard-linter, and those of files that
Grafana is to load by itself.  findings(dashboard) is empty for a good one.

Exceptions are listed by the panel's title, with the reason."""
import re

import promql

SCHEMA = 39  # Grafana migrates a file up, never down
PANEL_TYPES = {"row", "timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "piechart", "text"}
UNITS = {"none", "short", "percent", "percentunit", "s", "ms", "bytes", "decbytes", "reqps", "ops", "currencyUSD"}
EXCEPTIONS = {
    ("Cumulative cost by model", "raw-counter"): "shows the counter as it stands, on purpose, and says so",
}
QUERY_VARIABLES = {"job": "Job", "instance": "Instance", "model_name": "Model"}


def is_counter(name):
    return re.search(r"_(total|bucket|count|sum)$", name) is not None


def file_findings(d):
    if "dashboard" in d or "title" not in d:
        return ["wrapped: the file must be the dashboard itself, not {\"dashboard\": …}, which only the HTTP API takes"]
    out = []
    if d.get("id") is not None:
        out.append("id: must be null; a number belongs to one Grafana's database")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", d.get("uid") or ""):
        out.append("uid: must be fixed, up to 40 of [A-Za-z0-9_-]")
    for key in ("__inputs", "__requires", "__elements"):
        if key in d:
            out.append(f"inputs: {key} is only resolved by an import by hand")
    if "${DS_" in str(d):
        out.append("inputs: ${DS_…} is only resolved by an import by hand")
    if not isinstance(d.get("schemaVersion"), int) or d["schemaVersion"] > SCHEMA:
        out.append(f"schema: schemaVersion must be at most {SCHEMA}")
    if d.get("editable") is not False:
        out.append("editable: must be false, for a file that is loaded again")
    return out


def variable_findings(d):
    out = []
    variables = {v["name"]: v for v in d["templating"]["list"]}
    source = variables.get("datasource", {})
    if (source.get("type"), source.get("query"), source.get("label")) != ("datasource", "prometheus", "Data source"):
        out.append("template-datasource: needs one data source variable \"datasource\", labelled \"Data source\"")
    if sum(v["type"] == "datasource" for v in variables.values()) != 1:
        out.append("template-datasource: more than one")
    for name, label in QUERY_VARIABLES.items():
        v = variables.get(name, {})
        wanted = {"type": "query", "label": label, "multi": True, "includeAll": True, "allValue": ".+", "refresh": 2,
                  "datasource": {"type": "prometheus", "uid": "${datasource}"}}
        for key, value in wanted.items():
            if v.get(key) != value:
                out.append(f"template-{name}: {key} must be {value!r}, is {v.get(key)!r}")
        if not re.fullmatch(r"label_values\(.+, ?%s\)" % name, v.get("query", "")):
            out.append(f"template-{name}: its query must be label_values(…, {name})")
    for v in variables.values():
        if v["type"] == "query" and v.get("current", {}).get("value") != ["$__all"]:
            out.append(f"template-{v['name']}: a value of the author's machine is baked in")
    return out


def threshold_findings(title, thresholds):
    values = [s["value"] for s in thresholds["steps"]]
    if not values or values[0] is not None or any(v is None for v in values[1:]) or values[1:] != sorted(values[1:]):
        return [f"thresholds: {title}: the first must be null, the others ascending"]
    return []


def panel_findings(p):
    title = p.get("title") or f"panel {p.get('id')}"
    out = [f"panel-{key}: {title} has none" for key in ("title", "description") if not p.get(key)]
    if p.get("type") not in PANEL_TYPES:
        out.append(f"panel-type: {title} is a {p.get('type')}, which Grafana no longer has")
    defaults = p.get("fieldConfig", {}).get("defaults", {})
    if defaults.get("unit") not in UNITS:
        out.append(f"panel-unit: {title} has unit {defaults.get('unit')!r}")
    if "thresholds" in defaults:
        out += threshold_findings(title, defaults["thresholds"])
    if not p.get("targets"):
        out.append(f"panel-targets: {title} asks for nothing")
    for where in [p] + p.get("targets", []):
        if where.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
            out.append(f"panel-datasource: {title} does not take the data source that was chosen")
    refs = [t.get("refId") for t in p.get("targets", [])]
    if len(set(refs)) != len(refs) or None in refs:
        out.append(f"panel-targets: {title}: refIds {refs}")
    if any("histogram_quantile" in t["expr"] for t in p.get("targets", [])) and "bucket" not in p.get("description", ""):
        out.append(f"quantile: {title} does not say where its last bucket ends")
    for t in p.get("targets", []):
        out += [f for f in target_findings(title, t["expr"]) if (title, f.split(":")[0]) not in EXCEPTIONS]
        if not t.get("legendFormat"):
            out.append(f"legend: {title}")
        if t.get("instant") == t.get("range"):
            out.append(f"target: {title} is neither instant nor a range")
        if p["type"] == "timeseries" and t.get("instant"):
            out.append(f"target: {title} draws a single value")
    return out


def target_findings(title, expr):
    out = []
    try:
        found = promql.selectors(expr)
    except (ValueError, IndexError) as e:
        return [f"promql: {title}: {e}"]
    for n, parents in found:
        for label in ("job", "instance") + (("model_name",) if n.name.startswith("model_") else ()):
            if n.matchers.get(label) != ("=~", "$" + label):
                out.append(f"target-{label}: {title}: {n.name} lacks {label}=~\"${label}\"")
        call = next((p.name for p in reversed(parents) if p.kind == "call"), None)
        if call in ("rate", "irate") and n.range != "$__rate_interval":
            out.append(f"rate-interval: {title}: {call}(…[{n.range}]) must be over $__rate_interval")
        if is_counter(n.name) and call not in ("rate", "irate", "increase"):
            out.append(f"raw-counter: {title}: {n.name} outside of rate and increase")
        if not is_counter(n.name) and call in ("rate", "irate", "increase"):
            out.append(f"rate-of-gauge: {title}: {n.name}")
        if n.matchers.get("le", ("", "x.y"))[1].isdigit():
            out.append(f"le: {title}: bounds have a decimal point: le=\"10.0\"")
        if n.name.endswith("_bucket") and not any("le" in (p.by or ()) for p in parents if p.kind == "sum"):
            out.append(f"quantile: {title}: buckets must be summed by le")
    out += [f"{f} ({title})" for f in promql.arithmetic_findings(expr)]
    if re.search(r"\b(86400|1440)\b", expr):
        out.append(f"projection: {title}: a short rate times a day shows nonsense after a start")
    if "[24h]" in expr and expr.startswith("sum(") and not expr.endswith("or vector(0)"):
        out.append(f"no-data: {title}: needs \"or vector(0)\"; increase() has no value before the second scrape")
    return out


def layout_findings(panels):
    out, taken = [], {}
    ids = [p.get("id") for p in panels]
    if len(set(ids)) != len(ids) or not all(isinstance(i, int) and i > 0 for i in ids):
        out.append("panel-id: ids must be different positive numbers")
    for p in panels:
        g = p["gridPos"]
        if not (isinstance(g["x"], int) and 0 <= g["x"] and 0 < g["w"] and g["x"] + g["w"] <= 24 and g["h"] > 0):
            out.append(f"layout: {p.get('title')} is outside of the 24 columns")
            continue
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            if cell in taken:
                out.append(f"layout: {p.get('title')} lies over {taken[cell]}")
                break
            taken[cell] = p.get("title")
    return out


def findings(d):
    out = file_findings(d)
    if out and out[0].startswith("wrapped"):
        return out
    out += variable_findings(d) + layout_findings(d["panels"])
    for p in d["panels"]:
        if p["type"] != "row":
            out += panel_findings(p)
    titles = [p.get("title") for p in d["panels"]]
    out += [f"title: two panels {t!r}" for t in sorted({t for t in titles if titles.count(t) > 1})]
    out += [f"exception: no panel {t!r} any more" for t, _ in EXCEPTIONS if t not in titles]
    return out
