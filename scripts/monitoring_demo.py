#!/usr/bin/env python3
"""Runs costd with the two bundled models, Prometheus and Alertmanager on loopback under an uneven load, with a webhook
that receives the alerts, until Ctrl-C or for --seconds N."""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time

import demo_traffic
from monitoring_stack import ROOT, Alertmanager, Prometheus, Webhook

# Four seconds of a busy machine at $0.10 an hour.
BUDGET = "0.0001"


def load(costd, stop, problems):
    """Sends requests in waves until `stop`: three of four users request the large model, the fourth the small one."""
    while not stop.is_set():
        found = demo_traffic.send_traffic(costd, 2, 4)[1]
        if not stop.is_set():  # Ctrl-C also reaches costd
            problems += found
        stop.wait(0.5)


def show(prometheus):
    shares = prometheus.query("sum by (model_name) (increase(model_estimated_cost_dollars_total[24h]))"
                              " / on () group_left () (sum(increase(model_estimated_cost_dollars_total[24h])) > 0)")
    spent = sum(v for _, v in prometheus.query("sum(model_estimated_cost_dollars_total)"))
    text = ", ".join(f"{m['model_name']} {100 * v:.1f} %" for m, v in sorted(shares, key=lambda s: -s[1]))
    print(f"  spent ${spent:.6f} of ${BUDGET}: {text or 'nothing yet'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time; default: at Ctrl-C")
    parser.add_argument("--costd", default=os.path.join(ROOT, "build", "bin", "costd"))
    options = parser.parse_args()
    for program in ("prometheus", "prometheus-alertmanager"):
        if not shutil.which(program):
            raise SystemExit(f"monitoring-demo: {program} is not installed (make deps)")

    stop, problems = threading.Event(), []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def tell(alert):
        print("  webhook: %s %s (%s): %s" % alert, flush=True)

    with tempfile.TemporaryDirectory(prefix="costd-monitoring-") as folder, Webhook(tell) as webhook:
        costd = demo_traffic.Costd(options.costd, "0.10", "--daily-budget=" + BUDGET)
        try:
            with Alertmanager(folder, webhook.url) as alertmanager, Prometheus(
                    folder, [f"127.0.0.1:{costd.port}"], f"127.0.0.1:{alertmanager.port}", wait_for="2s") as prometheus:
                alertmanager.wait()
                prometheus.wait()
                print(f"costd         http://127.0.0.1:{costd.port}/metrics\n"
                      f"Prometheus    {prometheus.url}/alerts   {prometheus.url}/graph\n"
                      f"Alertmanager  {alertmanager.url}\n"
                      f"webhook       {webhook.url}\n"
                      "Grafana       add the Prometheus above as a data source and import "
                      "dashboards/grafana/model-cost.json\n"
                      f"The budget is ${BUDGET} a day, and alerts wait 2 s instead of minutes.\n", flush=True)
                end = time.monotonic() + options.seconds
                # Prometheus sees a counter increase only after its first scrape.
                prometheus.await_answer("model_estimated_cost_dollars_total", len)
                users = threading.Thread(target=load, args=(costd, stop, problems))
                users.start()
                while not stop.wait(min(5, max(0, end - time.monotonic()))) and time.monotonic() < end:
                    show(prometheus)
                stop.set()
                users.join()
        finally:
            status = costd.stop()
    fired = sorted({alert[1] for alert in webhook.received if alert[0] == "firing"})
    print(f"Stopped. Alerts that arrived: {', '.join(fired) or 'none'}.")
    for problem in problems:
        print("monitoring-demo: " + problem, file=sys.stderr)
    return 1 if problems or status else 0


if __name__ == "__main__":
    sys.exit(main())
