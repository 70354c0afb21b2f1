"""How costd starts, changes while it runs, and ends; flags and the configuration file."""
import json
import os
import signal
import socket
import threading
import time
from decimal import Decimal

from costd_support import (LARGE, SMALL, TWO, Costd, check, equal, ns, run, run_costd, temp_folder, total)
from test_costd_stalled_readers import stuck_stream


def flags_and_files_are_judged():
    with temp_folder() as folder:
        def file(text):
            path = os.path.join(folder, "costd%d.json" % len(os.listdir(folder)))
            with open(path, "w") as f:
                f.write(text if isinstance(text, str) else json.dumps(text))
            return path

        model = ["--model", "m=" + SMALL]
        for arguments, words in (
                ([], ["no model"]), (["--nonsense"], ["unknown flag --nonsense"]), (["x"], ['"x" is not a flag']),
                (["--model"], ["--model needs a value"]), (["--model", "abc"], ["--model", "NAME=DIR"]),
                (["--model", "=x"], ["--model"]), (["--model", "a="], ["--model", "no folder"]),
                (["--threads", "x"], ["--threads", "0 to 1024"]), (["--threads=1025"], ["--threads"]),
                (["--threads", "-1"], ["--threads"]), (["--queue", "0"], ["--queue"]),
                (["--slots", "1025"], ["--slots"]),
                (["--kv-memory", "1X"], ["--kv-memory"]), (["--kv-memory", "99999999T"], ["--kv-memory"]),
                (["--cpu-cost-per-hour", "-1"], ["--cpu-cost-per-hour"]),
                (["--cpu-cost-per-hour", "0.1234567891"], ["--cpu-cost-per-hour"]),
                (["--gpu-cost-per-hour", "abc"], ["--gpu-cost-per-hour"]), (["--daily-budget", "1e3"], ["--daily"]),
                (["--basis", "hours"], ["--basis"]), (["--weights", "f17"], ["--weights"]),
                (["--kv", "int8"], ["--kv", "int8", "f16"]), (["--no-speculation=yes"], ["--no-speculation"]),
                (["--latency-buckets", "1,0.5"], ["--latency-buckets"]),
                (["--latency-buckets", "1,,2"], ["--latency-buckets"]), (["--latency-buckets", ""], ["--latency"]),
                (["--listen", "8000", *model], ["--listen"]), (["--listen", "a:99999", *model], ["--listen"]),
                (["--listen", "::1:80", *model], ["--listen"]), (["--device", ""], ["--device"]),
                (["--check-config=yes", *model], ["--check-config"]),
                (["--drain-seconds", "1.5"], ["--drain-seconds"]),
                (["--config", os.path.join(folder, "absent.json")], ["absent.json"]),
                (["--config", file("{")], [".json", "JSON"]),
                (["--config", file([])], [".json", "not an object"]),
                (["--config", file({"modles": {}})], [".json", 'unknown key "modles"']),
                (["--config", file({"config": "x"})], ["unknown key"]),
                (["--config", file({"models": {"a": 1}})], ['"models"', '"a"']),
                (["--config", file({"models": ["a"]})], ['"models"']),
                (["--config", file({"threads": 1.5})], ['"threads"']),
                (["--config", file({"threads": True})], ['"threads"']),
                (["--config", file({"no_speculation": "yes"})], ['"no_speculation"', "true or false"]),
                (["--config", file({"cpu_cost_per_hour": 1e-10})], ['"cpu_cost_per_hour"']),
                (["--config", file({"latency_buckets": [1, "2"]})], ['"latency_buckets"']),
                (["--config", file('{"queue":1,"queue":2}')], ["duplicate"])):
            code, out, err = run_costd(*arguments)
            equal((code, out), (2, ""), (arguments, err))
            check(err.startswith("costd: ") and err.count("\n") == 1 and all(w in err for w in words), words, err)

        code, out, err = run_costd("--help")
        equal((code, err), (0, ""))
        for flag in ("--model", "--listen", "--cpu-cost-per-hour", "--gpu-cost-per-hour", "--basis", "--device",
                     "--threads", "--weights", "--kv", "--kv-memory", "--queue", "--daily-budget", "--latency-buckets",
                     "--drain-seconds", "--config", "--check-config", "--version"):
            check(flag in out, flag, "is not in --help")
        equal(run_costd("--version")[:2], (0, "costd 0.1.0\n"))

        good = file({"models": {"s": SMALL, "l": LARGE}, "cpu_cost_per_hour": 0.1, "kv_memory": "64M", "queue": 7,
                     "latency_buckets": [0.1, 1], "basis": "wall", "threads": None, "daily_budget": "20", "no_speculation": True})
        code, out, err = run_costd("--config", good, "--check-config")
        equal((code, err), (0, ""), err)
        check("2 models" in out, out)
        code, out, err = run_costd("--check-config", "--model", "x=" + folder)
        equal(code, 2)
        check("model x" in err and err.count("\n") == 1, err)


