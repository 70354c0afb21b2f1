#!/usr/bin/env python3
"""Measures what HTTP adds to the library, on costd with real models; prints the tables of results/http-*.md.

    bench/bench_http.py [--build BUILD] [--gpt2 FOLDER] [--llama SERVER --gguf FILE] [PART ...]

  delay        the time from the moment the engine publishes a token until its client has read it, with 1, 8 and 64
               concurrent streams.  costd_timed, which is costd with token_times.c, records the first moment,
               http_client the second; both use the machine's monotonic clock
  scrapes      how long GET /metrics takes while the device is always busy, alone and beside wrk and slowhttptest
  slow         the tokens/s of 16 clients beside slow headers, slow bodies, slow readers and wrk
  idle         the resident memory of 2000 connections that wait after one request
  throughput   8 clients of costd against 8 threads on the library (bench_streams), alternating
  llama        8 clients of costd against the same clients of llama-server, alternating

Without a PART, all but the last run.  --gpt2 is a folder with GPT-2's weights; without it, weights are synthetic.  The
clients run on the same cores.  Seconds are wall time.  Every figure depends on the machine's load, which is printed
with it."""
import argparse
import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(HERE))
PARTS = ("delay", "scrapes", "slow", "idle", "throughput")
arguments = argparse.ArgumentParser()
arguments.add_argument("--build", default=os.path.join(SOURCE, "build"))
arguments.add_argument("--gpt2")
arguments.add_argument("--llama")
arguments.add_argument("--gguf")
arguments.add_argument("--weights", default="f32")
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("parts", nargs="*", metavar="PART", default=PARTS)
arguments = arguments.parse_args()
os.environ["CINF_BUILD"] = os.path.abspath(arguments.build)
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
import costd_support  # noqa: E402
from costd_support import BUILD, LARGE, Costd  # noqa: E402

BIN = os.path.join(BUILD, "bin")
TIMES = struct.Struct("QQQ")  # seed, events so far, nanoseconds: a record of token_times.c and of http_client
RECORDS = 1 << 20
NO_GUESSES = ["--no-speculation"]  # nor do the others: a token is a step


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def table(*head):
    print()
    row(*head)
    row(*["---"] * len(head))


def quantiles(values):
    values = sorted(values)
    return ["%.2f" % (1000 * values[min(len(values) - 1, int(q * len(values)))]) for q in (0.5, 0.9, 0.99)]


def request(fields):
    body = json.dumps({"model": "m", "prompt": "Once upon a time", "temperature": 0, "ignore_eos": True,
                       **fields}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)) + body


def http_client(port, streams, tokens, requests, *events):
    """Returns what http_client prints, with its processor time."""
    before = os.times()
    ran = subprocess.run([os.path.join(BIN, "http_client"), str(port), "m", str(streams), str(tokens), str(requests),
                          *events], stdout=subprocess.PIPE, check=True)
    after = os.times()
    out = json.loads(ran.stdout)
    out["client"] = after.children_user + after.children_system - before.children_user - before.children_system
    out["rate"] = out["tokens"] / out["seconds"]
    return out


def delays(server, folder, streams, tokens):
    """Returns, for each token, the seconds from leaving the engine to arriving at its client."""
    times, events = os.path.join(folder, "times"), os.path.join(folder, "events")
    with open(times, "r+b") as f:
        f.write(bytes(8))
    http_client(server.port, streams, tokens, 1, events)
    with open(times, "rb") as f:
        n = struct.unpack("Q", f.read(8))[0]
        handed = {}
        for seed, so_far, ns in TIMES.iter_unpack(f.read(TIMES.size * n)):
            handed.setdefault(seed, []).append((so_far, ns))
    out, at = [], {}
    with open(events, "rb") as f:
        for seed, number, ns in TIMES.iter_unpack(f.read()):
            i = at.get(seed, 0)
            while handed[seed][i][0] < number:
                i += 1
            at[seed] = i
            out.append((ns - handed[seed][i][1]) / 1e9)
    return out


def measure_delay():
    name, folder = ("GPT-2", arguments.gpt2) if arguments.gpt2 else ("stories-large", LARGE)
    plain, costd_support.COSTD = costd_support.COSTD, os.path.join(BIN, "costd_timed")
    table(name + ": concurrent streams", "tokens", "p50 ms", "p90 ms", "p99 ms later than the engine",
          "quietest round's",
          "client's share of a core")
    with tempfile.TemporaryDirectory() as scratch:
        with open(os.path.join(scratch, "times"), "wb") as f:
            f.truncate(8 + TIMES.size * RECORDS)
        with Costd("--model", "m=" + folder, "--slots", "64", "--kv-memory", "6G",
                   env={"TOKEN_TIMES": os.path.join(scratch, "times")}) as server:
            for streams in (1, 8, 64):
                tokens = 24 if arguments.gpt2 else 200
                http_client(server.port, streams, tokens, 1)
                rounds = [delays(server, scratch, streams, tokens) for _ in range(arguments.rounds)]
                quietest = min(rounds, key=statistics.median)
                client = http_client(server.port, streams, tokens, 1)
                row(streams, sum(map(len, rounds)), *quantiles(sum(rounds, [])), " / ".join(quantiles(quietest)),
                    "%.0f %%" % (100 * client["client"] / client["seconds"]))
    costd_support.COSTD = plain


