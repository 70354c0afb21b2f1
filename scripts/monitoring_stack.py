"""Runs Prometheus and Alertmanager on loopback with the files of dashboards/ and short intervals, for the demonstration
and the tests."""
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = os.path.join(ROOT, "dashboards", "prometheus")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def replaced(text, *pairs):
    for pattern, new in pairs:
        text, n = re.subn(pattern, lambda m, new=new: new, text)
        if n == 0:
            raise SystemExit(f"monitoring: no file contains {pattern} any more")
    return text


class Program:
    """A server as a child process, which ends with the `with` block."""

    def __init__(self, name, port, *command):
        self.name, self.port, self.url = name, port, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C stops the caller, which stops this

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path, **fields):
        query = "?" + urllib.parse.urlencode(fields) if fields else ""
        with urllib.request.urlopen(self.url + path + query, timeout=10) as f:
            return f.read()

    def wait(self, seconds=30):
        """Waits until it answers /-/ready."""
        end = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"monitoring: {self.name} ended with {self.process.returncode}")
            try:
                self.get("/-/ready")
                return self
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > end:
                    raise SystemExit(f"monitoring: {self.name} did not become ready") from None
                time.sleep(0.1)


class Prometheus(Program):
    """Scrapes `targets` ("HOST:PORT", …) as job costd, every second, with the shipped configuration and rules.
    wait_for: the time for which alerts wait instead of minutes, such as "2s"."""

    def __init__(self, folder, targets, alertmanager=None, wait_for=None):
        port = free_port()
        with open(os.path.join(FILES, "prometheus.yml"), encoding="utf-8") as f:
            config = replaced(f.read(), ("scrape_interval: 15s", "scrape_interval: 1s"),
                              ("scrape_timeout: 10s", "scrape_timeout: 1s"),
                              ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                              ("'alertmanager:9093'", f"'{alertmanager}'" if alertmanager else ""),
                              ("'costd:8000'", ", ".join(f"'{t}'" for t in targets)))
        with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf-8") as f:
            f.write(config)
        for name in ("recording-rules.yml", "alert-rules.yml"):
            with open(os.path.join(FILES, name), encoding="utf-8") as f:
                rules = f.read()
            if wait_for and name == "alert-rules.yml":
                rules = replaced(rules, (r"for: \d+m", f"for: {wait_for}"))
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(rules)
        super().__init__("prometheus", port, "prometheus", "--config.file=" + os.path.join(folder, "prometheus.yml"),
                         "--storage.tsdb.path=" + os.path.join(folder, "prometheus"),
                         f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=1d",
                         "--log.level=error")

    def query(self, expression, at=None):
        """Returns [(labels, value)]; ValueError with Prometheus's message if it refuses the query."""
        fields = {"query": expression, **({"time": repr(at)} if at else {})}
        try:
            data = json.loads(self.get("/api/v1/query", **fields))["data"]
        except urllib.error.HTTPError as e:
            raise ValueError(json.load(e).get("error", "refused")) from None
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(r["metric"], float(r["value"][1])) for r in data["result"]]

    def await_answer(self, expression, wanted, seconds=30):
        """Waits until wanted(answer) is true, and returns the answer."""
        end = time.monotonic() + seconds
        while True:
            answer = self.query(expression)
            if wanted(answer):
                return answer
            if time.monotonic() > end:
                raise SystemExit(f"monitoring: {expression} stays {answer}")
            time.sleep(0.2)


class Alertmanager(Program):
    def __init__(self, folder, webhook):
        port = free_port()
        path = os.path.join(folder, "alertmanager.yml")
        with open(path, "w", encoding="utf-8") as f:
            f.write("route: {receiver: here, group_by: [alertname], group_wait: 1s, group_interval: 2s}\n"
                    f"receivers: [{{name: here, webhook_configs: [{{url: '{webhook}'}}]}}]\n")
        super().__init__("alertmanager", port, "prometheus-alertmanager", "--config.file=" + path,
                         "--storage.path=" + os.path.join(folder, "alertmanager"),
                         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=error")


class Webhook:
    """Receives Alertmanager's alerts; received: [(status, alertname, severity, summary)]."""

    def __init__(self, tell=lambda alert: None):
        self.received = received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()
                for a in body["alerts"]:
                    alert = (a["status"], a["labels"]["alertname"], a["labels"]["severity"],
                             a["annotations"]["summary"])
                    received.append(alert)
                    tell(alert)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