def what_cannot_be_had_is_exit_1():
    busy = socket.create_server(("127.0.0.1", 0))
    code, out, err = run_costd(*TWO[:2], "--listen", "127.0.0.1:%d" % busy.getsockname()[1])
    equal(code, 1)
    check("Address already in use" in err, err)
    busy.close()
    code, out, err = run_costd(*TWO[:2], "--listen", "127.0.0.1:0", "--device", "abacus")
    equal(code, 1)
    check("abacus" in err, err)
    code, out, err = run_costd("--model", "m=/nonexistent", "--listen", "127.0.0.1:0")
    equal(code, 1)
    check('"event":"model_failed"' in err and "/nonexistent" in err, err)


def keys_and_values_are_kept_as_the_weights_are():
    for flags, kv in ((["--weights", "int8"], "f16"), (["--weights", "int8", "--kv", "f32"], "f32"), ([], "f32")):
        with Costd(*TWO[:2], *flags) as server:
            equal(server.get("/props").json["device"]["kv"], kv, flags)
    code, out, err = run_costd(*TWO[:2], "--listen", "127.0.0.1:0", "--weights", "int8", "--device", "cpu-reference")
    equal(code, 1)
    check("weights as f32, not as int8" in err, err)


def it_answers_while_it_loads():
    many = [a for i in range(16) for a in ("--model", "m%d=%s" % (i, LARGE))]

    def is_ready(server):
        with server.arrived:
            return any(l["event"] == "ready" for l in server.lines)

    def while_it_loads(server):
        return (server.get("/health"), server.get("/ready"), server.get("/metrics"),
                server.post("/v1/generate/m15", {}), server.post("/v1/generate/m99", {}))

    # A busy machine may let it load everything before this test asks, or is heard.
    for attempt in range(20):
        with Costd(*many, "--kv-memory", "1G", wait=False) as server:
            health, ready, metrics, known, unknown = while_it_loads(server)
            if server.get("/ready").status == 200:
                continue
        break
    check(attempt < 19, "it answers when it has loaded everything")
    equal((health.status, health.error["code"]), (503, "loading"))
    check(int(health.headers["retry-after"]) > 0)
    equal(ready.status, 503)
    check("costinfer_device_seconds_total" in metrics.body.decode())
    equal(known.error["code"], "loading")
    equal(unknown.status, 404)
    with Costd(*many, "--kv-memory", "1G") as server:
        server.await_log(lambda l: l["event"] == "ready")
        equal(server.get("/health").status, 200)
        equal(server.generate("m15", max_tokens=2).json["output_tokens"], 2)
        check(total(server.metrics(), "model_device_seconds_total", phase="load", model_name="m3") > 0)
    for _ in range(20):
        with Costd(*many, "--kv-memory", "1G", wait=False) as server:
            server.stop()
            if not is_ready(server):
                return
    raise AssertionError("it loads everything first")


def a_full_queue_is_429():
    with Costd(*TWO[2:], "--queue", "2", "--slots", "3") as server:
        equal(server.get("/v1/models/large").json["meta"]["slots"], 3)
        streams = [server.open_stream("large", max_tokens=240, ignore_eos=True) for _ in range(40)]
        end = time.monotonic() + 120
        while True:
            reply = server.post("/v1/completions", {"model": "large", "prompt": ["a"] * 5, "max_tokens": 1})
            if reply.status == 429:
                break
            check(time.monotonic() < end, "never full")
        equal((reply.error["code"], reply.error["type"]), ("queue_full", "rate_limit_error"))
        check(int(reply.headers["retry-after"]) > 0)
        for s in streams:
            s.close()
        check(total(server.settle(), "model_request_errors_total", code="queue_full") > 0)
        equal(server.generate("large", max_tokens=2).json["output_tokens"], 2)


def read_events(s, out):
    """Until the chunked body has ended, after which the connection may stay."""
    data = b""
    while not data.endswith(b"\r\n0\r\n\r\n"):
        part = s.recv(65536)
        if not part:
            break
        data += part
    out.append(data)


