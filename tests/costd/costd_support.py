"""What the tests of costd share: starting the real binary, talking to it, reading its log and metrics.

Numbers are read as Decimal, so that nine decimals of seconds are exact nanoseconds."""
import concurrent.futures
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from decimal import Decimal

SOURCE = os.environ.get("CINF_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("CINF_BUILD", os.path.join(SOURCE, "build"))
COSTD = os.path.join(BUILD, "bin", "costd")
MODELS = os.path.join(SOURCE, "examples", "models")
SMALL = os.path.join(MODELS, "stories-small")
LARGE = os.path.join(MODELS, "stories-large")
TWO = ["--model", "small=" + SMALL, "--model", "large=" + LARGE]
DEVICE = os.environ.get("COSTD_TEST_DEVICE")  # another device than the default

CANARY = "canary-7f3a"  # stands in prompts; must never stand in a log


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


for path in (COSTD, SMALL, LARGE):
    if not os.path.exists(path):
        skip(path + " is absent")


def check(condition, *what):
    """An assertion that says what it saw."""
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what)[:4000])


def equal(seen, wanted, what=""):
    check(seen == wanted, what, "saw", repr(seen), "wanted", repr(wanted))


def ns(seconds):
    """Exact nanoseconds of a decimal number of seconds."""
    value = Decimal(seconds) * 10**9
    check(value == int(value), "not whole nanoseconds:", seconds)
    return int(value)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body, parse_float=Decimal)

    @property
    def error(self):
        return self.json["error"]

    @property
    def events(self):
        """The data of a server-sent stream; [DONE] stays text, and pings of silent moments are left out."""
        out = []
        for block in self.body.decode().split("\n\n"):
            if block and block != ": ping":
                check(block.startswith("data: "), "not an event:", block)
                data = block[len("data: "):]
                out.append(data if data == "[DONE]" else json.loads(data, parse_float=Decimal))
        return out


class Costd:
    """The daemon on a free port.  Its log is checked to be JSON, line by line, and free of the canary."""

    def __init__(self, *arguments, wait=True, env=None, prefix=(), hosts="a,b,x,smuggled"):
        command = [*prefix, COSTD, "--listen", "127.0.0.1:0", *(["--allow-host", hosts] if hosts else []), *arguments]
        if DEVICE and "--device" not in arguments:
            command += ["--device", DEVICE]
        self.lines, self.raw = [], []
        self.arrived = threading.Condition()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        env={**os.environ, **(env or {})})
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        try:
            self.port = self.await_log(lambda l: l["event"] == "listening")["port"]
            if wait:
                self.await_log(lambda l: l["event"] == "ready")
        except AssertionError:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.process.kill()
        self.process.wait()

    def _read_log(self):
        for raw in self.process.stderr:
            with self.arrived:
                self.raw.append(raw)
                try:
                    self.lines.append(json.loads(raw, parse_float=Decimal))
                except ValueError:
                    sys.stderr.write(raw.decode(errors="replace"))
                self.arrived.notify_all()
        with self.arrived:
            self.raw.append(b"")
            self.arrived.notify_all()

    def await_log(self, wanted, seconds=300):
        """The first line that is wanted, waiting for it."""
        end = time.monotonic() + seconds
        at = 0
        with self.arrived:
            while True:
                for line in self.lines[at:]:
                    if wanted(line):
                        return line
                at = len(self.lines)
                check(not (self.raw and self.raw[-1] == b""), "costd ended:", self.lines[-3:])
                check(time.monotonic() < end, "the log's line did not come:", self.lines[-3:])
                self.arrived.wait(0.5)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, code=0):
        self.process.send_signal(signal.SIGTERM)
        self.ended(code)

    def ended(self, code=0):
        equal(self.process.wait(300), code, "exit status")
        self.reader.join(10)
        for raw in self.raw:
            check(not raw or raw.startswith(b"{"), "not a line of the log:", raw)
            check(CANARY.encode() not in raw, "a prompt in the log:", raw)
        equal(len(self.lines), sum(1 for raw in self.raw if raw), "lines of JSON")

    def requests_logged(self, at_least=0):
        """The lines of requests, waiting for so many: a line follows the end of its request, and is written by a
        thread of its own."""
        end = time.monotonic() + 60
        with self.arrived:
            while True:
                lines = [line for line in self.lines if line["event"] == "request"]
                if len(lines) >= at_least:
                    return lines
                check(time.monotonic() < end, "only", len(lines), "requests were logged")
                self.arrived.wait(0.5)

    # ---- HTTP

    def ask(self, method, path, body=None, headers=None, timeout=300):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        check(reply.headers.get("x-request-id", "").startswith("req-"), "no x-request-id:", reply.headers)
        if reply.status >= 400 and method != "HEAD":
            equal(set(reply.error), {"message", "type", "param", "code"}, "error object")
        return reply

    def get(self, path, **headers):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, headers)

    def generate(self, model, **fields):
        reply = self.post("/v1/generate/" + model, {"prompt": "Hello", **fields})
        equal(reply.status, 200, reply.body)
        return reply

    def complete(self, **fields):
        reply = self.post("/v1/completions", {"prompt": "", **fields})
        equal(reply.status, 200, reply.body)
        return reply

    def raw_exchange(self, data, seconds=60):
        """Sends bytes; everything that comes back until the server closes, or is silent for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as s:
            s.sendall(data)
            out = b""
            try:
                while True:
                    part = s.recv(65536)
                    if not part:
                        return out
                    out += part
            except (socket.timeout, ConnectionResetError):
                return out

    def open_stream(self, model, **fields):
        """A socket on which a stream has begun."""
        body = json.dumps({"prompt": "Hello", "stream": True, **fields}).encode()
        s = socket.create_connection(("127.0.0.1", self.port), timeout=300)
        s.sendall(b"POST /v1/generate/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % (model.encode(), len(body)) + body)
        return s

    def metrics(self):
        """{(name, ((label, value), …)): Decimal} of the page in text format."""
        return parse_metrics(self.get("/metrics").body.decode())

    def asleep(self):
        """Whether every thread of the daemon waits for something else than a processor.  One that computes is
        runnable however few processors it gets, so a starved daemon is not taken for one that has paused."""
        folder = "/proc/%d/task" % self.process.pid
        for thread in os.listdir(folder):
            try:
                with open("%s/%s/stat" % (folder, thread)) as f:
                    if f.read().rpartition(")")[2].split()[0] in "RD":
                        return False
            except OSError:  # the thread has ended since it was listed
                return False
        return True

    def settle(self, seconds=300, log_is_whole=True):
        """Waits until nothing runs and the log has a line for every call that was answered; the metrics then."""
        end = time.monotonic() + seconds
        while True:
            m = self.metrics()
            if all(v == 0 for (name, _), v in m.items()
                   if name in ("model_requests_running", "model_requests_waiting")):
                if log_is_whole:
                    self.requests_logged(at_least=total(m, "costd_http_calls_total"))
                return m
            check(time.monotonic() < end, "requests do not end")
            time.sleep(0.02)


def parse_metrics(text):
    out = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        labels = ()
        if rest:
            inside, _, value = rest.rpartition("} ")
            labels = tuple(sorted((k, v.strip('"')) for k, v in (p.split("=", 1) for p in inside.split(","))))
        else:
            name, _, value = line.partition(" ")
        check((name, labels) not in out, "twice:", line)
        out[(name, labels)] = Decimal(value)
    return out


def total(metrics, name, **labels):
    """The sum of a family's samples that have these labels."""
    return sum(v for (n, l), v in metrics.items() if n == name and labels.items() <= dict(l).items())


