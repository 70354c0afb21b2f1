"""Allocations fail at random, everywhere in the process: costd's, its libraries', the C library's own.

Each answer is right, or an error of the server, or no answer because the connection was closed; costd does not
crash and does not hang, and when memory is back it serves as before and its accounts are exact.  costd runs with
failing_malloc.c preloaded, which the compiler of the machine makes of it."""
import http.client
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import threading
import time
from decimal import Decimal

from costd_support import (CANARY, SMALL, TWO, Costd, Reply, check, equal, ns, parse_metrics, run, sanitized,
                           skip, temp_folder, total)

CLIENTS, REQUESTS = 6, 60  # of each client, for each seed
PER_MILLE_AND_SEED = [(20, seed) for seed in range(1, 6)] + [(2, seed) for seed in range(6, 11)]
PROMPT = "Once upon a time, %s" % CANARY

compiler = shutil.which("cc") or shutil.which("gcc")
if not compiler:
    skip("there is no C compiler")
if sanitized():
    skip("a sanitizer has its own malloc")


class Failures:
    """The file that failing_malloc.c looks into: per mille, seed, calls, failures, blocks that are not freed."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "control")
        with open(self.path, "wb") as f:
            f.write(bytes(4096))
        with open(self.path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 4096)
        self.library = os.path.join(folder, "failing_malloc.so")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", self.library,
                        os.path.join(os.path.dirname(os.path.abspath(__file__)), "failing_malloc.c")], check=True)
        self.environment = {"LD_PRELOAD": self.library, "FAILING_MALLOC": self.path}

    def begin(self, per_mille, seed):
        self.memory[8:32] = struct.pack("QQQ", seed, 0, 0)
        self.memory[0:8] = struct.pack("Q", per_mille)

    def end(self):
        """How many allocations there were, and how many failed."""
        self.memory[0:8] = bytes(8)
        return struct.unpack("QQ", self.memory[16:32])

    def live(self):
        return struct.unpack("Q", self.memory[32:40])[0]


def ask(port, method, path, body=None):
    """A reply, or None: the connection was closed before its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        try:
            read = response.read()
        except http.client.IncompleteRead as cut:
            return Reply(response.status, {"cut": "1"}, cut.partial)
        return Reply(response.status, {}, read)
    except (ConnectionError, http.client.BadStatusLine):
        return None
    finally:
        connection.close()


def generated(reply):
    answer = reply.json
    return answer["text"], answer["output_tokens"]


def streamed(reply):
    *deltas, last, done = reply.events
    equal(done, "[DONE]")
    equal(PROMPT + "".join(e["delta"] for e in deltas), last["text"], "deltas")
    return last["text"], last["output_tokens"]


def completed(reply):
    answer = reply.json
    return answer["choices"], answer["usage"]["total_tokens"]


def completed_stream(reply):
    *chunks, usage, done = reply.events
    equal(done, "[DONE]")
    return "".join(c["choices"][0]["text"] for c in chunks), usage["usage"]["total_tokens"]


def conserved(reply):
    """The accounts add up to the uptime, and in dollars; the families are the answer that must not change."""
    metrics = parse_metrics(reply.body.decode())
    parts = ns(total(metrics, "costinfer_device_seconds_total"))
    equal(parts, ns(total(metrics, "costinfer_device_uptime_seconds")), "uptime")
    cost = Decimal(total(metrics, "costinfer_device_cost_dollars_total"))
    exact = Decimal(parts) * Decimal("0.10") / 3600 / 10**9
    check(abs(cost - exact) <= Decimal("2e-12"), "cost", cost, "wanted", exact)
    return {name for name, _ in metrics if not name.startswith("process_")}


def parsed(reply):
    return bool(json.loads(reply.body))


def plain(reply):
    return reply.body


def error(reply):
    return reply.error["code"]


def accepted(reply):
    """A model that is loaded already stays as it is."""
    check(reply.json["status"] in ("accepted", "unchanged"), reply.body)
    return True