def stream_until_the_end(server, **fields):
    """A stream read by a thread; returns the thread and where its bytes will be."""
    s = server.open_stream("large", **fields)
    s.settimeout(300)
    first = s.recv(1)
    out = [first]
    thread = threading.Thread(target=read_events, args=(s, out))
    thread.start()
    return thread, out


def sigterm_lets_streams_end():
    with Costd(*TWO, "--drain-seconds", "600", "--stall-seconds", "600", "--slots", "24") as server:
        whole = server.generate("large", prompt="Once", max_tokens=200, ignore_eos=True).json["text"]
        thread, out = stream_until_the_end(server, prompt="Once", max_tokens=200, ignore_eos=True)
        held = stuck_stream(server, 16)  # so that costd drains for as long as this test looks
        server.signal(signal.SIGTERM)
        server.await_log(lambda l: l["event"] == "draining")
        equal(server.get("/ready").error["code"], "shutting_down")
        equal(server.get("/health").status, 200)
        refused = server.post("/v1/generate/small", {"prompt": "a"})
        equal((refused.status, refused.error["code"]), (503, "shutting_down"))
        check(int(refused.headers["retry-after"]) > 0)
        thread.join()
        read_events(held, rest := [])
        check(b"data: [DONE]" in rest[0], "the stream that was read late was cut")
        held.close()
        server.ended(0)
        text = b"".join(out)
        check(b"data: [DONE]" in text and json.dumps(whole)[1:-1].encode() in text, "the stream was cut")


def sigterm_ends_streams_at_the_deadline():
    # On the slow device, on which nothing ends before the signals have come.
    for signals in ([signal.SIGTERM], [signal.SIGINT, signal.SIGINT]):
        with Costd(*TWO, "--drain-seconds", "0" if len(signals) == 1 else "600", "--device", "cpu-reference") as server:
            threads = [stream_until_the_end(server, prompt="Once", max_tokens=250, ignore_eos=True)
                       for _ in range(6)]
            waiting = []
            whole = threading.Thread(target=lambda: waiting.append(server.post(
                "/v1/completions", {"model": "large", "prompt": ["a"] * 16, "max_tokens": 250, "ignore_eos": True})))
            whole.start()
            end = time.monotonic() + 120
            while sum(total(server.metrics(), name) for name in (
                    "model_requests_waiting", "model_requests_running")) < 6 + 16:
                check(time.monotonic() < end, "they have not all come")
            for number in signals:  # two that came together would be one
                server.signal(number)
                server.await_log(lambda l: l["event"] == "draining")
            for thread, _ in threads:
                thread.join()
            whole.join()
            server.ended(0)
            cut = [b"".join(out) for _, out in threads if b"[DONE]" not in b"".join(out)]
            check(cut, "every stream had ended already")
            for text in cut:
                check(b'data: {"error":{"message":' in text and b'"code":"cancelled"' in text, text[-300:])
                # The chunked body is complete: the client sees an end, not a broken connection.
                check(text.endswith(b"0\r\n\r\n"), text[-40:])
            equal(waiting[0].status, 503)
            lines = [l for l in server.requests_logged() if l.get("finish") == "cancelled"]
            check(len(lines) > len(cut), "lines of the cancelled ones:", len(lines))


