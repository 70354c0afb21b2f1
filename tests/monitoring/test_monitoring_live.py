#!/usr/bin/env python3
"""A real Prometheus with the shipped configuration and rules, two live daemons and a load of which one model gets
four fifths: every panel, alert and example answers with finite numbers; Prometheus, /metrics and the sum of the
responses agree; a killed daemon invents no money; and the traps that only a running Prometheus shows are found."""
import http.server
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from fractions import Fraction

from monitoring_support import BUILD, COSTD, DASHBOARDS, SOURCE, check, need, no, skip

need("prometheus", "promtool")
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
sys.dont_write_bytecode = True

import tempfile  # noqa: E402

import demo_traffic  # noqa: E402
import files_rules  # noqa: E402
import page_rules  # noqa: E402
import promql  # noqa: E402
from monitoring_stack import Prometheus, free_port  # noqa: E402

SMALL = os.path.join(SOURCE, "examples", "models", "stories-small")
for path in (COSTD, SMALL):
    if not os.path.exists(path):
        skip(path + " is absent")

LOAD_SECONDS = 8
PRICE = "0.10"
WINDOW = "10s"  # for $__rate_interval: several scrapes, one a second
RANGE = "5m"
COST = "model_estimated_cost_dollars_total"
# Panels that are empty when models run on the CPU; here the rows of a GPU come from the demonstration of the writer.
GPU_PANELS = {"GPU memory", "GPU memory share over time"}
GPU_METRIC = "gpu_memory_total_bytes"
# The tutorial's requests: long answers of the one, short ones of the other.  Device time decides what they cost.
MIX = [("stories-large", 40)] * 4 + [("stories-small", 40)]


def concrete(expr, top=None, reference="0.002"):
    """A panel's query with its variables filled in.  Few models and keys run here, so the bar of all those beyond the
    first eight is asked for with fewer."""
    expr = expr.replace("$__rate_interval", WINDOW).replace("$__range", RANGE)
    if top is None and " unless" in expr:
        top = 0
    if top is not None:
        expr = expr.replace("topk(8,", f"topk({top},")
    return re.sub(r"\$(job|instance|model_name)\b", ".+", expr).replace("$reference_price", reference)


def answer_findings(prometheus, where, expr):
    try:
        answer = prometheus.query(expr)
    except ValueError as e:
        return [f"{where}: refused: {e}: {expr}"]
    if not answer:
        return [f"{where}: empty: {expr}"]
    return [f"{where}: {value} for {labels}: {expr}" for labels, value in answer if not math.isfinite(value)]


def dashboard_answers(prometheus, dashboard, has_gpu):
    out = []
    for p in dashboard["panels"]:
        if p["type"] == "row" or (p["title"] in GPU_PANELS and not has_gpu):
            continue
        for t in p["targets"]:
            for reference in ("0.002", "") if "$reference_price" in t["expr"] else ("0.002",):
                out += answer_findings(prometheus, p["title"], concrete(t["expr"], reference=reference))
    for a in dashboard["annotations"]["list"]:
        for part in promql.operands(concrete(a["expr"])):
            out += answer_findings(prometheus, a["name"], part)
    return out


def bar_answers(prometheus, dashboard):
    """The bars come with the largest first, and those that are shown and the rest make up the whole."""
    out, seen = [], 0
    for p in dashboard["panels"]:
        if p["type"] != "bargauge":
            continue
        for t in p["targets"]:
            values = [v for _, v in prometheus.query(concrete(t["expr"], 100))]
            if values != sorted(values, reverse=True):
                out.append(f"{p['title']}: not in order: {values}")
        rest = [t for t in p["targets"] if t["legendFormat"].startswith("other ")]
        if not rest:
            continue
        seen += 1
        whole, first, others = (sum(v for _, v in prometheus.query(concrete(t["expr"], top)))
                                for t, top in ((p["targets"][0], 100), (p["targets"][0], 1), (rest[0], 1)))
        if abs(first + others - whole) > 0.01 * whole or whole == 0:
            out.append(f"{p['title']}: the first {first} and the others {others} are not {whole}")
        if prometheus.query(concrete(rest[0]["expr"], 100)):
            out.append(f"{p['title']}: a bar for others where there are none")
    check(seen > 0, "no panel sums what it does not show")
    return out


