"""What is wrong with a Grafana dashboard: the rules of the published dashboard-linter, those of files that Grafana
loads by itself, and those of a dashboard that is read at a glance: bars in order and named, legends and titles that
fit, lines that can be told apart.  findings(dashboard) is empty for a good one.

A finding starts with the name of its rule.  Exceptions are listed by the panel's title, with the reason."""
import re

import promql

SCHEMA = 39  # Grafana migrates a file up, never down
PANEL_TYPES = {"row", "timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "piechart", "text"}
UNITS = {"none", "short", "percent", "percentunit", "s", "ms", "bytes", "decbytes", "reqps", "ops", "currencyUSD"}
EXCEPTIONS = {
    ("Cumulative cost by model", "raw-counter"): "shows the counter as it stands, on purpose, and says so",
    ("Budget used", "target-model_name"): "the budget is for all models together, whichever are chosen",
}
QUERY_VARIABLES = {"job": "Job", "instance": "Instance", "model_name": "Model"}
CLOSED_LABELS = {"account", "finish_reason"}  # a few values that the program fixes: a bar for each
REDUCERS = {"mean": "Mean", "lastNotNull": "Last *", "max": "Max", "sum": "Total"}  # as legends and sortBy name them
CONSTANTS = {"costd_queue_limit", "costd_daily_budget_dollars", "costinfer_price_dollars_per_hour"}
EVENTS = {"process_start_time_seconds", "model_loaded", "costinfer_price_dollars_per_hour"}

# Measured on a page that is 1440 pixels wide: a column, a character of a title, and what a title leaves to its icons.
COLUMN, CHARACTER, ICONS = 60, 8.2, 75
# A row of the grid and the gap below it, a panel's title, and a row of a legend, of which a third of the panel is one.
ROW, GAP, TITLE, LEGEND_ROW, LEGEND_SHARE = 30, 8, 40, 24, 0.35


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
            out.append(f"inputs: only a manual import resolves {key}")
    if "${DS_" in str(d):
        out.append("inputs: only a manual import resolves ${DS_…}")
    if not isinstance(d.get("schemaVersion"), int) or d["schemaVersion"] > SCHEMA:
        out.append(f"schema: schemaVersion must be at most {SCHEMA}")
    if d.get("editable") is not False:
        out.append("editable: must be false, because the file is loaded again")
    if not any(re.fullmatch(r"https://\S+/runbook\.md", link.get("url", "")) for link in d.get("links", [])):
        out.append("links: none leads to the runbook by an absolute URL")
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
        if v["type"] == "textbox" and any(re.search(r"(?<!0)\$%s\b" % v["name"], t["expr"])
                                          for p in d["panels"] for t in p.get("targets", [])):
            out.append(f"template-{v['name']}: an empty text box is a parse error; write 0${v['name']}")
    return out


def threshold_findings(title, defaults):
    out, steps = [], defaults["thresholds"]["steps"]
    values = [s["value"] for s in steps]
    if not values or values[0] is not None or any(v is None for v in values[1:]) or values[1:] != sorted(values[1:]):
        out.append(f"thresholds: {title}: the first must be null, the others ascending")
    if len(steps) > 1 and defaults.get("unit") == "currencyUSD":
        out.append(f"threshold-dollars: {title}: fixed dollars know nothing of --daily-budget")
    return out


def panel_findings(p):
    title = p.get("title") or f"panel {p.get('id')}"
    out = [f"panel-{key}: {title} has none" for key in ("title", "description") if not p.get(key)]
    if p.get("type") not in PANEL_TYPES:
        out.append(f"panel-type: {title} is a {p.get('type')}, which Grafana no longer has")
    if not re.fullmatch(r"\d+\.\d+\.\d+", p.get("pluginVersion", "")):
        out.append(f"panel-version: {title} has no pluginVersion, so Grafana migrates it from the oldest")
    defaults = p.get("fieldConfig", {}).get("defaults", {})
    if defaults.get("unit") not in UNITS:
        out.append(f"panel-unit: {title} has unit {defaults.get('unit')!r}")
    if not defaults.get("noValue", "No data").startswith("No data"):
        out.append(f"panel-empty: {title} says {defaults['noValue']!r} also when nothing is scraped")
    if len(title) * CHARACTER + ICONS > p["gridPos"]["w"] * COLUMN:
        out.append(f"title-width: {title} does not fit {p['gridPos']['w']} columns")
    if "thresholds" in defaults:
        out += threshold_findings(title, defaults)
    if not p.get("targets"):
        out.append(f"panel-targets: {title} asks for nothing")
    for where in [p] + p.get("targets", []):
        if where.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
            out.append(f"panel-datasource: {title} does not take the data source that was chosen")
    refs = [t.get("refId") for t in p.get("targets", [])]
    if len(set(refs)) != len(refs) or None in refs:
        out.append(f"panel-targets: {title}: refIds {refs}")
    quantiles = any("histogram_quantile" in t["expr"] for t in p.get("targets", []))
    if quantiles and "bucket" not in p.get("description", ""):
        out.append(f"quantile: {title} does not say where its last bucket ends")
    wrong = []
    for t in p.get("targets", []):
        wrong += target_findings(title, t["expr"])
        if not t.get("legendFormat"):
            out.append(f"legend: {title}")
        if t.get("instant") == t.get("range"):
            out.append(f"target: {title} is neither instant nor a range")
        if p["type"] == "timeseries" and t.get("instant"):
            out.append(f"target: {title} draws a single value")
    if any(f.startswith("promql") for f in wrong):
        return out + wrong
    if p["type"] == "bargauge":
        wrong += bar_findings(title, p)
    if p["type"] == "timeseries":
        wrong += line_findings(title, p)
    return out + [f for f in wrong if (title, f.split(":")[0]) not in EXCEPTIONS]


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
    tree = promql.parse(expr)
    if tree.kind == "sum" and not tree.by and any(n.range == "24h" for n, _ in found):
        out.append(f"no-data: {title}: increase() has no value before the second scrape; "
                   "needs \"or 0 * sum(…)\" of a gauge")
    if tree.kind == "op" and tree.name == "or" and "vector(" in expr:
        out.append(f"no-data: {title}: a vector() shows a number when nothing is scraped")
    return out


def bar_findings(title, p):
    """Bars are drawn in the order of the answer, a lone one without its legend, and those that do not fit are cut."""
    name = re.fullmatch(r"\$\{__field\.labels\.(\w+)\}", p["fieldConfig"]["defaults"].get("displayName", ""))
    if not name:
        return [f"bar-name: {title}: a lone bar has no name without displayName ${{__field.labels.…}}"]
    label, out, rest = name[1], [], False
    for t in p["targets"]:
        tree = promql.parse(t["expr"])
        if tree.kind == "call" and tree.name == "label_replace":  # one bar, named by hand
            rest = True
            if tree.args[1].name != f'"{label}"':
                out.append(f"bar-name: {title}: {t['refId']} has no label {label}")
            continue
        if not any(label in (n.by or ()) for n, _ in tree.walk()):
            out.append(f"bar-name: {title}: {t['refId']} has no label {label}")
        if not (tree.kind == "call" and tree.name == "sort_desc" and t.get("instant")):
            out.append(f"bar-order: {title}: {t['refId']} is not sorted, the largest first")
        if label not in CLOSED_LABELS and not any(n.name == "topk" for n, _ in tree.walk()):
            out.append(f"bar-rest: {title}: {t['refId']} has as many bars as there are values of {label}; needs topk")
    if label not in CLOSED_LABELS and not rest:
        out.append(f"bar-rest: {title}: nothing shows what the bars beyond the first have in sum")
    return out


def line_findings(title, p):
    out = []
    legend = p["options"]["legend"]
    named = [t for t in p["targets"] if "{{" not in t["legendFormat"]]
    if not legend.get("showLegend") or not legend["calcs"]:
        out.append(f"legend-order: {title}: no legend with values")
    elif legend["displayMode"] == "table":
        if legend.get("sortBy") not in [REDUCERS[c] for c in legend["calcs"]] or legend.get("sortDesc") is not True:
            out.append(f"legend-order: {title}: zeros may come first; sort by one of its columns, descending")
        height = p["gridPos"]["h"] * (ROW + GAP) - GAP - TITLE
        rows = int(LEGEND_SHARE * height / LEGEND_ROW) - 1
        if len(named) > rows:
            out.append(f"legend-height: {title}: {len(named)} series, of which a table shows {rows}; needs a list")
    raw = any(is_counter(n.name) and not any(a.name in ("rate", "increase") for a in parents)
              for t in p["targets"] for n, parents in promql.selectors(t["expr"]))
    if raw and "mean" in legend["calcs"]:
        out.append(f"legend-mean: {title}: the mean of a counter means nothing")
    if len(p["targets"]) > 1:
        for t in p["targets"]:
            tree = promql.parse(t["expr"])
            asked = promql.metrics(t["expr"])
            if (asked <= CONSTANTS if asked else tree.name == "vector") and not set_apart(p, t["legendFormat"]):
                out.append(f"flat: {title}: the line {t['legendFormat']!r} may flatten the others")
    links = [link.get("url", "") for link in p["fieldConfig"]["defaults"].get("links", [])]
    if any("{{instance}}" in t["legendFormat"] for t in p["targets"]) and not any(
            "${__field.labels.instance}" in url for url in links):
        out.append(f"link: {title} does not lead to the page of its instance")
    return out


def set_apart(p, name):
    """A line far from the others does no harm on a logarithmic axis, on an axis of its own, or when it is not drawn."""
    if p["fieldConfig"]["defaults"]["custom"].get("scaleDistribution", {}).get("type") == "log":
        return True
    matcher = {"id": "byName", "options": name}
    properties = {q["id"]: q["value"] for o in p["fieldConfig"]["overrides"] if o["matcher"] == matcher
                  for q in o["properties"]}
    return properties.get("custom.axisPlacement") == "right" or bool(properties.get("custom.hideFrom", {}).get("viz"))


def annotation_findings(d):
    """Restarts, loads and price changes stand in every graph."""
    out, asked = [], set()
    for a in d["annotations"]["list"]:
        at = f"annotation {a['name']}"
        out += target_findings(at, a["expr"])
        if a.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
            out.append(f"panel-datasource: {at} does not take the data source that was chosen")
        for n, parents in promql.selectors(a["expr"]):
            asked.add(n.name)
            if any(c.name == "changes" for c in parents) and n.range != "$__rate_interval":
                out.append(f"annotation: {at}: a change between two windows is missed; ask over $__rate_interval")
            if n.name == "process_start_time_seconds" and a.get("useValueForTime") is not True:
                out.append(f"annotation: {at}: the value is the time")
    return out + [f"annotation: none of {e}" for e in sorted(EVENTS - asked)]


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
    out += variable_findings(d) + layout_findings(d["panels"]) + annotation_findings(d)
    for p in d["panels"]:
        if p["type"] != "row":
            out += panel_findings(p)
    titles = [p.get("title") for p in d["panels"]]
    out += [f"title: two panels {t!r}" for t in sorted({t for t in titles if titles.count(t) > 1})]
    out += [f"exception: no panel {t!r} any more" for t, _ in EXCEPTIONS if t not in titles]
    return out
