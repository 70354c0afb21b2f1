"""The identities of the accounts, through HTTP: what the answers and the log say adds up to what /metrics says, to
the nanosecond, whatever overlaps and however requests end."""
import random
import threading
import time
from decimal import ROUND_HALF_UP, Decimal

from costd_support import DEVICE, TWO, Costd, check, equal, ns, reset, run, total

RATE = Decimal("0.10")
PRICES = ["--cpu-cost-per-hour", str(RATE)]
PROMPTS = ["Once upon a time", "There was once a shy", "Lily was a brave little", "Long ago, a big bear named",
           "In a small house by the lake", ""]


def dollars(nanoseconds, rate=RATE):
    """What the library prints for an exact amount: twelve decimals, half up."""
    exact = Decimal(nanoseconds) * rate / 3600 / 10**9
    return exact.quantize(Decimal("1e-12"), ROUND_HALF_UP)


def accounts(metrics):
    return {a: ns(total(metrics, "costinfer_device_seconds_total", account=a)) for a in ("serve", "load", "idle", "lost", "overhead")}


def conservation(metrics):
    """The accounts add up to the uptime, models' parts = serve, and the same in dollars."""
    by_account = accounts(metrics)
    equal(sum(by_account.values()), ns(total(metrics, "costinfer_device_uptime_seconds")), "uptime")
    equal(ns(total(metrics, "model_device_seconds_total", phase="prefill")) +
          ns(total(metrics, "model_device_seconds_total", phase="decode")), by_account["serve"], "serve")
    equal(ns(total(metrics, "model_device_seconds_total", phase="load")), by_account["load"], "load")
    for account, time_ns in by_account.items():
        equal(total(metrics, "costinfer_device_cost_dollars_total", account=account), dollars(time_ns), account)
    for model in ("small", "large"):
        serve = sum(ns(total(metrics, "model_device_seconds_total", phase=p, model_name=model))
                    for p in ("prefill", "decode"))
        equal(total(metrics, "model_estimated_cost_dollars_total", model_name=model), dollars(serve), model)
    return by_account


def a_lone_request_costs_its_latency():
    """latency x hourly rate / 3600, the usual formula: exact as long as the request is alone."""
    with Costd(*TWO, *PRICES) as server:
        sums = {"small": 0, "large": 0}
        for i in range(10):
            model = ("small", "large")[i % 2]
            answer = server.generate(model, prompt=PROMPTS[i % 6], max_tokens=20 + i, stream=i % 3 == 0)
            answer = answer.events[-2] if i % 3 == 0 else answer.json
            equal(answer["device_seconds"], answer["latency_seconds"])
            equal(answer["prefill_seconds"] + answer["decode_seconds"], answer["device_seconds"])
            equal(answer["estimated_cost_usd"], dollars(ns(answer["latency_seconds"])))
            sums[model] += ns(answer["device_seconds"])
        metrics = server.settle()
        equal(conservation(metrics)["serve"], sum(sums.values()))
        for model in sums:
            equal(sum(ns(total(metrics, "model_device_seconds_total", phase=p, model_name=model))
                      for p in ("prefill", "decode")), sums[model])