def sighup_changes_prices_and_models():
    with temp_folder() as folder:
        path = os.path.join(folder, "costd.json")

        def write(**settings):
            with open(path, "w") as f:
                json.dump(settings, f)

        def reloads():
            return sum(1 for l in server.lines if l["event"] == "reload")

        def hup():
            n = reloads()
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: reloads() > n)

        write(models={"a": SMALL, "b": SMALL}, cpu_cost_per_hour="0.10", daily_budget=5)
        with Costd("--config", path) as server:
            first = server.generate("a", max_tokens=40).json
            equal(total(server.metrics(), "costd_daily_budget_dollars"), 5)
            thread, out = None, None
            write(models={"b": SMALL, "c": LARGE}, cpu_cost_per_hour="3600", daily_budget=7)
            hup()
            equal([m["id"] for m in server.get("/v1/models").json["data"]], ["b", "c"])
            equal(server.post("/v1/generate/a", {}).status, 404)
            metrics = server.settle()
            equal(total(metrics, "costd_daily_budget_dollars"), 7)
            equal(total(metrics, "costinfer_price_dollars_per_hour"), 3600)
            # What was measured keeps its price, and an unloaded model its series.
            equal(total(metrics, "model_estimated_cost_dollars_total", model_name="a"),
                  first["estimated_cost_usd"])
            second = server.generate("c", max_tokens=10).json
            equal(second["estimated_cost_usd"], Decimal(ns(second["latency_seconds"])) / 10**9)
            # A file that is wrong changes nothing.
            write(models={"b": SMALL}, nonsense=1)
            hup()
            check(any(l["event"] == "reload" and l["level"] == "error" and "nonsense" in l["message"]
                      for l in server.lines), "no error in the log")
            equal(len(server.get("/v1/models").json["data"]), 2)
            # One model cannot be loaded: the others go on.  Another folder is another model.
            write(models={"b": LARGE, "d": "/nonexistent"})
            hup()
            equal([m["id"] for m in server.get("/v1/models").json["data"]], ["b"])
            equal(server.get("/v1/models/b").json["meta"]["n_embd"], 256)
            while (status := server.post("/v1/generate/d", {"prompt": "a"}).status) == 503:
                time.sleep(0.02)  # the reload is not quite over
            equal(status, 404)
            equal(server.generate("b", max_tokens=2).json["estimated_cost_usd"], None)  # the price is gone
            # While requests run: they end before their model goes.
            results = []
            threads = [threading.Thread(target=lambda: results.append(
                server.post("/v1/generate/b", {"prompt": "Hello", "max_tokens": 100, "ignore_eos": True})))
                for _ in range(4)]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 120
            while total(server.metrics(), "model_requests_running", model_name="b") < 4 and not results:
                check(time.monotonic() < end, "they do not run")
            write(models={"a": SMALL})
            hup()
            for thread in threads:
                thread.join()
            equal([r.status for r in results], [200] * 4)
            equal(server.generate("a", max_tokens=2).json["output_tokens"], 2)
            equal(total(server.metrics(), "model_request_total", model_name="a"), 2)


def balancers_have_time_to_look_away():
    with Costd(*TWO, "--shutdown-delay", "1000") as server:
        equal(server.get("/ready").status, 200)
        server.signal(signal.SIGTERM)  # while it is idle
        server.await_log(lambda l: l["event"] == "leaving")
        for _ in range(3):
            ready = server.get("/ready")
            equal((ready.status, ready.error["code"]), (503, "shutting_down"))
            equal(server.get("/health").status, 200)
            equal(server.generate("small", max_tokens=2).json["output_tokens"], 2)
        server.signal(signal.SIGHUP)
        server.await_log(lambda l: l["event"] == "reload")
        # The second signal ends the wait, and running requests still have their time.
        thread, out = stream_until_the_end(server, prompt="Once", max_tokens=200, ignore_eos=True)
        server.signal(signal.SIGTERM)
        thread.join()
        server.ended(0)
        check(b"data: [DONE]" in b"".join(out), "the stream was cut")
        check(not any(l["event"] == "draining" and l["level"] == "warn" for l in server.lines), "cancelled")
    with Costd(*TWO[:2], "--shutdown-delay", "1") as server:
        server.stop()
        times = [l["ts"] for l in server.lines if l["event"] in ("leaving", "draining")]
        check(len(times) == 2 and times[0] < times[1], times)


def sigterm_comes_before_sighups():
    drivers = "/etc/OpenCL/vendors"  # which take signals for themselves
    environments = [{"OCL_ICD_VENDORS": drivers}] * 8 if os.path.exists(drivers) else []
    with temp_folder() as folder:
        keys = os.path.join(folder, "keys")
        with open(keys, "w") as f:
            for i in range(1000):
                f.write("name%d %064x\n# %s\n" % (i, i, "x" * 900))  # so that reading takes its time
        for env, n, gap in (({}, 5000, 50e-6), *((env, 2000, 0) for env in environments)):
            with Costd(*TWO[:2], "--keys", keys, env=env) as server:
                def reloads():
                    return sum(1 for l in server.lines if l["event"] == "keys")

                for _ in range(n):  # with a gap each is delivered; without, they fall together in the kernel
                    server.signal(signal.SIGHUP)
                    until = time.monotonic() + gap
                    while time.monotonic() < until:
                        pass
                server.await_log(lambda l: l["event"] == "keys")
                before = reloads()
                server.stop()
                # A few hundred lines may have been on their way through the pipe.
                check(reloads() - before < 1000, "reloads after SIGTERM:", reloads() - before)


run(flags_and_files_are_judged, what_cannot_be_had_is_exit_1, keys_and_values_are_kept_as_the_weights_are,
    it_answers_while_it_loads, a_full_queue_is_429,
    sigterm_lets_streams_end, sigterm_ends_streams_at_the_deadline, sighup_changes_prices_and_models,
    balancers_have_time_to_look_away, sigterm_comes_before_sighups)
