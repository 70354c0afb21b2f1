"""Who pays for what, through HTTP: time in which the process was stopped, other threads' CPU time, a request of many
prompts, keys, and the limits of what a meter keeps apart."""
import hashlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from decimal import Decimal

from costd_support import SMALL, TWO, Costd, check, equal, ns, parse_metrics, run, temp_folder, total

PRICE = ["--cpu-cost-per-hour", "3600"]  # a dollar a second
ACCOUNTS = ("serve", "load", "idle", "lost", "overhead")


def accounts(metrics):
    """Nanoseconds by account; they and their dollars add up."""
    time_ns = {a: ns(total(metrics, "costinfer_device_seconds_total", account=a)) for a in ACCOUNTS}
    equal(sum(time_ns.values()), ns(total(metrics, "costinfer_device_uptime_seconds")), "the accounts' sum")
    for account, value in time_ns.items():
        dollars = total(metrics, "costinfer_device_cost_dollars_total", account=account)
        check(abs(dollars - Decimal(value) / 10**9) < Decimal("1e-11"), account, dollars, value)
    return time_ns


class Asking(threading.Thread):
    """One request in the background."""

    def __init__(self, server, **fields):
        super().__init__()
        self.server, self.fields = server, fields
        self.start()

    def run(self):
        self.reply = self.server.generate("small", prompt="Once upon a time", ignore_eos=True, **self.fields).json

    def answer(self):
        self.join()
        return self.reply


def stop(server, seconds):
    """Stops the process for so long; the least and the most that can have been lost."""
    before = time.monotonic()
    server.signal(signal.SIGSTOP)
    while " T " not in " " + open(f"/proc/{server.process.pid}/stat").read().rpartition(")")[2]:
        time.sleep(0.001)
    stopped = time.monotonic()
    time.sleep(seconds)
    least = time.monotonic() - stopped
    server.signal(signal.SIGCONT)
    server.get("/health")
    return least, time.monotonic() - before


def a_stopped_process_bills_nobody():
    """A request that takes a second or so costs the same whether the process is stopped in the middle or not."""
    tokens, sequences = 250, 8
    with Costd("--model", "small=" + SMALL, *PRICE, "--no-speculation") as server:
        def ask():
            return Asking(server, max_tokens=tokens, n=1)

        def costs(answers):
            return sum(a["device_seconds"] for a in answers)

        usual = statistics.median(costs([ask().answer() for _ in range(4)]) for _ in range(5))
        least = most = 0.0
        for seconds in (1, 1, 3):
            asking = [ask() for _ in range(sequences)]
            while not total(server.metrics(), "model_requests_running"):
                pass
            one = stop(server, seconds)
            least, most = least + one[0], most + one[1]
            answers = [a.answer() for a in asking]
            for a in answers:
                check(a["device_seconds"] < usual, "one of 8 pays", a["device_seconds"], "four alone paid", usual)
        books = accounts(server.settle())
        lost = books["lost"] / 1e9
        check(least - 0.15 < lost < most + 0.15, "lost", lost, "of", least, "to", most)
        equal(total(server.metrics(), "costinfer_stalls_total"), 3)
        # While nothing is asked, too.
        one = stop(server, 1)
        again = accounts(server.metrics())
        lost = (again["lost"] - books["lost"]) / 1e9
        check(one[0] - 0.05 < lost < one[1] + 0.05, "lost while idle", lost, one)
        bills = server.get("/api/history?range=15m").json["since_start"]
        equal(ns(bills["lost_seconds"]), again["lost"], "on the page")
        line = server.await_log(lambda l: l["event"] == "stalled")
        check(line["lost_seconds"] > 0, line)


def a_crowded_machine_loses_nothing():
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        with Costd("--model", "small=" + SMALL, *PRICE) as server:
            for _ in range(5):
                server.generate("small", max_tokens=200, ignore_eos=True)
            time.sleep(1)
            equal(accounts(server.settle())["lost"], 0)
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def on_the_cpu_basis_tokenizing_costs_no_request_anything():
    text = "There was once a flood of texts that nobody generated anything from. " * 2000
    with Costd("--model", "small=" + SMALL, *PRICE, "--basis", "cpu", "--threads", "1") as server:
        def cost():
            return min(server.generate("small", prompt="Once", max_tokens=200, ignore_eos=True).json["device_seconds"]
                       for _ in range(5))

        over = threading.Event()

        def flood():
            while not over.is_set():
                equal(server.post("/tokenize", {"model": "small", "content": text}).status, 200)

        cost()
        quiet = cost()
        before = accounts(server.settle())
        threads = [threading.Thread(target=flood) for _ in range(4)]
        for t in threads:
            t.start()
        flooded = cost()
        over.set()
        for t in threads:
            t.join()
        books = accounts(server.settle())
        check(flooded < 2 * quiet, "a request costs", flooded, "beside the flood and", quiet, "without")
        check(books["overhead"] - before["overhead"] > 10**7, "overhead", before, books)
        equal((books["idle"], books["lost"]), (0, 0))