def rule_answers(prometheus):
    out = []
    rules = files_rules.alert_rules(DASHBOARDS)
    for r in rules:
        for part in promql.operands(r["expr"]):
            out += answer_findings(prometheus, r["alert"], part)
    for g in files_rules.load(DASHBOARDS, "prometheus", "recording-rules.yml")["groups"]:
        for r in g["rules"]:
            out += answer_findings(prometheus, r["record"], r["record"])
    for g in files_rules.load(DASHBOARDS, "grafana", "provisioning", "alerting", "costd.yaml")["groups"]:
        for r in g["rules"]:
            for part in promql.operands(files_rules.grafana_query(r)):
                out += answer_findings(prometheus, r["title"], part)
    return out


def example_answers(prometheus, has_gpu):
    with open(os.path.join(SOURCE, "docs", "METRICS.md"), encoding="utf-8") as f:
        examples = re.findall(r"### `(\w+)`.*?```promql\n(.*?)```", f.read(), re.S)
    check(len(examples) > 25, "examples:", len(examples))
    # What all programs use of a GPU is known where its driver says so; PoCL has none that does.
    left_out = ("gpu_memory_device_used_bytes",) if has_gpu else ("gpu_",)
    return [f for name, expr in examples if not name.startswith(left_out)
            for f in answer_findings(prometheus, name, expr)]


def user(costd, number, end, answers):
    turn = number
    while time.monotonic() < end:
        model, tokens = MIX[turn % len(MIX)]
        turn += 1
        body = {"prompt": "Once upon a time", "max_tokens": tokens, "temperature": 0.8, "seed": turn,
                "ignore_eos": True}
        status, text = costd.ask("POST", "/v1/generate/" + model, body)
        check(status == 200, text)
        answers.append(json.loads(text, parse_float=str))


def load(daemons):
    """Three users of the first daemon, one of the second; the answers of each."""
    end, answers = time.monotonic() + LOAD_SECONDS, [[], []]
    users = [threading.Thread(target=user, args=(daemons[n % 4 == 3], n, end, answers[n % 4 == 3])) for n in range(4)]
    for u in users:
        u.start()
    for u in users:
        u.join()
    return answers


def near(seen, wanted, what):
    check(abs(seen - float(wanted)) <= 0.01 * abs(float(wanted)), what, "saw", seen, "wanted", float(wanted))


def truth(answers):
    """From the responses alone: {model: (dollars, output tokens)}, exactly."""
    out = {}
    for a in answers:
        cost, tokens = out.get(a["model"], (0, 0))
        out[a["model"]] = (cost + Fraction(a["device_seconds"]) * Fraction(PRICE) / 3600, tokens + a["output_tokens"])
    return out


