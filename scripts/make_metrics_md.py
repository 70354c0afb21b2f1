#!/usr/bin/env python3
"""Writes docs/METRICS.md from the metrics pages of the programs themselves.

    scripts/make_metrics_md.py [--build build] [--check]

Names, types, units, labels and help come from a live costd and, for the rows that only a GPU has, from the tests'
program exposition_demo.  EXAMPLES has one query for each metric; a missing or superfluous one is an error.  --check
writes nothing and exits with 1 if the file differs."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "METRICS.md")

# Labels whose values are a fixed list, which the page shows.
CLOSED = ("endpoint", "direction", "finish_reason", "code", "phase", "account", "per", "outcome", "status")

GROUPS = (
    ("Models", "model_", "These metrics count requests: a call of `/v1/completions` with three prompts is three requests, "
     "and `n` changes nothing. HTTP calls are `costd_http_calls_total`, and the log has a line for each call, whose "
     "`requests` and `choices` say how many it had. Every series of a model exists, at 0, from the moment the model is added, and remains "
     "after it is unloaded, so `increase()` cannot miss the first event."),
    ("The machine", "costinfer_", "The accounts add up exactly to the time since the device was opened; the "
     "models above share `serve`."),
    ("A GPU's memory", "gpu_", "These metrics are absent, not 0, when models run on the CPU."),
    ("The daemon", "costd_", "With `--keys`, the whole page is for admin keys and for the private metrics listener. "
     "Any other key sees `costd_build_info` and its own series of the families by `key`, and nothing else: a sum over "
     "all keys would tell what the others have used. `/api/recent` lists its own requests, and the page's figures "
     "need an admin key. So scrape the private listener, or give Prometheus an admin key."),
    ("The process", "process_", "All client libraries of Prometheus have these metrics."),
)

EXAMPLES = {
    "costd_ledger_up": "min by (instance) (costd_ledger_up) == 0",
    "costd_ledger_waiting_requests": "max by (instance) (costd_ledger_waiting_requests)",
    "costd_ledger_file_bytes": "deriv(costd_ledger_file_bytes[1d]) * 86400 * 30",
    "costd_ledger_log_bytes": "max by (instance) (costd_ledger_log_bytes) > 64e6",
    "costd_ledger_commits_total": "sum by (instance) (rate(costd_ledger_commits_total[5m]))",
    "costd_ledger_failures_total": "sum by (instance) (increase(costd_ledger_failures_total[15m])) > 0",
    "costd_ledger_recorded_requests_total": "sum by (instance) (rate(costd_ledger_recorded_requests_total[5m]))",
    "costd_ledger_unrecorded_requests_total":
        "sum by (instance) (increase(costd_ledger_unrecorded_requests_total[1h])) > 0",
    "model_request_total": "sum by (endpoint) (rate(model_request_total[5m]))",
    "model_tokens_total": "sum by (model_name, direction) (rate(model_tokens_total[5m]))",
    "model_cached_tokens_total": 'sum by (model_name) (rate(model_cached_tokens_total[5m]))\n'
                                 '  / (sum by (model_name) (rate(model_tokens_total{direction="input"}[5m])) > 0)',
    "model_draft_tokens_total": 'sum by (model_name) (rate(model_draft_tokens_total{outcome="accepted"}[5m]))\n'
                                '  / (sum by (model_name) (rate(model_draft_tokens_total[5m])) > 0)',
    "model_requests_finished_total": "sum by (finish_reason) (increase(model_requests_finished_total[1h]))",
    "model_request_errors_total": "sum by (model_name, code) (rate(model_request_errors_total[5m]))",
    "model_requests_running": "sum by (model_name) (model_requests_running)",
    "model_requests_waiting": "max by (instance) (model_requests_waiting)\n"
                              "  / on (instance) max by (instance) (costd_queue_limit)",
    "model_loaded": "sum by (model_name) (model_loaded)",
    "model_device_seconds_total": "sum by (model_name, phase) (rate(model_device_seconds_total[5m]))",
    "model_finished_device_seconds_total":
        'sum by (finish_reason) (increase(model_finished_device_seconds_total{finish_reason!~"stop|length"}[1h]))',
    "model_estimated_cost_dollars_total": "sum by (model_name) (increase(model_estimated_cost_dollars_total[24h]))",
    "model_request_duration_seconds":
        "histogram_quantile(0.95, sum by (le) (rate(model_request_duration_seconds_bucket[5m])))",
    "model_time_to_first_token_seconds":
        "histogram_quantile(0.95, sum by (le, model_name) (rate(model_time_to_first_token_seconds_bucket[5m]))) >= 0",
    "model_inter_token_seconds":
        "histogram_quantile(0.5, sum by (le, model_name) (rate(model_inter_token_seconds_bucket[5m]))) >= 0",
    "model_queue_seconds": "histogram_quantile(0.95, sum by (le) (rate(model_queue_seconds_bucket[5m])))",
    "costinfer_device_seconds_total": "sum by (account) (rate(costinfer_device_seconds_total[5m]))",
    "costinfer_device_uptime_seconds": "sum by (instance) (costinfer_device_seconds_total)\n"
                                       "  - on (instance) costinfer_device_uptime_seconds",
    "costinfer_device_cost_dollars_total": "sum by (account) (increase(costinfer_device_cost_dollars_total[24h]))",
    "costinfer_unpriced_seconds_total": "sum by (instance) (increase(costinfer_unpriced_seconds_total[1h]))",
    "costinfer_price_dollars_per_hour": "24 * sum(costinfer_price_dollars_per_hour)",
    "costinfer_basis_info": "count by (basis) (costinfer_basis_info)",
    "costinfer_split_seconds": "costinfer_split_seconds",
    "gpu_utilization_percent": "max by (instance, gpu) (gpu_utilization_percent)",
    "gpu_memory_used_bytes": "sum by (instance, gpu) (gpu_memory_used_bytes)\n"
                             "  / sum by (instance, gpu) (gpu_memory_total_bytes)",
    "gpu_memory_device_used_bytes": "max by (instance, gpu) (gpu_memory_device_used_bytes)\n"
                                    "  - max by (instance, gpu) (gpu_memory_used_bytes)",
    "gpu_memory_total_bytes": "sum by (instance, gpu) (gpu_memory_total_bytes)",
    "costd_build_info": "count by (version, device) (costd_build_info)",
    "costd_http_calls_total": 'sum by (endpoint) (rate(costd_http_calls_total{status="5xx"}[5m]))\n'
                              '  / (sum by (endpoint) (rate(costd_http_calls_total[5m])) > 0)',
    "costd_log_dropped_lines_total": "increase(costd_log_dropped_lines_total[1h])",
    "costd_queue_limit": "max by (instance) (costd_queue_limit)",
    "costd_connections": "max by (instance) (costd_connections)",
    "costd_daily_budget_dollars": "sum(increase(model_estimated_cost_dollars_total[24h]))\n"
                                  "  / scalar(max(costd_daily_budget_dollars))",
    "costd_key_lines_refused": "max by (instance) (costd_key_lines_refused) > 0",
    "costd_reloads_total": 'sum by (outcome) (increase(costd_reloads_total{outcome!="applied"}[1h]))',
    "costd_last_reload_successful": "min by (instance) (costd_last_reload_successful) == 0",
    "costd_model_loads_total": 'increase(costd_model_loads_total{outcome="failed"}[1h])',
    "costd_models_missing": "max by (instance) (costd_models_missing) > 0",
    "costd_key_device_seconds_total": "sum by (key) (rate(costd_key_device_seconds_total[5m]))",
    "costd_key_cost_dollars_total": "sum by (key) (increase(costd_key_cost_dollars_total[24h]))",
    "process_cpu_seconds_total": "rate(process_cpu_seconds_total[5m])",
    "process_start_time_seconds": "changes(process_start_time_seconds[1h])",
    "process_virtual_memory_bytes": "process_virtual_memory_bytes",
    "process_resident_memory_bytes": "process_resident_memory_bytes",
    "process_open_fds": "process_open_fds / process_max_fds",
    "process_max_fds": "process_max_fds",
    "model_payer_device_seconds_total": 'topk(10, sum by (payer) (increase(model_payer_device_seconds_total[1d])))',
    "model_payer_cost_dollars_total": 'sum by (payer, model_name) (increase(model_payer_cost_dollars_total[1d]))',
    "model_payer_tokens_total": 'sum by (payer) (rate(model_payer_tokens_total{direction="output"}[5m]))',
    "costinfer_stalls_total": 'increase(costinfer_stalls_total[1h]) > 0',
    "costinfer_clock_steps_total": 'increase(costinfer_clock_steps_total[1h]) > 0',
}


class Family:
    def __init__(self, name, kind):
        self.name, self.kind, self.unit, self.help = name, kind, None, None
        self.labels = {}  # name -> values, in the order seen

    @property
    def full_name(self):
        return self.name + ("_total" if self.kind == "counter" else "")


def read_families(openmetrics):
    """The families of a page in OpenMetrics, in its order."""
    families = []
    for line in openmetrics.splitlines():
        if line.startswith("# "):
            word, _, rest = line[2:].partition(" ")
            if word == "TYPE":
                families.append(Family(*rest.split(" ")))
            elif word in ("UNIT", "HELP"):
                setattr(families[-1], word.lower(), rest.partition(" ")[2])
        elif "{" in line:
            for name, value in re.findall(r'(\w+)="([^"]*)"', line):
                values = families[-1].labels.setdefault(name, [])
                if value not in values:
                    values.append(value)
    return families


def live_page(costd):
    """The families of a costd with a model, a price, a budget and a ledger."""
    model = os.path.join(ROOT, "examples", "models", "stories-small")
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([costd, "--model=small=" + model, "--listen=127.0.0.1:0", "--device=cpu-reference",
                                    "--cpu-cost-per-hour=0.10", "--daily-budget=1", f"--ledger={folder}/ledger.db"],
                                   stderr=log)
        try:
            for _ in range(600):
                log.seek(0)
                text = log.read()
                if '"event":"ready"' in text:
                    break
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            port = re.search(r'"event":"listening".*?"port":(\d+)', text)
            if not port:
                raise SystemExit("make_metrics_md: costd did not start:\n" + text)
            # A payer has series from its first request on.
            ask = urllib.request.Request(f"http://127.0.0.1:{port[1]}/v1/generate/small", b'{"max_tokens": 1}',
                                         {"Content-Type": "application/json"})
            urllib.request.urlopen(ask, timeout=60).close()
            request = urllib.request.Request(f"http://127.0.0.1:{port[1]}/metrics",
                                             headers={"Accept": "application/openmetrics-text"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        finally:
            process.terminate()
            process.wait()


def registry(build):
    costd, demo = (os.path.join(build, "bin", name) for name in ("costd", "exposition_demo"))
    families = read_families(live_page(costd))
    known = {f.name for f in families}
    page = subprocess.run([demo, "openmetrics", "used", "small"], capture_output=True, text=True, check=True).stdout
    return families + [f for f in read_families(page) if f.name not in known]


def label_text(name, values):
    if name not in CLOSED:
        return f"`{name}`"
    return f"`{name}` (" + ", ".join(f"`{v}`" for v in values) + ")"


def render(families):
    names = {f.full_name for f in families}
    if names != set(EXAMPLES):
        raise SystemExit(f"make_metrics_md: examples are missing for {sorted(names - set(EXAMPLES))} "
                         f"and left over for {sorted(set(EXAMPLES) - names)}")
    out = ["# Metrics", "",
           "`GET /metrics` returns these metrics, in text format 0.0.4 or OpenMetrics 1.0, as the scraper requests.",
           "`scripts/make_metrics_md.py` writes this page from a running costd: change the code, not the page. A test",
           "fails if the two differ.", "",
           "Counters start at 0 with the process. Label values come from loaded models and from fixed lists, never",
           "from a request, so the number of series depends only on the number of models. A model on one instance",
           "has {} series.".format(series_of_a_model(families)), ""]
    left = list(families)
    for title, prefix, note in GROUPS:
        out += [f"## {title}", ""]
        if note:
            out += [textwrap.fill(note, 116, break_on_hyphens=False), ""]
        for f in [f for f in left if f.name.startswith(prefix)]:
            left.remove(f)
            labels = [label_text(k, v) for k, v in f.labels.items() if k != "le"]
            facts = [f.kind] + ([f.unit] if f.unit else []) + (["by " + ", ".join(labels)] if labels else [])
            out += [f"### `{f.full_name}`", "", " · ".join(facts), "", f.help, "", "```promql",
                    EXAMPLES[f.full_name], "```", ""]
    if left:
        raise SystemExit(f"make_metrics_md: no group for {[f.name for f in left]}")
    return "\n".join(out).rstrip("\n") + "\n"


def series_of_a_model(families):
    """Counts the series of a model, on a page that has one model."""
    total = 0
    for f in families:
        if "model_name" in f.labels:
            values = 1
            for name, seen in f.labels.items():
                values *= 1 if name == "model_name" else len(seen)
            total += values + (2 if f.kind == "histogram" else 0)  # _sum and _count
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = render(registry(options.build))
    if options.check:
        with open(PAGE, encoding="utf-8") as f:
            if f.read() != text:
                print("make_metrics_md: docs/METRICS.md is stale; run scripts/make_metrics_md.py", file=sys.stderr)
                return 1
        return 0
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
