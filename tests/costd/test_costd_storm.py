"""A storm of what clients and operators do wrong, in which one client behaves well.

    test_costd_storm.py [--seconds N] [--seed N] [--basis wall|cpu]

Afterwards the books are exact, descriptors, threads and memory are what they were, SIGTERM ends the process in time,
and the client that behaves has never waited longer than two seconds for a first token.  Its model is reloaded, well and
badly, and never unloaded.

The machine's own delays are not costd's.  From each of its waits the client subtracts the time in which the process
was stopped and the longer of two delays: of a sleeper beside it, and of the device's threads, which were ready to run
and did not get a processor.  Every random decision comes from the seed, though threads race, so a seed repeats the
kind of storm and not each of its interleavings."""
import argparse
import collections
import contextlib
import copy
import hashlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from decimal import Decimal

from costd_support import LARGE, SMALL, Costd, check, equal, ns, reset, sanitized, temp_folder, total
from test_costd_vectors import vectors

ACCOUNTS = ("serve", "load", "idle", "lost", "overhead")
PROMISED = 2.0  # seconds to the first token of a client that behaves
EVERY = 0.2
DRAIN, STALL, BODY, HEAD = 3, 3, 3, 3
SETTINGS = {"models": {"small": SMALL, "large": LARGE}, "cpu_cost_per_hour": "0.10"}
KEYS = ("ann", "bob", "cat", "well")
ACTORS = 20
PARTS = 4
TEXT = "There was once a storm over the sea and nobody knew where it came from. "
HOSTILE = [bytes(data) for _, _, _, data in vectors()] + [
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 200) for i in range(200)) + b"\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"k" * 9000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), b"\r\n" * 500, b"\0" * 100]


# ---- The client that behaves: a process of its own, which shares no interpreter with the storm ------------------

def run_delay(pid, threads):
    """Nanoseconds in which these threads waited for a processor."""
    delay = 0
    for thread in threads:
        with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
            delay += int(f.read().split()[1])
    return delay