def reset(s):
    """Closes with RST instead of FIN."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def in_time(seconds, measure, what, tries=10):
    """Checks that what is measured takes less than so many seconds.  One time that is too long may be the scheduler's
    doing on a busy machine; ten of them are costd's."""
    seen = []
    while len(seen) < tries:
        seen.append(measure())
        if seen[-1] < seconds:
            return
    raise AssertionError("%s took %s s, and should take less than %s" % (what, seen, seconds))


def together(*tasks):
    """Runs functions that mostly wait concurrently; returns their results in order, or raises the first failure."""
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        return [done.result() for done in [pool.submit(task) for task in tasks]]


def run(*tests, at_once=False):
    """Runs the functions of a script, naming each with its time."""
    if DEVICE:
        listed = subprocess.run([os.path.join(BUILD, "bin", "costinfer"), "devices", "--json"], capture_output=True)
        if not any(d["choice"].startswith(DEVICE) for d in json.loads(listed.stdout)):
            print("skipped: there is no device", DEVICE)
            sys.exit(77)

    def timed(test):
        start = time.monotonic()
        test()
        print("%-50s %6.2f s" % (test.__name__, time.monotonic() - start), flush=True)

    if at_once:
        together(*(lambda test=test: timed(test) for test in tests))
    else:
        for test in tests:
            timed(test)


def expected(folder):
    with open(os.path.join(folder, "expected.json")) as f:
        return json.load(f)["cases"]


def run_costd(*arguments):
    """One that ends by itself: exit status, stdout, stderr."""
    p = subprocess.run([COSTD, *arguments], capture_output=True, text=True, timeout=300)
    return p.returncode, p.stdout, p.stderr


def sanitized():
    """Whether costd is built with a sanitizer: it has its own malloc, and memory says nothing."""
    linked = subprocess.run(["ldd", COSTD], capture_output=True).stdout
    return b"libasan" in linked or b"libtsan" in linked


def temp_folder():
    return tempfile.TemporaryDirectory(prefix="costd-test-")
