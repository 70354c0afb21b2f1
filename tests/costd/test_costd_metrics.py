"""The metrics page: promtool has nothing to say, Debian's own Prometheus client reads the same samples from both formats,
and what does not change looks the same in every scrape."""
import json
import os
import shutil
import socket
import subprocess
import time

from costd_support import SMALL, TWO, Costd, check, equal, reset, run, sanitized, skip, temp_folder, total

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
    "model_loaded": {"model_name"},
    "model_payer_cost_dollars_total": {"model_name", "payer"},
    "model_payer_device_seconds_total": {"model_name", "payer"},
    "model_payer_tokens_total": {"model_name", "payer", "direction"},
    "costinfer_device_seconds_total": {"device", "account"},
    "costinfer_device_cost_dollars_total": {"device", "account"},
    "costinfer_device_uptime_seconds": {"device"},
    "costinfer_unpriced_seconds_total": {"device"},
    "costinfer_price_dollars_per_hour": {"device"},
    "costinfer_basis_info": {"device", "basis"},
    "costinfer_split_seconds": {"device", "per"},
    "costinfer_stalls_total": {"device"},
    "costinfer_clock_steps_total": {"device"},
    "costd_build_info": {"version", "device"},
    "costd_daily_budget_dollars": set(),
    "costd_queue_limit": set(),
    "costd_connections": set(),
    "costd_log_dropped_lines_total": set(),
    "costd_http_calls_total": {"endpoint", "status"},
    "costd_key_lines_refused": set(),
    "costd_last_reload_successful": set(),
    "costd_model_loads_total": {"outcome"},
    "costd_models_missing": set(),
    "costd_reloads_total": {"outcome"},
    "costd_key_device_seconds_total": {"key"},
    "costd_key_cost_dollars_total": {"key"},
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
MOVING = ("process_", "costd_connections", "costinfer_device_seconds_total", "costinfer_device_cost_dollars_total",
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
        equal(set(names) - set(CONTRACT), set(), "names that CONTRACT lacks")
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


def calls_and_requests_test():
    """model_request_total counts prompts, costd_http_calls_total the lines of the log, which say how many requests and
    choices each had."""
    with Costd(*TWO) as server:
        def calls(metrics, **labels):
            return total(metrics, "costd_http_calls_total", **labels)

        fresh = server.metrics()
        equal(calls(fresh), 0)
        equal({dict(l)["endpoint"] for n, l in fresh if n == "costd_http_calls_total"},
              {"/v1/generate", "/v1/completions", "/v1/models", "/tokenize", "/detokenize", "/props", "/admin/models",
               "/admin/price", "/openapi.json", "other"})
        sizes = ((1, 1), (3, 1), (1, 4), (3, 2))
        for prompts, n in sizes:
            server.complete(model="small", prompt=["a"] * prompts, n=n, max_tokens=2)
        server.complete(model="small", prompt="a", n=1, best_of=3, max_tokens=2, stream=False)
        server.generate("large", max_tokens=2)
        m = server.metrics()  # the client of an answer finds it counted
        equal(calls(m, endpoint="/v1/completions", status="2xx"), 5)
        equal(calls(m, endpoint="/v1/generate", status="2xx"), 1)
        equal(total(m, "model_request_total", endpoint="/v1/completions"), sum(p for p, _ in sizes) + 1)
        server.await_log(lambda l: l.get("endpoint") == "/v1/generate")
        equal([(l["requests"], l["choices"]) for l in server.requests_logged()],
              [(p, p * n) for p, n in sizes] + [(1, 3), (1, 1)])
        for path, body, endpoint in (("/v1/completions", {"prompt": 1}, "/v1/completions"),
                                     ("/v1/generate/absent", {}, "/v1/generate"),
                                     ("/tokenize", {"content": 1}, "/tokenize"), ("/absent", {}, "other"),
                                     ("/v1/chat/completions", {}, "other"), ("/health", {}, "other"),
                                     ("/v1/models/small", {}, "/v1/models")):
            before = calls(server.metrics(), endpoint=endpoint, status="4xx")
            check(server.post(path, body).status >= 400, path)
            equal(calls(server.metrics(), endpoint=endpoint, status="4xx"), before + 1, path)
        for path in ("/health", "/ready", "/metrics", "/", "/api/history", "/api/recent"):
            equal(server.get(path).status, 200, path)
        equal(server.ask("GET", "/v1/models").status, 200)
        equal(server.ask("GET", "/v1/models/small").status, 200)
        # One whose client leaves before its answer: 499 in the log.
        whole = json.dumps({"prompt": "a", "max_tokens": 250, "ignore_eos": True, "n": 8, "model": "large"}).encode()
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(whole) + whole)
        while total(server.metrics(), "model_requests_running") == 0:
            pass
        reset(s)
        left = server.await_log(lambda l: l["event"] == "request" and l["status"] == 499)
        equal((left["requests"], left["choices"]), (1, 8))
        m = server.settle()
        lines = server.requests_logged()
        equal(calls(m), len(lines))
        for first in "245":
            equal(calls(m, status=first + "xx"), sum(str(l["status"])[0] == first for l in lines))
        for endpoint in ("/v1/generate", "/v1/completions"):
            equal(total(m, "model_request_total", endpoint=endpoint),
                  sum(l["requests"] for l in lines if l.get("endpoint") == endpoint))


def connections_test():
    with Costd("--model", "small=" + SMALL, "--metrics-listen", "127.0.0.1:0") as server:
        main = server.port
        server.port = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]

        def await_count(wanted):
            end = time.monotonic() + 10
            while total(server.metrics(), "costd_connections") != wanted and time.monotonic() < end:
                time.sleep(0.02)
            equal(total(server.metrics(), "costd_connections"), wanted)

        await_count(0)  # the scrape's own is not one of the main listener
        silent = [socket.create_connection(("127.0.0.1", main)) for _ in range(5)]
        await_count(5)
        silent[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        check(silent[0].recv(1000).startswith(b"HTTP/1.1 200"), "health")
        await_count(5)  # it stays open for a next request
        for s in silent:
            s.close()
        await_count(0)


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


run(calls_and_requests_test, connections_test, steady_test, main_test)
