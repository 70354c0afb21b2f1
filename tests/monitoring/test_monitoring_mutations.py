#!/usr/bin/env python3
"""Every known trap, put into a copy of the files, must be found.  (Those that only a running Prometheus can show
are in test_monitoring_live.py too.)"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile

from monitoring_support import BUILD, DASHBOARDS, RUNBOOK, check, need, skip

need("promtool", "amtool")
sys.dont_write_bytecode = True

import dashboard_rules  # noqa: E402
import files_rules  # noqa: E402
import page_rules  # noqa: E402

BOARD = "grafana/model-cost.json"
ALERTS = "prometheus/alert-rules.yml"
RECORDS = "prometheus/recording-rules.yml"
CONFIG = "prometheus/prometheus.yml"
GRAFANA = "grafana/provisioning/alerting/costd.yaml"
SOURCES = "grafana/provisioning/datasources/prometheus.yaml"
S = r'job=~\"$job\", instance=~\"$instance\", model_name=~\"$model_name\"'
COST = "model_estimated_cost_dollars_total"


def board(folder):
    with open(os.path.join(folder, BOARD), encoding="utf-8") as f:
        return dashboard_rules.findings(json.load(f))


def damaged(damage):
    """A check of the dashboard after damage that is more than another word."""
    def judge(folder):
        with open(os.path.join(folder, BOARD), encoding="utf-8") as f:
            d = json.load(f)
        damage({p["title"]: p for p in d["panels"]})
        return dashboard_rules.findings(d)
    return judge


no_rest = damaged(lambda panels: panels["Cost by model"]["targets"].pop())
table_of_quantiles = damaged(lambda panels: panels["Request latency"]["options"]["legend"].update(
    displayMode="table", sortBy="Last *", sortDesc=True))
mean_of_counter = damaged(lambda panels: panels["Cumulative cost by model"]["options"]["legend"].update(
    calcs=["mean", "lastNotNull"]))
dollar_thresholds = damaged(lambda panels: panels["Daily estimated cost"]["fieldConfig"]["defaults"]["thresholds"][
    "steps"].append({"color": "red", "value": 100}))


def rules(folder):
    return files_rules.prometheus_findings(folder, RUNBOOK, unit_tests=False)


def units(folder):
    return files_rules.tool("promtool", "test", "rules", os.path.join(folder, "prometheus", "tests", "cost-alerts.yml"))


def health_units(folder):
    return files_rules.tool("promtool", "test", "rules",
                            os.path.join(folder, "prometheus", "tests", "health-alerts.yml"))


# Check, file, what stands there, what is put there, a word of the finding that must come.
TRAPS = [
    # --- the dashboard's queries
    (board, BOARD, f"1000 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))",
     f"1000 * rate({COST}{{{S}}}[$__rate_interval])", "matching"),
    (board, BOARD, f"1000 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))\\n  / (sum",
     f"1000 * {COST}{{{S}}}\\n  / on (model_name) (sum", "two replicas"),
    (board, BOARD, r'direction=\"output\"}[$__rate_interval])) > 0)', r'direction=\"output\"}[$__rate_interval])))',
     "divisor"),
    (board, BOARD, f"60 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))",
     f"60 * sum by (model_name) (rate({COST}{{{S}}}[15s]))", "rate-interval"),
    (board, BOARD, f"60 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))", f"{COST}{{{S}}}",
     "raw-counter"),
    (board, BOARD, f"sum(increase({COST}{{{S}}}[24h])) or 0 * sum(model_loaded{{{S}}})",
     f"sum(increase({COST}{{{S}}}[24h]))", "no-data"),
    (board, BOARD, f"or 0 * sum(model_loaded{{{S}}})", "or vector(0)", "no-data"),
    (board, BOARD, "vector(0$reference_price)", "vector($reference_price)", "template-reference_price"),
    (board, BOARD, f"24 * sum(increase({COST}{{{S}}}[1h]))", f"86400 * sum(rate({COST}{{{S}}}[$__rate_interval]))",
     "projection"),
    (board, BOARD, "model_tokens_total{" + S + ", direction", "model_tokens_total{direction", "target-job"),
    (board, BOARD, "sum by (le) (rate(model_request_duration", "sum(rate(model_request_duration", "quantile"),
    (board, BOARD, r'model_request_duration_seconds_bucket{', r'model_request_duration_seconds_bucket{le=\"10\", ',
     "le:"),
    (board, BOARD, "A quantile is never above the last bucket", "A quantile", None),  # says "buckets" elsewhere
    (board, BOARD, "last bucket ends at 80 s", "end is 80 s", "quantile"),
    (board, BOARD, "increase(model_estimated", "increase((model_estimated", "promql"),
    # --- the dashboard's file
    (board, BOARD, '"id": null', '"id": 7', "id"),
    (board, BOARD, '"schemaVersion": 39', '"schemaVersion": 42', "schema"),
    (board, BOARD, '"editable": false', '"editable": true', "editable"),
    (board, BOARD, '"uid": "${datasource}"', '"uid": "${DS_PROMETHEUS}"', "inputs"),
    (board, BOARD, '"uid": "costd-model-cost"', '"uid": null', "uid"),
    (board, BOARD, '"id": null', '"id": null, "__inputs": []', "inputs"),
    (board, BOARD, '"value": [\n            "$__all"\n          ]', '"value": ["/home/me/model"]', "author"),
    (board, BOARD, '"allValue": ".+"', '"allValue": null', "allValue"),
    (board, BOARD, '"refresh": 2', '"refresh": 1', "refresh"),
    (board, BOARD, '"value": null', '"value": 0', "thresholds"),
    (board, BOARD, '"value": 0.8', '"value": 8', "thresholds"),
    (board, BOARD, '"x": 4', '"x": 3', "layout"),
    (board, BOARD, '"w": 8,', '"w": 28,', "layout"),
    (board, BOARD, '"type": "timeseries"', '"type": "graph"', "panel-type"),
    (board, BOARD, '"unit": "currencyUSD"', '"unit": "dollars"', "panel-unit"),
    (board, BOARD, '"id": 3,', '"id": 2,', "panel-id"),
    # --- what the dashboard looks like
    (dollar_thresholds, BOARD, "", "", "threshold-dollars"),
    (board, BOARD, '"pluginVersion": "11.6.0"', '"pluginVersion": ""', "panel-version"),
    (board, BOARD, '"No data, or no price"', '"no price is set"', "panel-empty"),
    (board, BOARD, '"title": "Last hour\'s pace"', '"title": "Projected from the last hour"', "title-width"),
    (board, BOARD, '"expr": "sort_desc(topk(8,', '"expr": "sort(topk(8,', "bar-order"),
    (board, BOARD, '"expr": "sort_desc(\\n  sum by (account)', '"expr": "(\\n  sum by (account)', "bar-order"),
    (board, BOARD, '"expr": "sort_desc(topk(8,', '"expr": "sort_desc(max by (model_name) (', "bar-rest"),
    (board, BOARD, '\\"key\\", \\"other keys\\"', '\\"name\\", \\"other keys\\"', "bar-name"),
    (board, BOARD, '"displayName": "${__field.labels.key}"', '"displayName": ""', "bar-name"),
    (board, BOARD, '"displayName": "${__field.labels.key}"', '"displayName": "${__field.labels.name}"', "bar-name"),
    (no_rest, BOARD, "", "", "bar-rest"),
    (board, BOARD, '"sortDesc": true', '"sortDesc": false', "legend-order"),
    (board, BOARD, '"sortBy": "Mean"', '"sortBy": "Max"', "legend-order"),
    (table_of_quantiles, BOARD, "", "", "legend-height"),
    (mean_of_counter, BOARD, "", "", "legend-mean"),
    (board, BOARD, '"type": "log"', '"type": "linear"', "flat"),
    (board, BOARD, '"viz": true', '"viz": false', "flat"),
    (board, BOARD, '"http://${__field.labels.instance}/"', '"http://localhost/"', "link"),
    (board, BOARD, "https://docs.example.com/costd/runbook.md", "docs/runbook.md", "links"),
    (files_rules.link_findings, BOARD, "https://docs.example.com/costd/", "https://docs.example.com/", "links"),
    (board, BOARD, '"expr": "1000 * process_start_time_seconds{', '"expr": "1000 * process_open_fds{', "annotation"),
    (board, BOARD, '"useValueForTime": true', '"useValueForTime": false', "annotation"),
    (board, BOARD,
     r'changes(model_loaded{job=~\"$job\", instance=~\"$instance\", model_name=~\"$model_name\"}[$__rate_interval])',
     r'changes(model_loaded{job=~\"$job\", instance=~\"$instance\", model_name=~\"$model_name\"}[1m])', "annotation"),
    # --- Prometheus
    (rules, CONFIG, "scrape_timeout: 10s", "scrape_timeout: 20s", "promtool"),
    (rules, CONFIG, "rule_files:", "scrape_config_files:", "rule"),
    (rules, ALERTS, f"sum(increase({COST}[24h])) > 100", f"increase({COST}[24h]) > 100", "by series"),
    (units, ALERTS, f"sum(increase({COST}[24h])) > 100", f"increase({COST}[24h]) > 100", "DailyModelCostHigh"),
    (units, ALERTS, f"sum(increase({COST}[24h])) > 100", f"sum({COST}) > 100", "DailyModelCostHigh"),
    (rules, ALERTS, f"sum(increase({COST}[24h])) > 100", f"sum({COST}) > 100", "as it stands"),
    (units, ALERTS, "> scalar(max(costd_daily_budget_dollars))\n        for: 10m",
     "> scalar(sum(costd_daily_budget_dollars))\n        for: 10m", "DailyCostOverBudget"),
    (units, ALERTS, "          and\n          144 * sum", "          or\n          144 * sum", "CostBurnFast"),
    (rules, ALERTS, f"absent({COST}", f"count({COST}", "none fires"),
    (health_units, ALERTS, ' or absent(up{job="costd"})', "", "CostdDown"),
    (rules, ALERTS, "            > 0)\n            > 0.05", "            )\n            > 0.05", "divisor"),
    (health_units, ALERTS,
     '              + sum by (model_name) (rate(model_request_errors_total{code=~"queue_full|unavailable"}[5m]))\n', "",
     "ErrorRateHigh"),
    (rules, ALERTS, "        for: 2m\n", "", "first evaluation"),
    (rules, ALERTS, "runbook.md#costddown", "runbook.md#down", "runbook"),
    (rules, ALERTS, "runbook_url: https://docs.example.com/costd/", "runbook_url: docs/", "absolute"),
    (rules, RECORDS, '{direction="output"}) > 0)', '{direction="output"}))', "divisor"),
    (rules, RECORDS, "record: account:costinfer", "record: account-costinfer", "promtool"),
    # --- Grafana's provisioning
    (files_rules.provisioning_findings, GRAFANA, "exceeds $$100", "exceeds $100", "write $$"),
    (files_rules.provisioning_findings, GRAFANA, "labels: {severity: critical, service: costd}",
     "labels: {severity: critical, service: '{{ $labels.job }}'}", "write $$"),
    (files_rules.provisioning_findings, GRAFANA, "cost {{ $values", "cost ${{ $values", "environment"),
    (files_rules.provisioning_findings, GRAFANA, "            relativeTimeRange: {from: 600, to: 0}\n", "",
     "relativeTimeRange"),
    (files_rules.provisioning_findings, GRAFANA, "{from: 600, to: 0}", "{from: 0, to: 0}", "empty time range"),
    (files_rules.provisioning_findings, GRAFANA, "apiVersion: 1\n", "apiVersion: 1\npolicies: [{receiver: costd}]\n",
     "policy tree"),
    (files_rules.provisioning_findings, GRAFANA, "condition: C", "condition: D", "condition"),
    (files_rules.provisioning_findings, GRAFANA, "    interval: 1m\n", "", "interval"),
    (files_rules.provisioning_findings, GRAFANA, "    folder: costd\n", "", "folder"),
    (files_rules.provisioning_findings, GRAFANA, "uid: costd-down", "uid: costd-burn-fast", "one uid"),
    (files_rules.provisioning_findings, GRAFANA, "uid: costd-down", "uid: 'costd down'", "uid"),
    (files_rules.provisioning_findings, GRAFANA, " or vector(0)", "", "same"),
    (files_rules.provisioning_findings, GRAFANA, "params: [100]", "params: [1000]", "same"),
    (files_rules.provisioning_findings, GRAFANA, "params: [-1]", "params: [0]", "when it should fire"),
    (files_rules.provisioning_findings, GRAFANA, "noDataState: NoData", "noDataState: OK", "absence"),
    (files_rules.provisioning_findings, GRAFANA, "execErrState: Error", "execErrorState: Error", "unknown field"),
    (files_rules.provisioning_findings, GRAFANA, "instant: true", "instant: false", "instant"),
    (files_rules.provisioning_findings, GRAFANA, "[5m]", "[1m]", "same"),
    (files_rules.provisioning_findings, GRAFANA, "        panelId: 35\n", "", "panelId is missing"),
    (files_rules.provisioning_findings, GRAFANA, "panelId: 35", "panelId: 99", "no panel 99"),
    (files_rules.provisioning_findings, GRAFANA, "dashboardUid: costd-model-cost", "dashboardUid: costd",
     "in a dashboard"),
    (files_rules.provisioning_findings, GRAFANA, "__panelId__: '35'", "__panelId__: '2'", "another panel"),
    (files_rules.provisioning_findings, SOURCES, "uid: prometheus", "uid: prom", "no data source"),
    (files_rules.provisioning_findings, SOURCES, "timeInterval: 15s", "timeInterval: 1m", "timeInterval"),
    # --- the rest
    (files_rules.alertmanager_findings, "alertmanager/alertmanager.yml", "receiver: slack", "receiver: slick",
     "amtool"),
    (files_rules.compose_findings, "docker-compose.yml", "127.0.0.1:9090:9090", "9090:9090", "open to the network"),
    (files_rules.compose_findings, "docker-compose.yml", "./prometheus/alert-rules.yml", "./prometheus/alerts.yml",
     "absent"),
]


def try_trap(judge, path, there, trap, word):
    with tempfile.TemporaryDirectory(prefix="monitoring-") as temp:
        folder = os.path.join(temp, "dashboards")
        shutil.copytree(DASHBOARDS, folder)
        file = os.path.join(folder, path)
        with open(file, encoding="utf-8") as f:
            text = f.read()
        check(there in text, "the trap's place is gone:", path, there)
        with open(file, "w", encoding="utf-8") as f:
            f.write(text.replace(there, trap, 1))
        found = judge(folder)
    if word is None:
        check(not found, "found where nothing is wrong:", found)
    else:
        check(any(word in f for f in found), f"not found ({word}):", trap, "but", found)


def wrapped():
    with open(os.path.join(DASHBOARDS, BOARD), encoding="utf-8") as f:
        found = dashboard_rules.findings({"dashboard": json.load(f), "overwrite": True})
    check(found and "wrapped" in found[0], found)


def pages():
    """Traps of the page itself."""
    demo = os.path.join(BUILD, "bin", "exposition_demo")
    if not os.path.exists(demo):
        print(demo + " is absent: no pages")
        return 0
    try:
        page_rules.openmetrics_findings(b"# EOF\n")
    except ImportError:
        skip("python3-prometheus-client is absent")
    text, openmetrics, new = (subprocess.run([demo, *arguments, "large", "small"], capture_output=True, check=True)
                              .stdout for arguments in (("text", "used"), ("openmetrics", "used"), ("text", "new")))
    check(not page_rules.text_findings(text) and not page_rules.openmetrics_findings(openmetrics),
          "a good page is refused")
    good = b'model_requests_running{model_name="large"} '
    check(text.count(good) == 1, "no such line")
    value = text.partition(good)[2].partition(b"\n")[0]
    broken = {
        "exemplar": text.replace(good + value, good + value + b' # {trace_id="1"} 1'),
        "comma": text.replace(good + value, good + b"0,5"),
        "carriage returns": text.replace(b"\n", b"\r\n"),
        "not UTF-8": text.replace(b'"large"', b'"lar\xffge"'),
        "a raw line feed": text.replace(b'"large"', b'"la\nrge"'),
    }
    for name, page in broken.items():
        check(page != text and page_rules.text_findings(page), "not found in text:", name)
    broken_om = {
        "no end": openmetrics.replace(b"# EOF\n", b""),
        "family with _total": openmetrics.replace(b"# TYPE model_tokens counter", b"# TYPE model_tokens_total counter"),
        "bounds without a point": openmetrics.replace(b'le="10.0"', b'le="10"'),
    }
    for name, page in broken_om.items():
        check(page != openmetrics and page_rules.openmetrics_findings(page), "not found in OpenMetrics:", name)

    new = new.decode()
    check(not page_rules.start_findings(new, new), page_rules.start_findings(new, new))
    late = "\n".join(line for line in new.splitlines() if not line.startswith(COST + '{model_name="large"'))
    check(any("late" in f for f in page_rules.start_findings(late, new)), "a late series is not found")
    stale = new.replace(COST + '{model_name="large"} 0.000000000000', COST + '{model_name="large"} 8.7')
    check(stale != new and any("restored" in f for f in page_rules.start_findings(stale, new)),
          "a stale restore is not found")
    return len(broken) + len(broken_om) + 2


with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(lambda trap: try_trap(*trap), TRAPS))
wrapped()
print(f"{len(TRAPS) + 1} traps in files and {pages()} in pages are found")