def agreement(prometheus, daemons, answers):
    """Responses, /metrics and Prometheus say the same."""
    wanted = truth(answers[0] + answers[1])
    shown = {}
    for d in daemons:
        for key, value in d.metrics().items():
            m = re.match(COST + r'\{model_name="([^"]+)"\}', key)
            if m:
                shown[m[1]] = shown.get(m[1], 0) + Fraction(value)
    for model, (dollars, _) in wanted.items():
        check(abs(shown[model] - dollars) < Fraction(1, 10**11), model, "/metrics", float(shown[model]), float(dollars))
    prometheus.await_answer(f"sum({COST})", lambda a: a and abs(a[0][1] - float(sum(shown.values()))) < 1e-12)
    at = prometheus.query(f"max(timestamp({COST}))")[0][1]
    # Each daemon as of its own last scrape: up to a later moment an increase is guessed.
    risen = {}
    for d, own in zip(daemons, answers):
        i = f'instance="127.0.0.1:{d.port}"'
        last = prometheus.query(f"max(timestamp({COST}{{{i}}}))")[0][1]
        for labels, value in prometheus.query(f"increase({COST}{{{i}}}[10m])", last):
            risen[labels["model_name"]] = risen.get(labels["model_name"], 0) + value
        per_1k = {m["model_name"]: v for m, v in prometheus.query(
            f"1000 * sum by (model_name) (increase({COST}{{{i}}}[10m])) / (sum by (model_name) "
            f'(increase(model_tokens_total{{{i}, direction="output"}}[10m])) > 0)', last)}
        check("idle" not in per_1k, "the idle model", per_1k)
        for model, (dollars, tokens) in truth(own).items():
            near(per_1k[model], 1000 * dollars / tokens, model + ": dollars per 1K tokens")
    total = sum(dollars for dollars, _ in wanted.values())
    counters = {m["model_name"]: v for m, v in prometheus.query(f"sum by (model_name) ({COST})")}
    shares = {m["model_name"]: v for m, v in prometheus.query(
        f"sum by (model_name) (increase({COST}[10m])) / on () group_left () (sum(increase({COST}[10m])) > 0)", at)}
    check(shares["idle"] == 0, "the idle model", shares)
    for model, (dollars, _) in wanted.items():
        near(counters[model], dollars, model + ": the counter")
        near(risen[model], dollars, model + ": increase")
        check(abs(shares[model] - float(dollars / total)) < 0.01, model, "share", shares[model], float(dollars / total))
    most = max(wanted, key=lambda m: wanted[m][0])
    check(max(shares, key=shares.get) == most == "stories-large", "which model:", shares)
    for left, right in ((COST, 'costinfer_device_cost_dollars_total{account="serve"}'),
                        ("costinfer_device_seconds_total", "costinfer_device_uptime_seconds")):
        expr = f"sum by (instance) ({left}) - sum by (instance) ({right})"
        for labels, value in prometheus.query(expr):
            check(abs(value) < 1e-9, "audit:", expr, labels, value)
    print("  %d answers; stories-large %.2f %% of $%.6f by the responses, %.2f %% by PromQL" % (
        len(answers[0] + answers[1]), 100 * wanted["stories-large"][0] / total, total, 100 * shares["stories-large"]))


# What a running Prometheus must show to be wrong: a piece of the dashboard, what is put there, and what comes then.
S = 'job=~"$job", instance=~"$instance", model_name=~"$model_name"'
PER_TOKEN = f"1000 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))\n  / (sum by (model_name) "
TRAPS = [
    (f"1000 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))",
     f"1000 * rate({COST}{{{S}}}[$__rate_interval])",
     "empty"),
    (PER_TOKEN,
     f"1000 * rate({COST}{{{S}}}[$__rate_interval])\n  / on (model_name) (sum by (model_name, instance) ",
     "many-to-many"),
    ('direction="output"}[$__rate_interval])) > 0)', 'direction="output"}[$__rate_interval])))', "nan"),
    (f"60 * sum by (model_name) (rate({COST}{{{S}}}[$__rate_interval]))",
     f"60 * sum by (model_name) (rate({COST}{{{S}}}[900ms]))", "empty"),
    (f"60 * sum by (model_name) (rate({COST}{{", "60 * sum by (model_name) (rate(model_estimated_cost_dollars{",
     "empty"),
    ("sum by (le) (rate(model_request_duration", "sum (rate(model_request_duration", "empty"),
    ("model_request_duration_seconds_bucket{", 'model_request_duration_seconds_bucket{le="10", ', "empty"),
]


def traps(prometheus, dashboard, has_gpu):
    for there, trap, word in TRAPS:
        text = json.dumps(dashboard)
        there, trap = json.dumps(there)[1:-1], json.dumps(trap)[1:-1]
        check(there in text, "the trap's place is gone:", there)
        found = dashboard_answers(prometheus, json.loads(text.replace(there, trap, 1)), has_gpu)
        check(any(word in f for f in found), f"not found ({word}):", trap, found)
    for there, trap, word in (("sort_desc(", "sort(", "not in order"), ("    unless", "    or", "are not")):
        text = json.dumps(dashboard)
        check(there in text, "the trap's place is gone:", there)
        found = bar_answers(prometheus, json.loads(text.replace(there, trap)))
        check(any(word in f for f in found), f"not found ({word}):", trap, found)


def scrape_findings(prometheus, targets):
    up = {m["instance"]: v for m, v in prometheus.query("min_over_time(up[5m])")}
    return [f"scrape: {t} was not always up" for t in targets if up.get(t) != 1]