class Client(threading.Thread):
    """One after the other: whole answers, streams that are read to the end, and clients that leave."""

    def __init__(self, server, seed, until):
        super().__init__()
        self.server, self.random, self.until = server, random.Random(seed), until
        self.answers, self.left, self.asked, self.failure = [], 0, 0, None

    def run(self):
        try:
            while time.monotonic() < self.until or self.asked < 8:  # of which some leave
                self.asked += 1
                self.once()
        except BaseException as failure:
            self.failure = failure

    def once(self):
        r = self.random
        model = r.choice(["small", "large"])
        fields = dict(prompt=r.choice(PROMPTS), max_tokens=r.randint(1, 60), ignore_eos=True)
        if r.random() < 0.5:
            fields.update(temperature=r.choice([0, 0.7, 1.3]), seed=r.randint(0, 9))
        kind = r.random()
        if kind < 0.3:
            self.answers.append(self.server.generate(model, **fields).json)
        elif kind < 0.5:
            self.answers.append(self.server.generate(model, stream=True, **fields).events[-2])
        elif kind < 0.7:
            answer = self.server.complete(model=model, n=r.randint(1, 3), **fields).json
            self.answers.append({"model": model, "device_seconds": answer["cost"]["device_seconds"],
                                 "latency_seconds": answer["cost"]["latency_seconds"],
                                 "estimated_cost_usd": answer["cost"]["dollars"],
                                 "output_tokens": answer["usage"]["completion_tokens"],
                                 "input_tokens": answer["usage"]["prompt_tokens"]})
        else:
            self.leave(model, fields, stream=kind < 0.9)

    def leave(self, model, fields, stream):
        s = self.server.open_stream(model, **{**fields, "max_tokens": 100, "stream": stream})
        if stream:
            for _ in range(self.random.randint(0, 12)):
                s.recv(self.random.randint(1, 400))
        else:
            time.sleep(self.random.random() * 0.05)
        reset(s) if self.random.random() < 0.5 else s.close()
        self.left += 1


def overlapping(numbers, *flags):
    """Several clients run concurrently, for one number of clients after the other."""
    answers, left = [], 0
    with Costd(*TWO, *PRICES, "--kv-memory", "512M", *flags) as server:
        for n in numbers:
            until = time.monotonic() + 1
            clients = [Client(server, 100 * n + i, until) for i in range(n)]
            for c in clients:
                c.start()
            while any(c.is_alive() for c in clients):
                # Whatever runs: a page is consistent in itself.
                conservation(server.metrics())
                time.sleep(0.1)
            for c in clients:
                c.join()
                if c.failure:
                    raise c.failure
            metrics = server.settle()
            answers += [a for c in clients for a in c.answers]
            left += sum(c.left for c in clients)
            compare(server, metrics, answers, left)
        check(total(metrics, "model_requests_finished_total", finish_reason="client_gone") > 0,
              "none of", left, "left in the middle")
        show_naive(answers)


def overlapping_streams_with_clients_that_leave():
    overlapping((1, 4, 12))


def overlapping_streams_on_int8_weights():
    """With keys and values in f16: other kernels of an OpenCL device, the same accounts."""
    if (DEVICE or "").startswith("opencl"):
        overlapping((8,), "--weights", "int8")


def compare(server, metrics, answers, left):
    by_account = conservation(metrics)
    # A line is written a moment after its request has ended.  A client that resets its connection immediately
    # may never have been heard.
    n = total(metrics, "model_request_total")
    server.await_log(lambda l: len([x for x in server.requests_logged() if "finish" in x]) >= n)
    lines = [l for l in server.requests_logged() if "finish" in l]
    equal(len(lines), n, "lines of generations")
    check(len(answers) <= n <= len(answers) + left, n, len(answers), left)
    equal(sum(ns(l["device_seconds"]) for l in lines), by_account["serve"], "the log's sum")
    for key in ("stop", "length", "client_gone", "cancelled", "failed", "timeout"):
        mine = [l for l in lines if l["finish"] == key]
        equal(total(metrics, "model_finished_device_seconds_total", finish_reason=key),
              sum((l["device_seconds"] for l in mine), Decimal(0)), key)
        equal(total(metrics, "model_requests_finished_total", finish_reason=key), len(mine), key)
    gone = [l for l in lines if l["finish"] == "client_gone"]
    check(len(lines) - len(gone) >= len(answers), "answers without lines")
    for model in ("small", "large"):
        mine = [l for l in lines if l["model"] == model]
        equal(total(metrics, "model_tokens_total", model_name=model, direction="output"),
              sum(l["output_tokens"] for l in mine))
        equal(total(metrics, "model_tokens_total", model_name=model, direction="input"),
              sum(l["input_tokens"] for l in mine))
        equal(total(metrics, "model_request_total", model_name=model), len(mine))
        equal(total(metrics, "model_cached_tokens_total", model_name=model), sum(l["cached_tokens"] for l in mine))
    # The answers are the log's lines of those who stayed.
    by_device = sorted(ns(l["device_seconds"]) for l in lines)
    for a in answers:
        check(ns(a["device_seconds"]) in by_device, "an answer that the log does not have:", a)