def a_request_of_many_prompts_has_one_latency():
    with Costd(*TWO, *PRICE) as server:
        for n in (1, 2, 5, 16, 40):
            for _ in range(4):
                prompts = [f"Once upon a time there were {i}" for i in range(n)]
                reply = server.complete(model="small", prompt=prompts, max_tokens=5)
                line = server.await_log(lambda l: l["event"] == "request" and
                                        l["id"] == reply.headers["x-request-id"])
                equal(line["device_seconds"], reply.json["cost"]["device_seconds"])
                check(0 < line["device_seconds"] <= line["latency_seconds"], n, line)
                if n == 1:
                    equal(line["device_seconds"], line["latency_seconds"])


def key_file(folder):
    path = os.path.join(folder, "keys")
    with open(path, "w") as f:
        for name in ("ann", "bob", "root admin"):
            name, *admin = name.split()
            f.write(" ".join([name, hashlib.sha256(name.encode()).hexdigest(), *admin]) + "\n")
    os.chmod(path, 0o600)
    return path


def key(name):
    return {"Authorization": "Bearer " + name}


def prices_never_run_out():
    with temp_folder() as folder, Costd("--model", "small=" + SMALL, *PRICE, "--keys", key_file(folder)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for i in range(1, 4200):
            status = 429  # 64 changes may wait
            while status == 429:
                connection.request("PUT", "/admin/price", json.dumps({"dollars_per_hour": str(i)}),
                                   {"Content-Type": "application/json", **key("root")})
                response = connection.getresponse()
                body, status = response.read(), response.status
            equal(status, 202, body)
        connection.close()
        end = time.monotonic() + 60
        while total(metrics_of(server), "costinfer_price_dollars_per_hour") != 4199:
            check(time.monotonic() < end, "the last price is not in force")
        equal(server.post("/v1/generate/small", {"prompt": "Hello", "max_tokens": 3}, **key("root")).status, 200)
        metrics = metrics_of(server)
        cost = total(metrics, "model_estimated_cost_dollars_total")
        exact = total(metrics, "costinfer_device_seconds_total", account="serve") * 4199 / 3600
        check(abs(cost - exact) < Decimal("1e-11"), cost, exact)


def metrics_of(server):
    reply = server.ask("GET", "/metrics", headers=key("root"))
    equal(reply.status, 200, reply.body)
    return parse_metrics(reply.body.decode())


def a_key_pays_for_its_own_and_shares_no_cache():
    prompt = "Lily and her mother went to the park to see the big slide and the swings"

    def cached(server, name, model="small"):
        reply = server.post("/v1/generate/" + model, {"prompt": prompt, "max_tokens": 2}, **key(name))
        equal(reply.status, 200, reply.body)
        return reply.json["cached_tokens"]

    with temp_folder() as folder:
        keys = key_file(folder)
        with Costd(*TWO, *PRICE, "--keys", keys) as server:
            equal(cached(server, "ann"), 0)
            equal(cached(server, "bob"), 0, "bob sees what ann asked")
            check(cached(server, "ann") > 4, "ann finds her own")
            cached(server, "bob", "large")
            metrics = metrics_of(server)
            serve = 0
            for name in ("anonymous", "ann", "bob", "root"):
                paid = ns(total(metrics, "model_payer_device_seconds_total", payer=name))
                equal(ns(total(metrics, "costd_key_device_seconds_total", key=name)), paid, name)
                equal(total(metrics, "costd_key_cost_dollars_total", key=name) > 0, paid > 0, name)
                serve += paid
            equal(serve, accounts(metrics)["serve"])
            equal(ns(total(metrics, "model_payer_device_seconds_total", model_name="large")),
                  sum(ns(total(metrics, "model_device_seconds_total", model_name="large", phase=p))
                      for p in ("prefill", "decode")))
            equal(total(metrics, "model_payer_tokens_total", payer="ann", direction="output"), 4)
        with Costd(*TWO, *PRICE, "--keys", keys, "--share-prefixes") as server:
            equal(cached(server, "ann"), 0)
            check(cached(server, "bob") > 4, "bob uses what ann computed")


if __name__ == "__main__":
    run(a_stopped_process_bills_nobody, a_crowded_machine_loses_nothing,
        on_the_cpu_basis_tokenizing_costs_no_request_anything, a_request_of_many_prompts_has_one_latency,
        prices_never_run_out, a_key_pays_for_its_own_and_shares_no_cache)
