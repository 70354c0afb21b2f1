"""docs/proxies.md as it is written: its two configurations in Debian's nginx and HAProxy.

A server of ours stands in for costd where only the proxy is judged, so that nothing depends on time: it waits until the
client has an event before it sends the next one, and remembers which requests it has got."""
import contextlib
import http.client
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from costd_support import LARGE, SMALL, SOURCE, Costd, check, equal, run, skip, temp_folder, total

NAME = "models.example"
SECONDS = 60  # for what takes a moment


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def document():
    with open(os.path.join(SOURCE, "docs", "proxies.md"), encoding="utf-8") as f:
        return f.read()


def block(language):
    found = re.findall(r"^```%s\n(.*?)^```$" % language, document(), re.S | re.M)
    equal(len(found), 1, language)
    return found[0]


def program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not found:
        skip(name + " is not installed (scripts/setup.sh --all)")
    return found


class Proxy:
    """The document's configuration, with other ports."""

    def __init__(self, kind, a, b, change=lambda text: text):
        self.kind, self.port = kind, free_port()
        self.folder = temp_folder()
        text = change(block(kind))
        for old, new in (("127.0.0.1:8001", "127.0.0.1:%d" % a), ("127.0.0.1:8002", "127.0.0.1:%d" % b),
                         ("listen 8080;", "listen 127.0.0.1:%d;" % self.port),
                         ("bind :8080 ", "bind 127.0.0.1:%d " % self.port)):
            check(text.count(old) <= 1, old)
            text = text.replace(old, new)
        check("127.0.0.1:%d" % self.port in text and "8080" not in text, text)
        self.path = os.path.join(self.folder.name, "configuration")
        os.chmod(self.folder.name, 0o755)
        self.write(text)
        command = {"nginx": lambda: [program("nginx"), "-e", "stderr", "-p", self.folder.name, "-c", self.path],
                   "haproxy": lambda: [program("haproxy"), "-db", "-f", self.path]}[kind]()
        self.log = open(os.path.join(self.folder.name, "log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def write(self, text):
        self.text = text
        if self.kind == "nginx":
            paths = "".join("%s_temp_path %s/%s; " % (name, self.folder.name, name)
                            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            text = ("daemon off; pid %s/pid; worker_processes 1; events { worker_connections 256; }\n"
                    "http { access_log off; %s\n%s}\n" % (self.folder.name, paths, text))
        with open(self.path, "w", encoding="utf-8") as f:
            f.write(text)

    def __enter__(self):
        end = time.monotonic() + SECONDS
        while True:
            try:
                # HAProxy has to have seen a server before it sends anything there.
                if self.ask("GET", "/v1/models")[0] < 500:
                    return self
            except OSError:
                pass
            self.log.seek(0)
            check(self.process.poll() is None and time.monotonic() < end, "no proxy:", self.log.read())
            time.sleep(0.05)

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def ask(self, method, path, body=None, **headers):
        connection = self.connect()
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Host": NAME, "Content-Type": "application/json",
                                **{k.replace("_", "-"): v for k, v in headers.items()}})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class Standin:
    """In the place of a costd.  `answer` gets each POST: a handler with path, body and wfile."""

    def __init__(self, answer=None):
        self.posts, self.connections, self.lock = [], 0, threading.Lock()
        self.answer = answer or (lambda handler: handler.reply(200, b"{}"))
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with outer.lock:
                    outer.connections += 1

            def log_message(self, *_):
                pass

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.reply(200, b"{}")

            def do_POST(self):
                self.body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.lock:
                    outer.posts.append(self.headers["X-Number"])
                outer.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a check that ends when it has seen the status
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


# ---- With the stand-in


def events_arrive_as_they_come(kind):
    """Each one before the next is sent, without costd's X-Accel-Buffering, whether the stream is chunked or ends with
    its connection."""
    got = threading.Semaphore(0)
    n = 20
    chunked = True

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        handler.end_headers()
        for i in range(n):
            event = b"data: %d\n\n" % i
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
            check(got.acquire(timeout=SECONDS), "an event was held back")
        if chunked:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = not chunked

    for chunked in (True, False):
        with Standin(answer) as a, Standin(answer) as b, Proxy(kind, a.port, b.port) as proxy:
            connection = proxy.connect()
            connection.request("POST", "/v1/generate/small", "{}", {"Host": NAME, "Content-Type": "application/json"})
            response = connection.getresponse()
            equal(response.status, 200)
            for i in range(n):
                equal(response.readline(), b"data: %d\n" % i)
                equal(response.readline(), b"\n")
                got.release()
            equal(response.read(), b"")
            connection.close()


def no_post_is_sent_twice(kind):
    """Whatever a server does with it: ends the connection, resets it, answers half or 503.  The client hears of it."""
    def ends(handler):
        handler.close_connection = True

    def resets(handler):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        handler.connection.close()
        handler.close_connection = True

    def half_a_head(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
        handler.close_connection = True

    def half_a_body(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        handler.close_connection = True

    def ending(handler):
        handler.reply(503, b"{}")

    number = itertools.count()
    for answer in (ends, resets, half_a_head, half_a_body, ending):
        with Standin(answer) as a, Standin(answer) as b, Proxy(kind, a.port, b.port) as proxy:
            for _ in range(6):
                with contextlib.suppress(http.client.HTTPException, ConnectionError):
                    status, _ = proxy.ask("POST", "/v1/completions", {}, X_Number=str(next(number)))
                    check(status in (502, 503, 504) or (answer is half_a_body and status == 200), answer, status)
            sent = a.posts + b.posts
            equal(sorted(sent), sorted(set(sent)), answer)
            check(len(sent) >= 1, answer)


def another_server_is_tried_when_none_listens(kind):
    with Standin() as b:
        # A server that is known to be down is not tried.
        def change(text):
            return text.replace(" check inter", " inter").replace("max_fails=1", "max_fails=0")

        with Proxy(kind, free_port(), b.port, change) as proxy:
            for i in range(8):
                equal(proxy.ask("POST", "/v1/completions", {}, X_Number=str(i))[0], 200)
            equal(b.posts, [str(i) for i in range(8)])


def connections_are_kept(kind):
    with Standin() as a, Standin() as b, Proxy(kind, a.port, b.port) as proxy:
        connection = proxy.connect()
        before = a.connections + b.connections
        n = 40
        for _ in range(n):
            connection.request("POST", "/v1/completions", "{}", {"Host": NAME, "X-Number": "1"})
            response = connection.getresponse()
            equal((response.status, response.read()), (200, b"{}"))
        connection.close()
        # HAProxy's checks connect, too.
        made = a.connections + b.connections - before
        check(made < n // 2, made, "connections for", n)


# ---- With costd


def behind(port_of_proxy, request):
    """A socket on which a request has been sent."""
    body = json.dumps(request).encode()
    s = socket.create_connection(("127.0.0.1", port_of_proxy), timeout=SECONDS)
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n" % (NAME.encode(), len(body)) + body)
    return s


def used(server):
    return total(server.metrics(), "model_device_seconds_total")


def a_client_that_leaves_stops_its_bill(kind):
    long = {"model": "large", "prompt": ["Once"] * 8, "n": 8, "max_tokens": 250, "ignore_eos": True}
    model = ["--model", "large=" + LARGE, "--device", "cpu-reference"]
    with Costd(*model, hosts=NAME) as costd, Proxy(kind, costd.port, costd.port) as proxy:
        for stream in (True, False):
            before = total(costd.metrics(), "model_requests_finished_total", finish_reason="client_gone")
            s = behind(proxy.port, {**long, "stream": stream})
            if stream:
                check(s.recv(4096).startswith(b"HTTP/1.1 200"))
            end = time.monotonic() + SECONDS
            while total(costd.metrics(), "model_requests_running") == 0:
                check(time.monotonic() < end, "nothing runs")
            s.close()
            at_close = used(costd)
            m = costd.settle()
            gone = total(m, "model_requests_finished_total", finish_reason="client_gone") - before
            check(gone >= 1, "no client has left:", gone)
            paid = total(m, "model_device_seconds_total") - at_close
            check(paid < 2, kind, "stream" if stream else "whole", "paid for", paid, "s after its client had left")


def answers_are_the_same_through_it(kind):
    with Costd("--model", "small=" + SMALL, hosts=NAME) as costd, Proxy(kind, costd.port, costd.port) as proxy:
        for stream in (False, True):
            ask = {"prompt": "Once upon", "max_tokens": 40, "seed": 3, "stream": stream}
            status, body = proxy.ask("POST", "/v1/completions", ask)
            direct = costd.post("/v1/completions", ask).body

            def text(answer):
                events = [e[6:] for e in answer.decode().split("\n\n") if e.startswith("data: {")]
                parts = events if stream else [answer]
                return "".join(choice["text"] for p in parts for choice in json.loads(p)["choices"])

            equal(status, 200)
            equal(text(body), text(direct))
        status, _ = proxy.ask("POST", "/v1/completions", {"prompt": "x" * 900000, "max_tokens": 1})
        equal(status, 400)  # too long for the model, and not for the proxy
        # The name of the client arrives, and only the one that is listed is accepted.
        equal(proxy.ask("GET", "/v1/models", Host=NAME)[0], 200)
        status, body = proxy.ask("GET", "/v1/models", Host="other.example")
        equal((status, json.loads(body)["error"]["code"]), (421, "host_not_allowed"))
        line = costd.await_log(lambda l: l.get("path") == "/v1/completions")
        check(re.fullmatch(r"[0-9a-f-]{32,36}", line["request_id"]), line)


def the_default_name_of_nginx():
    """Without `proxy_set_header Host` it sends the name of the upstream block; the 421 says that and the setting."""
    def change(text):
        return re.sub(r"proxy_set_header Host.*\n", "\n", text)

    for hosts, wanted in ((NAME, 421), ("costd", 200)):
        with Costd("--model", "small=" + SMALL, hosts=hosts) as costd, \
                Proxy("nginx", costd.port, costd.port, change) as proxy:
            status, body = proxy.ask("GET", "/v1/models")
            equal(status, wanted)
            if wanted == 421:
                message = json.loads(body)["error"]["message"]
                check('"costd"' in message and "--allow-host" in message and "docs/proxies.md" in message, message)
                check(message in document(), "the document has another text than", message)


def stopping(kind, flags, stop):
    """One of two ends under load, and no client notices."""
    model = ["--model", "small=" + SMALL, *flags]
    failed, done = [], threading.Event()
    with Costd(*model, hosts=NAME) as a, Costd(*model, hosts=NAME) as b, Proxy(kind, a.port, b.port) as proxy:
        def load():
            while not done.is_set():
                try:
                    status = proxy.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})[0]
                except (OSError, http.client.HTTPException) as e:
                    status = e
                if status != 200:
                    failed.append(status)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for server in (a, b):
                server.await_log(lambda l: l["event"] == "request" and l["status"] == 200)
            stop(proxy, a)
            equal(a.process.wait(SECONDS), 0)
            n = len(b.requests_logged())
            while len(b.requests_logged()) < n + 20:
                time.sleep(0.02)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        equal(failed, [], "requests failed")


def haproxy_sees_the_end_coming():
    flags = re.search(r"--shutdown-delay \d+", block("sh"))[0].split()
    stopping("haproxy", flags, lambda proxy, costd: costd.signal(signal.SIGTERM))


def nginx_is_told():
    def stop(proxy, costd):
        line = "server 127.0.0.1:%d" % costd.port
        proxy.write(proxy.text.replace(line, line + " down"))
        proxy.process.send_signal(signal.SIGHUP)
        n = -1
        while n != len(costd.requests_logged()):  # until its log is quiet
            n = len(costd.requests_logged())
            time.sleep(1)
        costd.signal(signal.SIGTERM)

    stopping("nginx", [], stop)


def the_flags_are_flags():
    """Of the document, all of them."""
    manual = subprocess.run([os.path.join(os.environ.get("CINF_BUILD", os.path.join(SOURCE, "build")), "bin", "costd"),
                             "--help"], capture_output=True, text=True, check=True).stdout
    for flag in sorted(set(re.findall(r"--[a-z][a-z-]+", document()))):
        check(flag + " " in manual, flag)


def of(kind, *tests):
    named = []
    for test in tests:
        def call(test=test):
            test(kind)
        call.__name__ = kind + ": " + test.__name__
        named.append(call)
    return named


if __name__ == "__main__":
    both = (events_arrive_as_they_come, no_post_is_sent_twice, another_server_is_tried_when_none_listens,
            connections_are_kept, answers_are_the_same_through_it, a_client_that_leaves_stops_its_bill)
    chosen = [the_flags_are_flags, *of("nginx", *both), the_default_name_of_nginx, nginx_is_told, *of("haproxy", *both),
              haproxy_sees_the_end_coming]
    words = sys.argv[1:]
    run(*[t for t in chosen if not words or any(w in t.__name__ for w in words)])