def show_naive(answers):
    naive = sum(a["latency_seconds"] for a in answers) * RATE / 3600
    exact = sum(a["estimated_cost_usd"] for a in answers)
    print("  answers: %d, charged $%.9f; latency x rate would have charged $%.9f, %.1f times as much" %
          (len(answers), exact, naive, naive / exact))
    check(naive > exact * Decimal("1.5"), "the naive formula did not over-count")


def a_departed_client_stops_costing():
    fields = dict(prompt="Once upon a time", max_tokens=240, ignore_eos=True)
    with Costd(*TWO, *PRICES) as server:
        whole = server.generate("large", **fields)
        lines = [server.await_log(lambda l: "finish" in l)]

        def leave(stream, close):
            s = server.open_stream("large", stream=stream, **fields)
            if stream:
                s.recv(100)
            else:
                time.sleep(0.01)
            close(s)
            ids = [l["id"] for l in lines]
            lines.append(server.await_log(lambda l: "finish" in l and l["id"] not in ids))
            return lines[-1]

        for stream in (True, False):
            for close in (reset, lambda s: s.close()):
                # A client that a busy machine has put aside for most of its request tries again.
                for _ in range(20):
                    line = leave(stream, close)
                    if line["output_tokens"] < whole.json["output_tokens"] * 3 // 4:
                        break
                equal((line["finish"], line["status"]), ("client_gone", 200 if stream else 499), line)
                check(line["output_tokens"] < whole.json["output_tokens"] * 3 // 4, "went on:", line)
        metrics = server.settle()
        for finish in ("client_gone", "length"):
            equal(total(metrics, "model_requests_finished_total", finish_reason=finish),
                  sum(l["finish"] == finish for l in lines))
        conservation(metrics)


def the_cpu_basis_and_no_price():
    with Costd(*TWO) as server:
        answer = server.generate("small", max_tokens=5).json
        equal(answer["estimated_cost_usd"], None)
        equal(server.complete(model="small", max_tokens=5).json["cost"]["dollars"], None)
        line = server.await_log(lambda l: "finish" in l)
        equal(line["cost_usd"], None)
        metrics = server.settle()
        equal(total(metrics, "costinfer_unpriced_seconds_total"), total(metrics, "costinfer_device_uptime_seconds"))
    with Costd(*TWO, *PRICES, "--basis", "cpu") as server:
        answer = server.generate("small", max_tokens=50, ignore_eos=True).json
        equal(answer["estimated_cost_usd"], dollars(ns(answer["device_seconds"])))
        before = total(server.settle(), "costinfer_device_uptime_seconds")
        time.sleep(0.5)
        after = total(server.settle(), "costinfer_device_uptime_seconds")
        check(after - before < Decimal("0.3"), "sleeping was charged:", after - before)


def an_opencl_device_shows_its_memory_and_a_cpu_has_none():
    with Costd(*TWO) as server:
        names = ("gpu_utilization_percent", "gpu_memory_used_bytes", "gpu_memory_total_bytes")
        page = server.settle()
        if not (DEVICE or "").startswith("opencl"):
            check(not any(line.startswith("gpu_") for line in server.get("/metrics").body.decode().splitlines()),
                  "gpu rows")
            return
        percent, used, whole = (total(page, name) for name in names)
        check(used > 10_000_000, "less than the weights", used)
        check(abs(percent - 100 * used / whole) < Decimal("1e-6"), percent, used, whole)


run(a_lone_request_costs_its_latency, overlapping_streams_with_clients_that_leave,
    overlapping_streams_on_int8_weights, a_departed_client_stops_costing, the_cpu_basis_and_no_price,
    an_opencl_device_shows_its_memory_and_a_cpu_has_none)
