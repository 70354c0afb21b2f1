#!/usr/bin/env python3
"""Serves the two bundled models with costd, sends overlapping requests, and prints who used the machine.

    scripts/demo_traffic.py [--seconds 15] [--dollars-per-hour 0.10] [--costd build/bin/costd]

Needs Python's standard library only.  All sums are of integers (nanoseconds) and fractions, so comparisons are exact.
The program reports any sum that is not equal, and then exits with status 1.
"""

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODELS = ("stories-large", "stories-small")
BEGINNINGS = ("Once upon a time", "Long ago, a big bear named", "There was once a shy", "Lily was a brave little",
              "One rainy morning, a small fox", "")


def nanoseconds(text):
    """'1.234567891' seconds as an integer; costd prints nine decimals."""
    return int(Fraction(text) * 10**9)


def dollars(amount):
    """An exact amount with 12 decimals, rounded half up, as costd prints it."""
    units = int(amount * 10**12 + Fraction(1, 2))
    return f"{units // 10**12}.{units % 10**12:012d}"


def seconds(ns):
    return f"{ns // 10**9}.{ns % 10**9:09d}"


class Costd:
    """The daemon on a free loopback port."""

    def __init__(self, program, price, *arguments):
        self.log = tempfile.TemporaryFile("w+")
        folder = os.path.join(ROOT, "examples", "models")
        models = [f"--model={name}={os.path.join(folder, name)}" for name in MODELS]
        self.process = subprocess.Popen([program, *models, "--listen=127.0.0.1:0", f"--cpu-cost-per-hour={price}",
                                         *arguments], stderr=self.log)
        self.port = int(self.wait_for(lambda: self.field("port")))
        self.wait_for(lambda: self.ask("GET", "/ready")[0] == 200)

    def field(self, name):
        self.log.seek(0)
        found = re.search(rf'"event":"listening".*?"{name}":"?([^",}}]*)', self.log.read())
        return found and found[1]

    def wait_for(self, condition):
        for _ in range(600):
            value = condition()
            if value:
                return value
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise SystemExit("demo: costd did not become ready:\n" + self.log.read())

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """{'name{labels}': 'value as printed'}"""
        lines = self.ask("GET", "/metrics")[1].splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.log.close()


def client(costd, number, until, answers, problems):
    """One user: most request long stories of the large model, a few request single lines of the small one."""
    choose = random.Random(number)
    large = number % 4 != 3
    while time.monotonic() < until:
        body = {"prompt": choose.choice(BEGINNINGS), "max_tokens": 120 if large else 30, "temperature": 0.8,
                "top_k": 40, "seed": choose.randrange(1, 10**6)}
        model = MODELS[0] if large else MODELS[1]
        try:
            status, text = costd.ask("POST", f"/v1/generate/{model}", body)
        except OSError as error:
            problems.append(f"{model}: {error}")
            return
        if status != 200:
            problems.append(f"{model}: status {status}: {text[:200]}")
            return
        answers.append(json.loads(text, parse_float=str))
        time.sleep(choose.uniform(0, 0.02) if large else choose.uniform(0.02, 0.2))