class Load:
    """Clients that keep the device busy with whole completions, and the number of their tokens."""

    def __init__(self, server, clients, tokens):
        self.server, self.fields, self.tokens = server, {"max_tokens": tokens}, 0
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        body = request(self.fields).partition(b"\r\n\r\n")[2]
        while not self.stop.is_set():
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            usage = json.loads(connection.getresponse().read())["usage"]
            with self.lock:
                self.tokens += usage["completion_tokens"]


def scrapes(server, seconds, path="/metrics"):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    out, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        connection.request("GET", path)
        connection.getresponse().read()
        out.append(time.monotonic() - start)
        time.sleep(0.005)
    return out


def measure_scrapes():
    with Costd("--model", "m=" + LARGE) as server:
        measure_scrapes_of(server)


def measure_scrapes_of(server):
    url = "http://localhost:%d" % server.port
    table("/metrics while 16 clients generate, and beside them", "scrapes", "p50 ms", "p90 ms", "p99 ms")
    beside = [("nothing", None),
              ("wrk, 64 connections to /health", ["wrk", "-t1", "-c64", "-d5", url + "/health"]),
              ("slowhttptest -H, 500 connections",
               ["slowhttptest", "-H", "-c", "500", "-r", "250", "-i", "2", "-l", "5", "-u", url + "/health"])]
    with Load(server, 16, 200):
        for name, command in beside:
            if command and not shutil.which(command[0]):
                row(name, "not installed", "", "", "")
                continue
            process = command and subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seen = scrapes(server, 4)
            if process:
                process.wait()
            row(name, len(seen), *quantiles(seen))


def resident(server):
    with open("/proc/%d/statm" % server.process.pid) as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_slow():
    """Measures 16 clients, alternately alone and beside each disturbance, and whether /health is still answered."""
    with Costd("--model", "m=" + LARGE) as server:
        url = "http://localhost:%d" % server.port
        table("16 clients generate, and beside them", "tokens/s", "of the rate alone", "/health answered", "p99 ms")
        slow = ["slowhttptest", "-c", "500", "-r", "250", "-l", "6"]
        beside = [("slow headers", [*slow, "-H", "-i", "2", "-u", url + "/health"]),
                  ("slow bodies", [*slow, "-B", "-i", "2", "-s", "8192", "-u", url + "/v1/completions"]),
                  ("slow readers", [*slow, "-X", "-w", "1", "-y", "8", "-n", "2", "-z", "4", "-k", "3", "-u",
                                    url + "/openapi.json"]),
                  ("wrk, 64 connections to /health", ["wrk", "-t1", "-c64", "-d6", url + "/health"])]
        with Load(server, 16, 200) as load:
            time.sleep(1)
            for name, command in beside:
                if not shutil.which(command[0]):
                    row(name, "not installed", "", "", "")
                    continue
                alone, _ = rate_beside(server, load, None)
                with tempfile.TemporaryDirectory() as scratch:
                    process = subprocess.Popen(command, cwd=scratch, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL)
                    rate, asked = rate_beside(server, load, process)
                    process.wait()
                row(name, "%.0f" % rate, "%.2f" % (rate / alone), len(asked), quantiles(asked)[2])


def rate_beside(server, load, process):
    """Returns tokens a second over four seconds, and how long each GET /health took in that time."""
    time.sleep(1 if process else 0)
    tokens, start = load.tokens, time.monotonic()
    asked = scrapes(server, 4, "/health")
    return (load.tokens - tokens) / (time.monotonic() - start), asked


def measure_idle(n=2000):
    with Costd("--model", "m=" + LARGE) as server:
        measure_idle_of(server, n)


def measure_idle_of(server, n):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 10000), most))
    before, connections = resident(server), []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        s.recv(4096)
        connections.append(s)
    table("idle connections", "resident memory before", "after", "each")
    after = resident(server)
    row(n, "%.1f MB" % (before / 1e6), "%.1f MB" % (after / 1e6), "%.1f KB" % ((after - before) / n / 1e3))
    for s in connections:
        s.close()