class Sleeper(threading.Thread):
    """How much later than due the machine has woken a thread that does nothing else."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late, self.due = 0.0, time.monotonic()
        self.start()

    def run(self):
        while True:
            self.due = time.monotonic() + 0.01
            time.sleep(0.01)
            self.late += max(0.0, time.monotonic() - self.due)

    def lateness(self):
        return self.late + max(0.0, time.monotonic() - self.due)


def behave(port, pid, threads):
    """Asks until stdin closes; prints what each request met."""
    sleeper = Sleeper()
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 5, "ignore_eos": True, "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": "Bearer well"}
    connection, asked = None, 0
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        late, delay, start = sleeper.lateness(), run_delay(pid, threads), time.monotonic()
        if not connection:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/v1/generate/small", body, headers)
            response = connection.getresponse()
            answer = response.readline()
            while answer in (b": ping\n", b"\n"):
                answer = response.readline()
            first = time.monotonic()
            late, delay = sleeper.lateness() - late, (run_delay(pid, threads) - delay) / 1e9
            answer += response.read()
            met = {"status": response.status, "whole": b"[DONE]" in answer, "answer": answer.decode()[:300]}
        except (OSError, http.client.HTTPException) as failure:
            first, met = time.monotonic(), {"status": 0, "whole": False, "answer": repr(failure)}
        print(json.dumps({"start": start, "first": first, "late": late, "delay": delay, **met}), flush=True)
        asked += 1
        if met["status"] != 200 or asked % 4 == 0:  # most requests share a connection with others
            connection.close()
            connection = None


class Behaving:
    def __init__(self, server, threads):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--behave", str(server.port), str(server.process.pid),
             *map(str, threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def ended(self):
        self.process.stdin.close()
        equal(self.process.wait(90), 0, "the client that behaves")
        self.reader.join()
        return [json.loads(line) for line in self.lines]


def judge(waits, stops):
    """Whether the client that behaves was served in time."""
    check(len(waits) > 5, "only", len(waits), "requests of the client that behaves")
    raw, ran, net = [], [], []
    for w in waits:
        equal((w["status"], w["whole"]), (200, True), w)
        stopped = sum(max(0.0, min(w["first"], b) - max(w["start"], a)) for a, b in stops)
        raw.append(w["first"] - w["start"])
        ran.append(raw[-1] - stopped)
        net.append((ran[-1] - max(w["late"], w["delay"]), raw[-1], stopped, w["late"], w["delay"]))
    for name, values in (("raw", raw), ("less the stops", ran),
                         ("less the machine's delays", [max(0.0, n[0]) for n in net])):
        q = statistics.quantiles(values, n=100, method="inclusive")
        print("  first token, %s: median %.3f s, p95 %.3f s, p99 %.3f s, longest %.3f s" %
              (name, q[49], q[94], q[98], max(values)))
    worst = max(net)
    print("  the longest of %d: %.3f s of %.3f s; stopped %.3f s, the sleeper %.3f s late, the device's threads %.3f s"
          % (len(net), *worst))
    check(worst[0] < PROMISED, "a client that behaves waited", worst)


# ---- The storm --------------------------------------------------------------------------------------------------

class Client:
    """One who makes trouble, and holds sockets that it lets go of later."""

    def __init__(self, storm, number):
        self.storm, self.server, self.random = storm, storm.server, random.Random(f"{storm.seed} client {number}")
        self.held, self.counts, self.failure = [], collections.Counter(), None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        kinds = [(self.whole, 6), (self.abort, 8), (self.half_sent, 5), (self.stalled, 6), (self.paused, 3),
                 (self.tokenize, 3), (self.many_prompts, 3), (self.burst, 1), (self.hostile, 5), (self.look, 2)]
        try:
            while not self.storm.over.is_set():
                kind = self.random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
                try:
                    kind()
                except (OSError, http.client.HTTPException) as broken:
                    self.counts["broken: " + type(broken).__name__] += 1
                self.counts[kind.__name__] += 1
                self.let_go(time.monotonic())
                time.sleep(self.random.random() * 0.05)
        except BaseException as failure:
            self.failure = failure
        finally:
            self.let_go(float("inf"))

    def let_go(self, now):
        for entry in [e for e in self.held if e[0] <= now]:
            self.held.remove(entry)
            try:
                self.part(entry[1], entry[2])
            except OSError:
                pass

    def part(self, s, how):
        if how == "drain":
            s.settimeout(0.5)
            try:
                for _ in range(200):
                    if not s.recv(1 << 16):
                        break
            finally:
                s.close()
        elif how == "reset":
            reset(s)
        else:
            s.close()

    def hold(self, s, seconds):
        self.held.append((time.monotonic() + seconds, s, self.random.choice(["drain", "reset", "close"])))
        if len(self.held) > 8:
            self.let_go(min(e[0] for e in self.held))

    def fields(self, longest=60, **more):
        r = self.random
        fields = {"prompt": TEXT[:r.randrange(len(TEXT))], "max_tokens": r.randint(1, longest),
                  "ignore_eos": r.random() < 0.8}
        if r.random() < 0.5:
            fields.update(temperature=r.choice([0, 0.7, 1.3]), seed=r.randint(0, 9))
        fields.update(more)
        return fields

    def model(self):
        return self.random.choices(["small", "large", "extra", "none"], [4, 5, 2, 1])[0]

    def key(self):
        return self.random.choices([*KEYS[:3], "well", "wrong", None], [5, 5, 3, 1, 1, 1])[0]

    def headers(self):
        key = self.key()
        return {"Authorization": "Bearer " + key} if key else {}

    def judged(self, reply):
        self.counts[str(reply.status)] += 1
        check(reply.status in (200, 400, 401, 404, 429, 503), reply.status, reply.body)
        return reply

    def connect(self, small_window=False):
        s = socket.socket()
        s.settimeout(30)
        if small_window:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", self.server.port))
        return s

    def head(self, path, n):
        headers = "".join(f"{k}: {v}\r\n" for k, v in self.headers().items())
        return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}"
                f"Content-Length: {n}\r\n\r\n").encode()

    def send(self, path, fields, **how):
        s = self.connect(**how)
        body = json.dumps(fields).encode()
        s.sendall(self.head(path, len(body)) + body)
        return s

    # Kinds of trouble, and some that are none.

    def whole(self):
        if self.random.random() < 0.5:
            self.judged(self.server.post("/v1/generate/" + self.model(), self.fields(), **self.headers()))
        else:
            fields = self.fields(model=self.model(), n=self.random.randint(1, 4), stream=self.random.random() < 0.5)
            self.judged(self.server.post("/v1/completions", fields, **self.headers()))

    def abort(self):
        r = self.random
        s = self.send("/v1/completions", self.fields(250, model=self.model(), stream=r.random() < 0.6,
                                                     n=r.randint(1, 3)))
        if r.random() < 0.5:
            time.sleep(r.random() * 0.1)
        else:
            for _ in range(r.randint(0, 6)):
                s.recv(r.randint(1, 400))
        how = r.choice(["reset", "close", "shut"])
        if how == "shut":
            s.shutdown(socket.SHUT_WR)
            self.hold(s, 0.5)
        else:
            self.part(s, how)

    def half_sent(self):
        r = self.random
        for _ in range(r.randint(1, 6)):
            s = self.connect()
            body = json.dumps(self.fields(model="large")).encode()
            data = self.head("/v1/completions", 500) + body[:r.randint(0, 60)]
            s.sendall(data[:r.randint(1, len(data))])
            if r.random() < 0.3:
                self.hold(s, r.random() * (BODY + 2))
            else:
                self.part(s, r.choice(["reset", "close"]))

    def stalled(self):
        r = self.random
        for _ in range(r.randint(1, 4)):
            fields = self.fields(model=self.model(), max_tokens=250, n=r.randint(1, 3), stream=True, logprobs=5,
                                 ignore_eos=True)
            self.hold(self.send("/v1/completions", fields, small_window=True), r.random() * 2 * STALL)

    def paused(self):
        r = self.random
        with self.send("/v1/completions", self.fields(200, model=self.model(), n=2, stream=True, logprobs=3),
                       small_window=True) as s:
            for _ in range(r.randint(1, 5)):
                s.recv(2000)
                time.sleep(r.random() * 0.5)
            data = b"."
            while data and not self.storm.over.is_set():
                data = s.recv(1 << 16)

    def tokenize(self):
        text = TEXT * self.random.randint(1, 2000)
        for _ in range(self.random.randint(1, 10)):
            self.judged(self.server.post("/tokenize", {"model": "small", "content": text}, **self.headers()))

    def many_prompts(self):
        fields = self.fields(20, model=self.model(), stream=self.random.random() < 0.3)
        self.judged(self.server.post("/v1/completions", {**fields, "prompt": [fields["prompt"]] *
                                                         self.random.randint(2, 40)}, **self.headers()))

    def burst(self):
        """More than may wait."""
        sockets = [self.send("/v1/completions", self.fields(model="large", max_tokens=200, n=2, ignore_eos=True))
                   for _ in range(self.random.randint(20, 60))]
        time.sleep(self.random.random())
        for s in sockets:
            self.part(s, self.random.choice(["reset", "close"]))

    def hostile(self):
        for _ in range(self.random.randint(1, 5)):
            with self.connect() as s:
                s.settimeout(0.2)
                s.sendall(self.random.choice(HOSTILE))
                try:
                    while s.recv(1 << 16):
                        pass
                except socket.timeout:
                    pass

    def look(self):
        admin = self.random.random() < 0.7
        path = self.random.choice(["/api/history?range=15m", "/api/recent", "/", "/metrics", "/v1/models", "/props",
                                   "/health", "/ready", "/openapi.json", "/nowhere"])
        reply = (self.server.admin if admin else self.server).ask("GET", path, headers=self.headers())
        check(reply.status in (200, 401, 403, 404, 503), path, reply.status, reply.body)


class Operator:
    """Reloads good and bad, by signal and by HTTP, changes of prices and keys, and stops of the whole process."""

    def __init__(self, storm):
        self.storm, self.server, self.random = storm, storm.server, random.Random(f"{storm.seed} operator")
        self.counts, self.failure, self.stops = collections.Counter(), None, []
        self.next_stop = time.monotonic() + min(3, storm.seconds / 3)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        kinds = [(self.good_config, 6), (self.bad_config, 3), (self.load, 4), (self.unload, 1), (self.price, 4),
                 (self.keys, 3), (self.flood, 2)]
        try:
            while not self.storm.over.is_set():
                kind = self.random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
                kind()
                self.counts[kind.__name__] += 1
                if time.monotonic() >= self.next_stop:
                    self.stop()
                time.sleep(self.random.random())
        except BaseException as failure:
            self.failure = failure

    def config(self, **changes):
        write(self.storm.config, json.dumps({**SETTINGS, **changes}))

    def good_config(self):
        r = self.random
        turn(self.storm.folder + "/current", r.choice(["small-1", "small-2"]))
        models = {"small": r.choice([SMALL, self.storm.folder + "/current"]),
                  "large": r.choice([LARGE, LARGE, self.storm.folder + "/large-2"])}
        if r.random() < 0.5:
            models["extra"] = r.choice([SMALL, LARGE])
        self.config(models=models, cpu_cost_per_hour=r.choice(["0.10", "3600", "0.000000001", "17.5"]),
                    daily_budget=r.choice(["1", "100"]))
        self.server.signal(signal.SIGHUP)

    def bad_config(self):
        bad = self.random.choice(["text", "field", "price", "missing", "truncated", "file"])
        if bad == "text":
            write(self.storm.config, '{"models": {"small": ')
        elif bad == "field":
            self.config(modles={})
        elif bad == "price":
            self.config(cpu_cost_per_hour="-1")
        elif bad in ("missing", "truncated"):
            folder = {"missing": "/nowhere", "truncated": self.storm.folder + "/truncated"}[bad]
            self.config(models=self.random.choice([{"small": SMALL, "large": folder},
                                                   {"small": folder, "large": LARGE}]))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.storm.config)
        self.server.signal(signal.SIGHUP)

    def admin(self, *request):
        reply = self.server.admin.ask(*request)
        check(reply.status in (200, 202, 400, 404, 409, 429, 503), request, reply.status, reply.body)

    def load(self):
        self.admin("POST", "/admin/models", self.random.choice([
            {"id": "small", "folder": SMALL}, {"id": "small", "folder": self.storm.folder + "/current"},
            {"id": "small", "folder": self.storm.folder + "/truncated"}, {"id": "large", "folder": LARGE},
            {"id": "large", "folder": self.storm.folder + "/large-2"}, {"id": "extra", "folder": SMALL},
            {"id": "extra", "folder": "/nowhere"}, {"id": "extra", "folder": LARGE, "unload_first": True}]))

    def unload(self):
        self.admin("DELETE", "/admin/models/" + self.random.choice(["large", "extra"]))

    def price(self):
        for _ in range(self.random.choice([1, 1, 30])):
            self.admin("PUT", "/admin/price", {"dollars_per_hour": self.random.choice(["0.10", "3600", "1", None])})

    def keys(self):
        what = self.random.choice(["all", "without bob", "rotated", "broken"])
        text = key_lines(KEYS)
        if what == "without bob":
            text = key_lines([k for k in KEYS if k != "bob"])
        elif what == "rotated":
            text = text.replace(digest("cat"), digest("new"))
        elif what == "broken":
            text += "dan not-a-digest\n"
        write(self.storm.keys, text)
        self.server.signal(signal.SIGHUP)

    def flood(self):
        for _ in range(self.random.choice([20, 200, 2000])):
            self.server.signal(signal.SIGHUP)

    def stop(self):
        start = time.monotonic()
        self.server.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(1, min(5, 1 + self.storm.seconds / 10)))
        self.server.signal(signal.SIGCONT)
        self.stops.append((start, time.monotonic()))
        self.next_stop = time.monotonic() + self.random.uniform(5, 25)

    def mend(self):
        """Everything as it was in the beginning."""
        write(self.storm.keys, key_lines(KEYS))
        self.config()
        self.server.signal(signal.SIGHUP)
        wanted = {("small", "loaded", SMALL), ("large", "loaded", LARGE)}
        end = time.monotonic() + 60
        while True:
            models = self.server.admin.get("/admin/models").json["data"]
            if {(m["id"], m["state"], m["served_folder"]) for m in models} == wanted:
                break
            check(time.monotonic() < end, "the settings are not read again", models)
            time.sleep(0.05)


class Accountant:
    """Each page of the metrics is consistent, whatever goes on, and no counter falls."""

    def __init__(self, storm):
        self.storm, self.failure = storm, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        last = {}
        try:
            while not self.storm.over.is_set():
                try:
                    now = self.storm.server.admin.metrics()
                except (OSError, http.client.HTTPException) as broken:
                    raise AssertionError("the metrics do not come: " + repr(broken)) from broken
                conservation(now)
                for (name, labels), value in last.items():
                    if name.endswith(("_total", "_count", "_sum", "_bucket", "_uptime_seconds")):
                        check(now.get((name, labels), value) >= value, name, labels, "fell from", value)
                last = {**last, **now}
                time.sleep(0.5)
        except BaseException as failure:
            self.failure = failure


class Storm:
    """A part of it; between two parts everything comes to rest."""

    def __init__(self, server, folder, seed, seconds):
        self.server, self.folder, self.seed, self.seconds = server, folder, seed, seconds
        self.config, self.keys = folder + "/config.json", folder + "/keys"
        self.over = threading.Event()

    def rage(self):
        self.accountant, self.operator = Accountant(self), Operator(self)
        self.clients = [Client(self, i) for i in range(ACTORS)]
        actors = [self.accountant, self.operator, *self.clients]
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not any(a.failure for a in actors):
            check(self.server.process.poll() is None, "costd ended:", self.server.raw[-30:])
            time.sleep(0.1)
        self.over.set()
        for a in actors:
            a.thread.join(120)
            check(not a.thread.is_alive(), "does not end:", a)
        for a in actors:
            if a.failure:
                raise a.failure
        counts = sum((c.counts for c in self.clients), self.operator.counts)
        print("  " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))


# ---- Before and after -------------------------------------------------------------------------------------------

def write(path, text):
    """Not in place: a reader sees the old text or the new one."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)


