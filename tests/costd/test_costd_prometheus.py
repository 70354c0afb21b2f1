"""A real Prometheus scrapes costd while generation keeps every core busy: up stays 1, and what Prometheus has
counted is what costd says."""
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from costd_support import TWO, Costd, check, equal, run, skip, temp_folder, total

BUSY_SECONDS = 4


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def query(port, expression):
    url = "http://127.0.0.1:%d/api/v1/query?query=%s" % (port, urllib.parse.quote(expression))
    try:
        with urllib.request.urlopen(url, timeout=60) as f:
            return json.load(f)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return []


def scraped_well(port, seconds):
    """Whether a scrape came and was answered in each of the last seconds."""
    count, up = (query(port, "%s_over_time(up[%ds])" % (what, seconds)) for what in ("count", "min"))
    return bool(count and up) and int(count[0]["value"][1]) >= seconds - 1 and up[0]["value"][1] == "1"


def generate_until(server, end, counts):
    while time.monotonic() < end[0]:
        answer = server.generate("large", prompt="Once", max_tokens=60, ignore_eos=True)
        counts.append(answer.json["output_tokens"])


def scraped_while_saturated():
    with temp_folder() as folder, Costd(*TWO, "--cpu-cost-per-hour", "0.10") as server:
        port = free_port()
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w") as f:
            f.write("global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
                    "scrape_configs:\n- job_name: costd\n  static_configs: [{targets: ['127.0.0.1:%d']}]\n"
                    % server.port)
        end, counts = [time.monotonic() + 600], []
        clients = [threading.Thread(target=generate_until, args=(server, end, counts)) for _ in range(6)]
        prometheus = subprocess.Popen(
            ["prometheus", "--config.file=" + config, "--storage.tsdb.path=" + os.path.join(folder, "data"),
             "--web.listen-address=127.0.0.1:%d" % port, "--log.level=error"])
        try:
            deadline = time.monotonic() + 120
            while not query(port, "up"):  # about six seconds after its start
                check(time.monotonic() < deadline, "Prometheus took no sample")
                check(prometheus.poll() is None, "Prometheus ended")
                time.sleep(0.2)
            for c in clients:
                c.start()
            # Other processes may keep Prometheus or costd from running for a second; not ten times in succession.
            for _ in range(10):
                time.sleep(BUSY_SECONDS)
                well = scraped_well(port, BUSY_SECONDS)
                if well:
                    break
            end[0] = 0
            slowest = float(query(port, "max_over_time(scrape_duration_seconds[1m])")[0]["value"][1])
            check(well, "a scrape a second, and up")
            for c in clients:
                c.join()
            mine = server.settle()
            wanted = total(mine, "model_tokens_total", model_name="large", direction="output")
            equal(wanted, sum(counts))
            deadline = time.monotonic() + 120
            while True:
                seen = query(port, 'model_tokens_total{model_name="large",direction="output"}')
                if seen and int(seen[0]["value"][1]) == wanted:
                    break
                check(time.monotonic() < deadline, "Prometheus has", seen, "costd", wanted)
                time.sleep(0.2)
            for label in ("prefill", "decode", "load"):
                seen = query(port, 'model_device_seconds_total{model_name="large",phase="%s"}' % label)
                check(abs(float(seen[0]["value"][1]) - float(total(
                    mine, "model_device_seconds_total", model_name="large", phase=label))) < 1e-9, seen)
            print("  up while busy, the slowest scrape %.0f ms; %d tokens" % (slowest * 1000, wanted))
        finally:
            end[0] = 0
            prometheus.terminate()
            prometheus.wait()


if not shutil.which("prometheus"):
    skip("prometheus is absent")
run(scraped_while_saturated)
