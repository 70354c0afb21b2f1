#!/usr/bin/env python3
"""The demonstration: an alert reaches the webhook, Ctrl-C ends everything, and nothing is left behind."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading

from monitoring_support import COSTD, SOURCE, check, need, skip

need("prometheus", "prometheus-alertmanager")
if not os.path.exists(COSTD):
    skip(COSTD + " is absent")

demo = subprocess.Popen([sys.executable, os.path.join(SOURCE, "scripts", "monitoring_demo.py"), "--seconds", "90",
                         "--costd", COSTD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                        start_new_session=True)
watch = threading.Timer(120, demo.kill)
watch.start()
said = ""
for line in demo.stdout:
    said += line
    if "webhook: firing DailyCostOverBudget" in line:
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        break
rest, errors = demo.communicate()
watch.cancel()
said += rest
print(said)
check("firing DailyCostOverBudget" in said, "no alert arrived", errors)
check(demo.returncode == 0 and not errors, "status", demo.returncode, errors)
check(re.search(r"^Stopped\. Alerts that arrived: .*DailyCostOverBudget", rest, re.M), rest)
ports = [int(p) for p in re.findall(r"^\w+ +http://127\.0\.0\.1:(\d+)", said, re.M)]
check(len(ports) == 4, "addresses:", ports)
for port in ports:
    with socket.socket() as s:
        check(s.connect_ex(("127.0.0.1", port)) != 0, "a server still listens on", port)
