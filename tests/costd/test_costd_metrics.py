"""The metrics page: promtool has nothing to say, Debian's own Prometheus client reads the same samples from both formats,
and what does not change looks the same in every scrape."""
import os
import shutil
import subprocess

from costd_support import SMALL, TWO, Costd, check, equal, run, sanitized, skip, temp_folder

try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as read_text
except ImportError:
    skip("python3-prometheus-client is absent")

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
CONTRACT = {
    "model_request_total": {"model_name", "endpoint"},
    "model_tokens_total": {"model_name", "direction"},
    "model_estimated_cost_dollars_total": {"model_name"},
    "model_request_errors_total": {"model_name", "code"},
    "model_requests_finished_total": {"model_name", "finish_reason"},
    "model_finished_device_seconds_total": {"model_name", "finish_reason"},
    "model_requests_running": {"model_name"},
    "model_requests_waiting": {"model_name"},
    "model_device_seconds_total": {"model_name", "phase"},
    "model_cached_tokens_total": {"model_name"},
    "model_draft_tokens_total": {"model_name", "outcome"},
    "costinfer_device_seconds_total": {"device", "account"},
    "costinfer_device_cost_dollars_total": {"device", "account"},
    "costd_build_info": {"version", "device"},
    "costd_daily_budget_dollars": set(),
    "costd_queue_limit": set(),
    "costd_log_dropped_lines_total": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_virtual_memory_bytes": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_start_time_seconds": set(),
}
for family in ("model_request_duration_seconds", "model_time_to_first_token_seconds", "model_inter_token_seconds",
               "model_queue_seconds"):
    CONTRACT[family + "_bucket"] = {"model_name", "le"}
    CONTRACT[family + "_count"] = CONTRACT[family + "_sum"] = {"model_name"}
# What goes on by itself between two scrapes of an idle daemon.
MOVING = ("process_", "costinfer_device_seconds_total", "costinfer_device_cost_dollars_total",
          "costinfer_device_uptime_seconds", "costinfer_unpriced_seconds_total")


def samples(families):
    out = {}
    for family in families:
        for s in family.samples:
            key = (s.name, tuple(sorted(s.labels.items())))
            check(key not in out, "twice:", key)
            out[key] = s.value
    return out


def main_test():
    with Costd(*TWO, "--cpu-cost-per-hour", "0.10", "--daily-budget", "100",
               "--latency-buckets", "0.001,0.01,0.1,1,30") as server:
        fresh = samples(read_text(server.get("/metrics").body.decode()))
        for model in ("small", "large"):
            for endpoint in ("/v1/generate", "/v1/completions"):
                equal(fresh[("model_request_total", (("endpoint", endpoint), ("model_name", model)))], 0)
        for i in range(6):
            server.generate("small", max_tokens=5 * i + 1)
            server.complete(model="large", n=2, max_tokens=4)
        server.post("/v1/generate/small", {"max_tokens": 0})
        server.settle()
        text = server.get("/metrics")
        equal(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        metrics = server.get("/metrics", Accept=OPENMETRICS)
        equal(metrics.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        check(metrics.body.endswith(b"# EOF\n"), metrics.body[-40:])

        a, b = samples(read_text(text.body.decode())), samples(read_openmetrics(metrics.body.decode()))
        equal(set(a), set(b), "series")
        for key, value in a.items():
            if not key[0].startswith(MOVING):
                equal(value, b[key], key)
        names = {}
        for name, labels in a:
            names.setdefault(name, set()).add(frozenset(k for k, _ in labels))
        for name, labels in CONTRACT.items():
            equal(names.get(name), {frozenset(labels)}, name)
        check(not any(name.startswith("gpu_") for name in names), "a GPU's rows without a GPU")
        equal({dict(l)["le"] for n, l in a if n == "model_request_duration_seconds_bucket"},
              {"0.001", "0.01", "0.1", "1.0", "30.0", "+Inf"})
        equal(a[("model_request_duration_seconds_count", (("model_name", "small"),))], 6)
        equal(a[("model_request_errors_total", (("code", "invalid_request"), ("model_name", "small")))], 1)
        equal(a[("costd_daily_budget_dollars", ())], 100)
        equal(a[("costd_queue_limit", ())], 256)

        if not shutil.which("promtool"):
            skip("promtool is absent")
        lint = subprocess.run(["promtool", "check", "metrics"], input=text.body, capture_output=True)
        # promtool's lint would have "ratio" for the tutorial's percent, and knows no such names as ours; a GPU's
        # row is the only one it could complain about, and there is none here.
        equal((lint.returncode, lint.stdout + lint.stderr), (0, b""))


def steady_test():
    """changes() counts a last digit that flickers as a restart, a load or another price."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    with temp_folder() as folder:
        environment = {}
        if compiler and not sanitized():
            environment["LD_PRELOAD"] = os.path.join(folder, "stepping_clock.so")
            subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", environment["LD_PRELOAD"],
                            os.path.join(os.path.dirname(os.path.abspath(__file__)), "stepping_clock.c")], check=True)
        with Costd("--model", "small=" + SMALL, "--cpu-cost-per-hour", "0.10", "--daily-budget", "100",
                   env=environment) as server:
            server.generate("small", max_tokens=3)
            server.settle()
            pages = [{line for line in server.get("/metrics").body.decode().splitlines()
                      if line.startswith(("process_start_time", "process_max")) or not line.startswith(MOVING)}
                     for _ in range(100)]
    check(any(line.startswith("process_start_time_seconds ") for line in pages[0]), "no start time")
    for page in pages:
        equal(page ^ pages[0], set(), "two scrapes")


run(steady_test, main_test)