class Library:
    """bench_streams, which uses the library directly, one round at a time."""

    def __init__(self, folder, streams, tokens, requests):
        self.process = subprocess.Popen([os.path.join(BIN, "bench_streams"), folder, arguments.weights, str(streams),
                                         str(tokens), str(requests)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def round(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        out = json.loads(self.process.stdout.readline())
        out["rate"] = out["tokens"] / out["seconds"]
        return out

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Llama:
    """llama-server with a slot of sufficient context for each client, on as many threads as costd."""

    def __init__(self, streams):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([arguments.llama, "-m", arguments.gguf, "--port", str(self.port), "-np",
                                         str(streams), "-c", str(1024 * streams), "-t", str(os.cpu_count()),
                                         "--no-webui"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:%d/health" % self.port).read()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.1)

    def close(self):
        self.process.terminate()
        self.process.wait()


def spread(values, form="%.2f"):
    return (form + " (" + form + " to " + form + ")") % (statistics.median(values), min(values), max(values))


def take_turns(name, server, other, streams=8, tokens=64, requests=2):
    """Runs one warm-up round of each, then pairs of rounds in alternating order."""
    ours, theirs = lambda: http_client(server.port, streams, tokens, requests), other
    ours(), theirs()
    pairs = []
    for i in range(arguments.rounds):
        a, b = (ours(), theirs()) if i % 2 == 0 else reversed((theirs(), ours()))
        pairs.append((a, b))
    row(name, *[spread([p[i]["rate"] for p in pairs], "%.0f") for i in (0, 1)],
        spread([a["rate"] / b["rate"] for a, b in pairs]),
        *["%.0f" % (1000 * statistics.median(p[i]["first_p95"] for p in pairs)) for i in (0, 1)])


def measure_throughput():
    table("8 clients, 64 tokens each", "costd, tokens/s", "library, tokens/s", "ratio of a round",
          "costd, first token p95 ms", "library")
    with tempfile.TemporaryDirectory() as made_up:
        models = [("stories-large", LARGE, 24)]
        if not arguments.gpt2:
            gpt2_layers(made_up)
        models.append(("GPT-2, " + arguments.weights, arguments.gpt2 or made_up, 2))
        for name, folder, requests in models:
            with contextlib.closing(Library(folder, 8, 64, requests)) as library, \
                    Costd("--model", "m=" + folder, "--device", "cpu", "--weights", arguments.weights,
                          *NO_GUESSES) as server:
                take_turns(name, server, library.round, requests=requests)


def measure_llama():
    table("8 clients, 64 tokens each", "costd, tokens/s", "llama-server, tokens/s", "ratio of a round",
          "costd, first token p95 ms", "llama-server")
    with contextlib.closing(Llama(8)) as llama, \
            Costd("--model", "m=" + arguments.gpt2, "--device", "cpu", "--weights", arguments.weights,
                  *NO_GUESSES) as server:
        take_turns("%s, %s" % (arguments.weights, os.path.basename(arguments.gguf)), server,
                   lambda: http_client(llama.port, 8, 64, 2))


def gpt2_layers(folder):
    """A checkpoint with the layers of GPT-2 (12 of 768), random weights, and the demo's tokenizer."""
    import numpy
    with open(os.path.join(LARGE, "config.json")) as f:
        config = json.load(f)
    config.update(n_layer=12, n_embd=768, n_head=12, n_positions=1024, n_ctx=1024, n_inner=None)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(os.path.join(LARGE, name), folder)
    shapes = {"wte.weight": [config["vocab_size"], 768], "wpe.weight": [1024, 768], "ln_f.weight": [768],
              "ln_f.bias": [768]}
    for i in range(12):
        for name, shape in (("ln_1.weight", [768]), ("ln_1.bias", [768]), ("ln_2.weight", [768]),
                            ("ln_2.bias", [768]), ("attn.c_attn.weight", [768, 2304]), ("attn.c_attn.bias", [2304]),
                            ("attn.c_proj.weight", [768, 768]), ("attn.c_proj.bias", [768]),
                            ("mlp.c_fc.weight", [768, 3072]), ("mlp.c_fc.bias", [3072]),
                            ("mlp.c_proj.weight", [3072, 768]), ("mlp.c_proj.bias", [768])):
            shapes["h.%d.%s" % (i, name)] = shape
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chance = numpy.random.default_rng(1)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            f.write((chance.standard_normal(shape, numpy.float32) * 0.02).astype(numpy.float16).tobytes())


def main():
    print("%s, %d cores, load %.1f %.1f %.1f" % (time.strftime("%Y-%m-%d"), os.cpu_count(), *os.getloadavg()))
    for part in arguments.parts:
        globals()["measure_" + part]()
    print("\nload at the end %.1f %.1f %.1f" % os.getloadavg())


main()
