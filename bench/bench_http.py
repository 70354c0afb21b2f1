#!/usr/bin/env python3
"""What HTTP adds to the library, measured on costd with real models; prints the tables of results/http-*.md.

    bench/bench_http.py [BUILD]

  delay        from the engine's end of a request, by its own clock, to the client's having read it, with 64
               streams at once: sending, parsing and waking up included
  /metrics     how long a scrape takes while the device never rests, alone and beside wrk and slowhttptest
  idle         resident memory of 2000 connections that have asked once and wait
  throughput   8 clients, against `costinfer bench` with 8 streams; the two alternate, so that what else the
               machine does meets both

The client runs on the same cores.  Seconds are wall time; every figure is worth what the machine's load,
printed with it, allows."""
import http.client
import json
import os
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(HERE))
os.environ["CINF_BUILD"] = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(SOURCE, "build")
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
from costd_support import BUILD, LARGE, Costd  # noqa: E402

ROUNDS = 3


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


def delays(server, streams, tokens):
    """Seconds that each stream's end came later at its client than in the engine."""
    wait = selectors.DefaultSelector()
    data, sent, out = {}, {}, []
    for _ in range(streams):
        s = socket.create_connection(("127.0.0.1", server.port))
        wait.register(s, selectors.EVENT_READ)
        data[s] = b""
    for s in data:
        sent[s] = time.monotonic()
        s.sendall(request({"stream": True, "stream_options": {"include_usage": True}, "max_tokens": tokens}))
    while sent:
        for key, _ in wait.select():
            s = key.fileobj
            data[s] += s.recv(65536)
            if b"[DONE]" in data[s][-64:]:
                took = time.monotonic() - sent.pop(s)
                usage = [line for line in data[s].split(b"\n") if b'"cost"' in line][0]
                cost = json.loads(usage[len("data: "):])["cost"]
                out.append(took - cost["queue_seconds"] - cost["latency_seconds"])
                wait.unregister(s)
                s.close()
    return out


class Load:
    """Clients that keep the device busy with whole completions; counts the tokens they got."""

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


def scrapes(server, seconds):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    out, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        out.append(time.monotonic() - start)
        time.sleep(0.005)
    return out


def measure_scrapes(server):
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


def measure_idle(server, n=2000):
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


def library(model, tokens):
    command = [os.path.join(BUILD, "bin", "costinfer"), "bench", *model, "--json", "--runs", "1", "--seconds", "0",
               "--tokens", str(tokens)]
    seen = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return next(p["tokens_per_second"] for p in seen["parallel"] if p["streams"] == 8)


def measure_throughput(name, folder, tokens, seconds, rounds):
    pairs = []
    for _ in range(rounds):
        with Costd("--model", "m=" + folder) as server:
            before = server.metrics()
            with Load(server, 8, tokens) as load:
                start = time.monotonic()
                time.sleep(seconds)
            wall = time.monotonic() - start
            after = server.settle()
            busy = sum(after[k] - before[k] for k in after if k[0] == "costinfer_device_seconds_total" and
                       ("account", "serve") in k[1])
            pairs.append((load.tokens / wall, library(["--model", folder], tokens), float(busy) / wall))
    ratio = [a / b for a, b, _ in pairs]
    row(name, *["%.0f" % statistics.median(p[i] for p in pairs) for i in (0, 1)],
        "%.2f (%.2f to %.2f)" % (statistics.median(ratio), min(ratio), max(ratio)),
        "%.1f %%" % (100 * statistics.median(p[2] for p in pairs)))


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
    with Costd("--model", "m=" + LARGE, "--kv-memory", "1G") as server:
        slots = server.get("/v1/models/m").json["meta"]["slots"]
        table("streams at once, %d slots" % slots, "p50 ms", "p90 ms", "p99 ms later than the engine")
        for n in (1, 8, 64):
            delays(server, n, 50)
            row(n, *quantiles([d for _ in range(max(ROUNDS, 32 // n)) for d in delays(server, n, 200)]))
        measure_scrapes(server)
    with Costd("--model", "m=" + LARGE) as server:
        measure_idle(server)
    table("model", "costd, 8 clients, tokens/s", "library, 8 streams, tokens/s", "ratio", "device busy")
    measure_throughput("stories-large", LARGE, 64, 2, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        gpt2_layers(folder)
        measure_throughput("GPT-2's layers", folder, 16, 5, 1)
    print("\nload at the end %.1f %.1f %.1f" % os.getloadavg())


main()