def turn(link, target):
    """Has a link show to something else, as a deployment does."""
    os.symlink(target, link + ".new")
    os.rename(link + ".new", link)


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


def key_lines(names):
    return "".join(f"{name} {digest(name)}\n" for name in names)


def prepare(folder):
    write(folder + "/keys", key_lines(KEYS))
    write(folder + "/config.json", json.dumps(SETTINGS))
    for name, source in (("small-1", SMALL), ("small-2", SMALL), ("large-2", LARGE), ("truncated", LARGE)):
        shutil.copytree(source, folder + "/" + name)
    turn(folder + "/current", "small-1")
    weights = folder + "/truncated/model.safetensors"
    os.truncate(weights, os.path.getsize(weights) // 2)


def conservation(metrics):
    """The accounts add up to the uptime, and models' and payers' parts to what was served."""
    by_account = {a: ns(total(metrics, "costinfer_device_seconds_total", account=a)) for a in ACCOUNTS}
    equal(sum(by_account.values()), ns(total(metrics, "costinfer_device_uptime_seconds")), "uptime")
    equal(sum(ns(total(metrics, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode")),
          by_account["serve"], "serve by model")
    equal(ns(total(metrics, "model_device_seconds_total", phase="load")), by_account["load"], "load")
    equal(ns(total(metrics, "model_payer_device_seconds_total")), by_account["serve"], "serve by payer")
    return by_account


def tally(lines, field):
    return sum((l[field] for l in lines), Decimal(0))


def books(server):
    """The log, the counters and the accounts say the same."""
    metrics = server.admin.settle()
    by_account = conservation(metrics)
    calls = total(metrics, "costd_http_calls_total")
    end = time.monotonic() + 30
    while len(server.requests_logged()) < calls and time.monotonic() < end:
        time.sleep(0.1)
    logged = server.requests_logged()
    metrics = server.admin.settle()
    by_account = conservation(metrics)
    equal(total(metrics, "costd_log_dropped_lines_total"), 0, "lines dropped")
    equal(len(logged), total(metrics, "costd_http_calls_total"), "lines and calls")
    lines = [l for l in logged if "finish" in l]
    equal(sum(ns(l["device_seconds"]) for l in lines), by_account["serve"], "the log's sum")
    equal(tally(lines, "requests"), total(metrics, "model_request_total"), "requests")
    equal(tally(lines, "requests"), total(metrics, "model_requests_finished_total"), "requests that ended")
    for finish in ("stop", "length", "client_gone", "cancelled", "failed", "timeout"):
        lone = [l for l in lines if l["finish"] == finish and l["requests"] == 1]
        check(total(metrics, "model_requests_finished_total", finish_reason=finish) >= len(lone), finish, len(lone))
    equal(total(metrics, "model_finished_device_seconds_total"), tally(lines, "device_seconds"), "by finish")
    for model in sorted({l["model"] for l in lines}):
        mine = [l for l in lines if l["model"] == model]
        equal(sum(ns(total(metrics, "model_device_seconds_total", model_name=model, phase=p))
                  for p in ("prefill", "decode")), sum(ns(l["device_seconds"]) for l in mine), model)
        for direction in ("input", "output"):
            equal(total(metrics, "model_tokens_total", model_name=model, direction=direction),
                  tally(mine, direction + "_tokens"), model)
        equal(total(metrics, "model_cached_tokens_total", model_name=model), tally(mine, "cached_tokens"), model)
    for key in KEYS:
        mine = [l for l in lines if l.get("key") == key]
        for name in ("model_payer_device_seconds_total", "costd_key_device_seconds_total"):
            label = {"payer": key} if "payer" in name else {"key": key}
            equal(ns(total(metrics, name, **label)), sum(ns(l["device_seconds"]) for l in mine), name + " " + key)
        equal(total(metrics, "model_payer_tokens_total", payer=key, direction="output"),
              tally(mine, "output_tokens"), key)
    # A cost is rounded to twelve decimals where it is written.
    cost = total(metrics, "model_estimated_cost_dollars_total")
    told = sum((l["cost_usd"] for l in lines if l["cost_usd"] is not None), Decimal(0))
    unpriced = sum(1 for l in lines if l["cost_usd"] is None)
    near = Decimal("1e-12") * (len(lines) + 10)
    check(told <= cost + near, "the log's dollars", told, "exceed", cost)
    check(unpriced or abs(told - cost) <= near, "dollars", told, cost)
    for other in (total(metrics, "costinfer_device_cost_dollars_total", account="serve"),
                  total(metrics, "costd_key_cost_dollars_total")):
        check(abs(cost - other) <= near, "dollars", cost, other)
    print("  %d calls, %d requests; %s; %d lines without a price" %
          (len(logged), tally(lines, "requests"),
           ", ".join("%s %.3f s" % (a, n / 1e9) for a, n in by_account.items()), unpriced))
    return by_account


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def threads(server):
    return sorted(int(t) for t in os.listdir(f"/proc/{server.process.pid}/task"))


def resident(server):
    with open(f"/proc/{server.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def processor_ns(server):
    out = {}
    for t in threads(server):
        with open(f"/proc/{server.process.pid}/task/{t}/schedstat") as f:
            out[t] = int(f.read().split()[0])
    return out


def warm_up(server):
    """Fills all slots of each model; returns the threads, those that have worked most first: the device's."""
    before = processor_ns(server)
    for model in ("small", "large"):
        fields = {"model": model, "prompt": "", "n": 16, "max_tokens": 255, "temperature": 1, "ignore_eos": True,
                  "logprobs": 5}
        reply = server.post("/v1/completions", fields, Authorization="Bearer ann")
        equal(reply.status, 200, reply.body)
    after = processor_ns(server)
    for path in ("/metrics", "/", "/api/history?range=15m", "/api/recent"):
        server.admin.get(path)
    server.admin.settle()
    return sorted(after, key=lambda t: before.get(t, 0) - after[t])


def settles(what, read, most, seconds=15):
    end = time.monotonic() + seconds
    while read() > most:
        check(time.monotonic() < end, what, read(), "where at most", most, "were expected")
        time.sleep(0.1)


def check_memory(rests):
    """What is resident after each part of the storm, with all slots filled; the first part has made the arenas."""
    mib = 1 << 20
    print("  memory: " + ", ".join("%.1f" % (m / mib) for m in rests) + " MiB")
    if not sanitized():
        check(rests[-1] < rests[0] * 1.05 + 8 * mib, "memory grows", rests)


def ends_in_time(server, r):
    """SIGTERM with everything under way."""
    held = []
    for i in range(12):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", server.port))
        body = json.dumps({"model": r.choice(["small", "large"]), "prompt": "", "n": 4, "max_tokens": 255,
                           "stream": True, "ignore_eos": True, "logprobs": 5}).encode()
        data = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nContent-Type: "
                f"application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        s.sendall(data if i < 8 else data[:r.randrange(len(data))])
        held.append(s)
    time.sleep(0.3)
    start = time.monotonic()
    server.signal(signal.SIGHUP)
    server.stop()
    seconds = time.monotonic() - start
    print("  ended %.2f s after SIGTERM" % seconds)
    check(seconds < DRAIN + 5, "SIGTERM took", seconds)
    for s in held:
        s.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=720)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--basis", default="wall")
    parser.add_argument("--behave", nargs="+", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.behave:
        return behave(given.behave[0], given.behave[1], given.behave[2:])
    print("storm of %g s, seed %d, basis %s" % (given.seconds, given.seed, given.basis), flush=True)
    with temp_folder() as folder:
        prepare(folder)
        with Costd("--config", folder + "/config.json", "--keys", folder + "/keys", "--metrics-listen", "127.0.0.1:0",
                   "--queue", "40", "--stall-seconds", str(STALL), "--drain-seconds", str(DRAIN), "--body-seconds",
                   str(BODY), "--head-seconds", str(HEAD), "--idle-seconds", "5", "--ping-seconds", "1",
                   "--basis", given.basis) as server:
            listening = server.await_log(lambda l: l["event"] == "listening")
            server.admin = copy.copy(server)
            server.admin.port = listening["metrics_port"]
            device = warm_up(server)[:listening["threads"]]
            before = descriptors(server), len(threads(server))
            behaving, stops, rests = Behaving(server, device), [], []
            try:
                for part in range(PARTS):
                    storm = Storm(server, folder, f"{given.seed} part {part}", given.seconds / PARTS)
                    storm.rage()
                    storm.operator.mend()
                    stops += storm.operator.stops
                    warm_up(server)
                    settles("descriptors", lambda: descriptors(server), before[0] + 1)  # the client that behaves
                    settles("threads", lambda: len(threads(server)), before[1])
                    rests.append(resident(server))
            finally:
                waits = behaving.ended()
            by_account = books(server)
            settles("descriptors", lambda: descriptors(server), before[0])
            stopped = sum(b - a for a, b in stops)
            print("  %d stops of %.2f s in all" % (len(stops), stopped))
            if given.basis == "wall":
                check(by_account["lost"] / 1e9 > stopped - 0.2 * len(stops), "lost", by_account, "of", stopped)
            check_memory(rests)
            judge(waits, stops)
            ends_in_time(server, random.Random(f"{given.seed} end"))
            refused = [l for l in server.lines if l["level"] == "error" and l["event"] == "request"]
            print("  %d errors logged by requests: %s" % (len(refused), collections.Counter(
                (l["status"], l.get("code")) for l in refused)))


if __name__ == "__main__":
    main()