GREEDY = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0}
# name: listener, method, path, body, status, what must be as it was when memory was there
KINDS = {
    "generate": (0, "POST", "/v1/generate/small", GREEDY, 200, generated),
    "generate stream": (0, "POST", "/v1/generate/large", {**GREEDY, "stream": True}, 200, streamed),
    "choices": (0, "POST", "/v1/completions", {**GREEDY, "model": "large", "n": 2, "best_of": 3, "logprobs": 3,
                                               "temperature": 1, "seed": 7, "stop": ["zzz", "yyy"]}, 200, completed),
    "stream": (0, "POST", "/v1/completions", {**GREEDY, "model": "small", "stream": True,
                                              "stream_options": {"include_usage": True}}, 200, completed_stream),
    "scoring": (0, "POST", "/v1/completions", {**GREEDY, "model": "small", "max_tokens": 0, "echo": True,
                                               "logprobs": 2}, 200, completed),
    "biased": (0, "POST", "/v1/completions", {**GREEDY, "model": "small", "prompt": [PROMPT, "x"],
                                              "logit_bias": {str(i): 1 for i in range(50)}}, 200, completed),
    "tokenize": (0, "POST", "/tokenize", {"content": PROMPT, "model": "small"}, 200, plain),
    "detokenize": (0, "POST", "/detokenize", {"tokens": [1, 2, 3], "model": "small"}, 200, plain),
    "model": (0, "GET", "/v1/models/small", None, 200, parsed),
    "models": (0, "GET", "/v1/models", None, 200, parsed),
    "props": (0, "GET", "/props", None, 200, plain),
    "openapi": (0, "GET", "/openapi.json", None, 200, plain),
    "health": (0, "GET", "/health", None, 200, plain),
    "no json": (0, "POST", "/v1/completions", b'{"prompt": ', 400, error),
    "no model": (0, "POST", "/v1/generate/none", GREEDY, 404, error),
    "no path": (0, "GET", "/nothing", None, 404, error),
    "bad value": (0, "POST", "/v1/completions", {**GREEDY, "model": "small", "max_tokens": -1}, 400, error),
    "metrics": (1, "GET", "/metrics", None, 200, conserved),
    "page": (1, "GET", "/page/start.js", None, 200, plain),
    "history": (1, "GET", "/api/history", None, 200, parsed),
    "recent": (1, "GET", "/api/recent", None, 200, parsed),
    "load": (1, "POST", "/admin/models", {"id": "third", "folder": SMALL}, 202, accepted),
    "unload": (1, "DELETE", "/admin/models/third", None, 202, accepted),  # or there is none
    "price": (1, "PUT", "/admin/price", {"dollars_per_hour": "0.10"}, 202, plain),
}


def once(ports, name):
    listener, method, path, body, status, look = KINDS[name]
    reply = ask(ports[listener], method, path, body)
    if reply is None:
        return None, None
    if reply.headers or reply.status in (429, 500, 503):  # cut, or refused
        return reply, None
    if name == "unload" and reply.status == 404:
        return reply, True
    if reply.status == 200 and reply.body.endswith(b"}}\n\n") and b'data: {"error":' in reply.body:
        return reply, None  # an error in the middle of a stream is its end
    equal(202 if (name, reply.status) == ("load", 200) else reply.status, status, name)
    return reply, look(reply)


class Client(threading.Thread):
    def __init__(self, ports, right, seed):
        super().__init__()
        self.ports, self.right, self.random = ports, right, random.Random(seed)
        self.n = {"right": 0, "refused": 0, "closed": 0}
        self.failure = None

    def run(self):
        try:
            for _ in range(REQUESTS):
                name = self.random.choice(list(KINDS))
                reply, seen = once(self.ports, name)
                if reply is None or reply.headers:
                    self.n["closed"] += 1
                elif seen is None:
                    self.n["refused"] += 1
                else:
                    equal(seen, self.right[name], name)
                    self.n["right"] += 1
        except BaseException as failure:
            self.failure = failure


def all_is_well(server, ports, right):
    """Once nothing runs: every answer is right at the first try, and the third model can be had."""
    server.port = ports[1]
    server.settle(log_is_whole=False)
    server.port = ports[0]
    for name in set(KINDS) - {"unload"}:
        reply, seen = once(ports, name)
        check(seen is not None, name, "does not work again:", reply and reply.body)
        equal(seen, right[name], name)
    end = time.monotonic() + 120
    while server.get("/v1/models/third").status != 200:
        check(time.monotonic() < end, "the model is not loaded again")
        time.sleep(0.01)


def n_descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def nothing_is_left(server, failures, live, descriptors):
    """No descriptor, and hardly a block: some thirty come and go by themselves."""
    end = time.monotonic() + 120
    while failures.live() > live + 100 or n_descriptors(server) > descriptors:
        check(time.monotonic() < end, failures.live() - live, "blocks and", n_descriptors(server) - descriptors,
              "descriptors are left")
        time.sleep(0.01)


def at_random():
    with temp_folder() as folder:
        failures = Failures(folder)
        with Costd(*TWO, "--cpu-cost-per-hour", "0.10", "--device", "cpu", "--metrics-listen", "127.0.0.1:0",
                   env=failures.environment) as server:
            ports = server.port, server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
            ask(ports[1], "POST", "/admin/models", {"id": "third", "folder": SMALL})
            server.await_log(lambda l: l["event"] == "model_loaded" and l["model"] == "third")
            right = {name: once(ports, name)[1] for name in KINDS}
            check(None not in right.values(), right)
            all_is_well(server, ports, right)
            live, descriptors = failures.live(), n_descriptors(server)
            for per_mille, seed in PER_MILLE_AND_SEED:
                clients = [Client(ports, right, 100 * seed + i) for i in range(CLIENTS)]
                failures.begin(per_mille, seed)
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                n_calls, n_failed = failures.end()
                n = {k: sum(c.n[k] for c in clients) for k in clients[0].n}
                print("seed %d: %d of %d allocations failed; of %d requests %d were right, %d refused, %d closed" %
                      (seed, n_failed, n_calls, CLIENTS * REQUESTS, n["right"], n["refused"], n["closed"]))
                check(server.process.poll() is None, "costd ended:", server.process.poll(), server.raw[-3:])
                for client in clients:
                    if client.failure:
                        raise client.failure
                check(n_failed >= 20 and n["right"] >= 20 and n["refused"] >= 5, "that shows nothing")
                all_is_well(server, ports, right)
                nothing_is_left(server, failures, live, descriptors)


run(at_random)