class Page:
    """An exporter that shows these bytes, after a while."""

    def __init__(self, content, seconds=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(seconds)
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/plain; version=0.0.4")
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the scraper has given up

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def gpu_page():
    """The rows that costd shows on a GPU, from the same writer; b"" without the program."""
    demo = os.path.join(BUILD, "bin", "exposition_demo")
    if not os.path.exists(demo):
        return b""
    page = subprocess.run([demo, "text", "used", "model"], capture_output=True, check=True).stdout
    return b"".join(line + b"\n" for line in page.split(b"\n") if re.match(rb"(# \w+ )?gpu_", line))


def killed_and_restarted(prometheus, arguments, before, answers):
    """The second daemon is killed; another takes its address.  No money comes from nowhere."""
    before.process.kill()
    before.process.wait()
    after = demo_traffic.Costd(COSTD, PRICE, *arguments)
    try:
        first = after.ask("GET", "/metrics")[1]
        status, _ = after.ask("POST", "/v1/generate/stories-small", {"max_tokens": 3})
        check(status == 200, status)
        later = after.ask("GET", "/metrics")[1]
        no(page_rules.start_findings(first, later))
        instance = f"127.0.0.1:{after.port}"
        prometheus.await_answer(f'resets({COST}{{instance="{instance}",model_name="stories-large"}}[10m])',
                                lambda a: a and a[0][1] == 1)
        at = prometheus.query(f'max(timestamp({COST}{{instance="{instance}"}}))')[0][1]
        risen = prometheus.query(f'sum(increase({COST}{{instance="{instance}"}}[10m]))', at)[0][1]
        spent = sum(d for d, _ in truth(answers).values())
        check(0.95 * float(spent) < risen < 1.1 * float(spent), "after a kill: increase", risen, "spent", float(spent))
    finally:
        after.stop()


def main():
    start = time.monotonic()
    dashboards = files_rules.dashboards(DASHBOARDS)
    dashboard = dashboards["model-cost.json"]
    # With a device of its own costd shows its memory itself.
    device = ["--device=" + os.environ["COSTD_TEST_DEVICE"]] if "COSTD_TEST_DEVICE" in os.environ else []
    rows = b"" if device else gpu_page()
    slow, gpu = Page(b"slow 1\n", seconds=1.5), Page(rows)
    second = (f"--listen=127.0.0.1:{free_port()}", "--daily-budget=0.0001", "--model=idle=" + SMALL)
    daemons = [demo_traffic.Costd(COSTD, PRICE, "--daily-budget=0.0001", *device),
               demo_traffic.Costd(COSTD, PRICE, *second)]
    targets = [f"127.0.0.1:{d.port}" for d in daemons]
    try:
        fresh = daemons[0].ask("GET", "/metrics")[1]
        has_gpu = GPU_METRIC in fresh or bool(rows)
        check(has_gpu or not device, "no rows of the device")
        with tempfile.TemporaryDirectory(prefix="monitoring-") as folder, \
                Prometheus(folder, targets + [slow.address] + [gpu.address] * bool(rows)) as prometheus:
            prometheus.wait()
            prometheus.await_answer(f"count by (instance) ({COST}) > 0", lambda a: len(a) == 2)
            answers = load(daemons)
            no(page_rules.start_findings(fresh, daemons[0].ask("GET", "/metrics")[1]))
            for last in (COST, "model_name:model_estimated_cost_dollars:increase24h"):  # a scrape, then the rules
                ended = time.time()
                prometheus.await_answer(f"min(timestamp({last}))", lambda a, ended=ended: a and a[0][1] > ended)
            for d in dashboards.values():
                no(dashboard_answers(prometheus, d, has_gpu))
                no(bar_answers(prometheus, d))
            no(rule_answers(prometheus))
            no(example_answers(prometheus, has_gpu))
            traps(prometheus, dashboard, has_gpu)
            no(scrape_findings(prometheus, targets))
            check(scrape_findings(prometheus, targets + [slow.address]), "a page that waits is not found")
            print("  %d dashboards, %d traps, after %.0f s" % (len(dashboards), len(TRAPS), time.monotonic() - start))
            agreement(prometheus, daemons, answers)
            killed_and_restarted(prometheus, second, daemons[1], answers[1])
    finally:
        for d in daemons:
            if d.process.poll() is None:
                d.stop()
    print("%.0f s" % (time.monotonic() - start))


main()