def send_traffic(costd, length, clients):
    answers, problems = [], []
    until = time.monotonic() + length
    threads = [threading.Thread(target=client, args=(costd, n, until, answers, problems)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, problems


def model_rows(metrics):
    rows = {}
    for name in MODELS:
        def value(family, labels="", name=name):
            wanted = re.compile(rf'{family}{{model_name="{name}"{labels}}}$')
            return sum(Fraction(v) for k, v in metrics.items() if wanted.match(k))

        rows[name] = {
            "requests": int(value("model_request_total", ",endpoint=.*")),
            "input": int(value("model_tokens_total", ',direction="input"')),
            "output": int(value("model_tokens_total", ',direction="output"')),
            "ns": int(value("model_device_seconds_total", ',phase="(prefill|decode)"') * 10**9),
            "cost": metrics[f'model_estimated_cost_dollars_total{{model_name="{name}"}}'],
        }
    return rows


def print_models(rows):
    total = {key: sum(row[key] for row in rows.values()) for key in ("requests", "input", "output", "ns")}
    print(f"{'model':<15} {'requests':>8} {'tokens in':>10} {'tokens out':>10} {'device seconds':>15} "
          f"{'dollars':>15} {'share':>7}")
    for name, row in rows.items():
        print(f"{name:<15} {row['requests']:>8} {row['input']:>10} {row['output']:>10} {seconds(row['ns']):>15} "
              f"{row['cost']:>15} {100 * row['ns'] / total['ns']:>6.1f}%")
    return total


def check(problems, equal, what):
    if not equal:
        problems.append(f"{what} does not add up")
    return "=" if equal else "IS NOT"


def print_accounts(metrics, price, rows, total, problems):
    def of(family, account, named=re.compile(r'account="(\w+)"')):
        return next(v for k, v in metrics.items()
                    if k.startswith(family + "{") and named.search(k) and named.search(k)[1] == account)

    accounts = {name: nanoseconds(of("costinfer_device_seconds_total", name))
                for name in ("serve", "load", "idle", "lost", "overhead")}
    accounts = {name: ns for name, ns in accounts.items() if ns or name in ("serve", "load", "idle")}
    uptime = nanoseconds(next(v for k, v in metrics.items() if k.startswith("costinfer_device_uptime_seconds")))
    rate = Fraction(price) / 3600 / 10**9  # dollars a nanosecond
    print("\nWhere the time of the machine went\n")
    notes = {"serve": "the two models above", "load": "reading their weights", "idle": "no request active",
             "lost": "the process could not run", "overhead": "CPU time of other threads"}
    for name, ns in accounts.items():
        print(f"  {name:<22} {seconds(ns):>15} s  ${dollars(ns * rate)}   {notes[name]}")
        check(problems, of("costinfer_device_cost_dollars_total", name) == dollars(ns * rate), f"the cost of {name}")
    left = sum(accounts.values())
    sum_of = " + ".join(accounts)
    print(f"  {sum_of:<22} {seconds(left):>15} s  ${dollars(left * rate)}")
    sign = check(problems, left == uptime, sum_of + " = uptime")
    print(f"  {sign + ' uptime x rate':<22} {seconds(uptime):>15} s  ${dollars(uptime * rate)}"
          f"   at ${price} an hour")
    check(problems, total["ns"] == accounts["serve"], "the sum of the models")
    for name, row in rows.items():
        check(problems, row["cost"] == dollars(row["ns"] * rate), f"the cost of {name}")
    return rate


def print_bills(answers, rate, total, problems):
    own = sum(nanoseconds(a["device_seconds"]) for a in answers)
    latency = sum(nanoseconds(a["latency_seconds"]) for a in answers)
    sign = check(problems, own == total["ns"], "the sum of the answers' bills")
    for a in answers:
        if a["estimated_cost_usd"] != dollars(nanoseconds(a["device_seconds"]) * rate):
            check(problems, False, "an answer's cost")
    print(f"\nWhat the {len(answers)} answers said they cost, added up\n")
    print(f"  {'their device seconds':<22} {seconds(own):>15} s  ${dollars(own * rate)}   {sign} serve")
    print(f"  {'their latency x rate':<22} {seconds(latency):>15} s  ${dollars(latency * rate)}"
          f"   {latency / own:.1f} times what they cost")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--dollars-per-hour", default="0.10")
    parser.add_argument("--costd", default=os.path.join(ROOT, "build", "bin", "costd"))
    options = parser.parse_args()

    costd = Costd(options.costd, options.dollars_per_hour)
    try:
        print(f"costd serves {' and '.join(MODELS)} on {costd.field('device')}, {costd.field('threads')} threads;\n"
              f"{options.clients} clients send requests concurrently for {options.seconds:g} seconds ...\n", flush=True)
        answers, problems = send_traffic(costd, options.seconds, options.clients)
        metrics = costd.metrics()
    finally:
        status = costd.stop()
    rows = model_rows(metrics)
    total = print_models(rows)
    rate = print_accounts(metrics, options.dollars_per_hour, rows, total, problems)
    print_bills(answers, rate, total, problems)
    if status != 0:
        problems.append(f"costd ended with status {status}")
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
