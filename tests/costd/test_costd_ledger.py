"""The ledger behind costd: one run, with clients that leave, a change of price, a restart and a crash, and one table of
figures that are all the same, to the nanosecond: the answers, the ledger's rows, its minutes, /metrics and what
`costinfer costs` prints in each of its formats."""
import csv
import http.client
import io
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import tempfile
import time
from decimal import Decimal

from costd_support import TWO, Costd, check, equal, ns, reset, run, total

CLI = pathlib.Path(os.environ["CINF_BUILD"]) / "bin/costinfer"
PRICES = ["--cpu-cost-per-hour", "0.10"]


def costinfer(*arguments):
    done = subprocess.run([CLI, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def verify(path):
    status, output = costinfer("ledger", "verify", "--ledger", path)
    equal((status, output), (0, f"{path}: everything adds up\n"))


def costs(path, *arguments):
    status, output = costinfer("costs", "--ledger", path, "--format", "json", *arguments)
    equal(status, 0)
    return json.loads(output)


def rows(path, sql):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


def by_key(sum_, name, kind="serve"):
    return {line[name]: line for line in sum_["lines"] if line["kind"] == kind}


def ask(server, i, **more):
    model = ("small", "large")[i % 2]
    reply = server.complete(model=model, prompt="Once upon a time", max_tokens=5 + i, user=f"user-{i % 3}",
                            metadata={"team": ("red", "blue")[i % 2]}, **more)
    equal(reply.status, 200)
    return model, ns(reply.json["cost"]["device_seconds"]), reply.json["id"]


def private(server, method, where, body=None):
    port = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, where, body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def change_price(server, price):
    """Asks for it, and waits until it is in force."""
    equal(private(server, "PUT", "/admin/price", json.dumps({"dollars_per_hour": price}))[0], 202)
    for _ in range(600):
        metrics = private(server, "GET", "/metrics")[1]
        now = [line.split()[-1] for line in metrics.splitlines()
               if line.startswith("costinfer_price_dollars_per_hour")]
        if (Decimal(now[0]) if now else None) == (Decimal(price) if price else None):
            return
        time.sleep(0.05)
    check(False, "the price does not change")


def wait_for_rows(path, n):
    for _ in range(600):
        if rows(path, "SELECT count(*) FROM requests")[0][0] >= n:
            return
        time.sleep(0.1)
    check(False, f"there are no {n} rows")


def one_run_one_table():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ledger.db")
        answers, serve = [], 0
        for life in range(3):
            server = Costd(*TWO, *PRICES, "--ledger", path)
            with server:
                answers += [ask(server, i) for i in range(6)]
                for _ in range(2):  # clients that leave
                    s = server.open_stream("large", prompt="Once", max_tokens=400, ignore_eos=True)
                    s.recv(200)
                    reset(s)
                answers += [ask(server, i) for i in range(4)]
                metrics = server.settle()
                here = ns(total(metrics, "costinfer_device_seconds_total", account="serve"))
                serve += here
                wait_for_rows(path, 12 * (life + 1))
                verify(path)  # while it is written
                boot = f"boot = {life + 1}"
                equal(rows(path, f"SELECT sum(prefill_ns + decode_ns) FROM requests WHERE {boot}")[0][0], here, "rows")
                equal(rows(path, f"SELECT sum(ns) FROM device_minutes WHERE kind = 0 AND {boot}")[0][0], here, "minutes")
                for model in ("small", "large"):
                    equal(rows(path, f"SELECT sum(ns) FROM device_minutes d JOIN names n ON n.id = d.model WHERE kind = 0 "
                                     f"AND n.name = '{model}' AND {boot}")[0][0],
                          sum(ns(total(metrics, "model_device_seconds_total", model_name=model, phase=phase))
                              for phase in ("prefill", "decode")), model)
                equal(total(metrics, "costd_ledger_up"), 1)
                equal(total(metrics, "costd_ledger_unrecorded_requests_total"), 0)
                if life == 1:
                    os.kill(server.process.pid, signal.SIGKILL)
                    server.process.wait()
        verify(path)
        # What each answer said is in its row.
        kept = dict(rows(path, "SELECT id, prefill_ns + decode_ns FROM requests"))
        for _, device_ns, name in answers:
            equal(kept["req-" + name.removeprefix("cmpl-")], device_ns, name)
        equal(len(kept), 36)
        equal([ended for ended, in rows(path, "SELECT ended FROM boots ORDER BY id")], [1, 2, 1])

        # The same sums from every side.
        whole = costs(path)
        equal(by_key(whole, "kind")["serve"]["device_ns"], serve)
        left = serve - sum(device_ns for _, device_ns, _ in answers)
        for names in ("model", "payer", "user", "endpoint", "tag:team", "model,payer,user,endpoint"):
            answer = costs(path, "--by", names)
            equal(answer["cost_dollars"], whole["cost_dollars"], names)
            equal(sum(line["device_ns"] for line in answer["lines"]), whole["device_ns"], names)
            equal(sum(Decimal(line["cost_dollars"]) for line in answer["lines"]), Decimal(whole["cost_dollars"]), names)
            equal(sum(line["device_ns"] for line in answer["lines"] if line["kind"] == "serve"), serve, names)
        users = by_key(costs(path, "--by", "user"), "user")
        equal(users[None]["device_ns"], left, "of clients that left")
        teams = by_key(costs(path, "--by", "tag:team"), "tag:team")
        for team, model in (("red", "small"), ("blue", "large")):
            equal(teams[team]["device_ns"], sum(device_ns for m, device_ns, _ in answers if m == model), team)
        usage = costs(path, "--by", "model", "--idle", "usage")
        equal(sum(Decimal(line["cost_dollars"]) for line in usage["lines"]), Decimal(whole["cost_dollars"]), "usage")

        _, text = costinfer("costs", "--ledger", path, "--by", "user", "--format", "csv")
        table = list(csv.DictReader(io.StringIO(text)))
        equal(sum(int(line["device_ns"]) for line in table), whole["device_ns"], "csv")
        _, text = costinfer("costs", "--ledger", folder, "--by", "user", "--format", "jsonl")
        equal(sum(json.loads(line)["device_ns"] for line in text.splitlines()), whole["device_ns"], "jsonl")
        _, text = costinfer("costs", "--ledger", path, "--by", "model")
        check(whole["cost_dollars"] in text.splitlines()[-1], text)
        month = time.strftime("%Y-%m", time.gmtime())
        if month == time.strftime("%Y-%m", time.gmtime(time.time() - 3600)):  # the run was within one month
            equal(costs(path, "--month", month)["cost_dollars"], whole["cost_dollars"])
        equal(costs(path, "--until", "2020-01-01")["lines"], [])


def a_price_is_a_row():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ledger.db")
        with Costd(*TWO, *PRICES, "--ledger", path, "--metrics-listen", "127.0.0.1:0") as server:
            ask(server, 1)
            change_price(server, "7.5")
            ask(server, 2)
            change_price(server, None)
            ask(server, 3)
            wait_for_rows(path, 3)
        verify(path)
        equal([price for price, in rows(path, "SELECT nanodollars_per_hour FROM prices ORDER BY period")],
              [100000000, 7500000000, None])
        whole = costs(path)
        check(whole["unpriced_ns"] > 0)
        exact = sum(ns * price for ns, price in rows(
            path, "SELECT sum(ns), nanodollars_per_hour FROM device_minutes d JOIN prices p ON p.id = d.price"
                  " WHERE nanodollars_per_hour IS NOT NULL GROUP BY p.id"))
        equal(whole["cost_dollars"], f"{(exact + 1800000000) // 3600000000 / Decimal(10**12):.12f}")


def one_writer_and_good_files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ledger.db")
        with Costd(*TWO, "--ledger", path):
            done = subprocess.run([pathlib.Path(os.environ["CINF_BUILD"]) / "bin/costd", *TWO, "--listen", "127.0.0.1:0",
                                   "--ledger", path], stderr=subprocess.PIPE, text=True, timeout=60)
            equal(done.returncode, 1)
            check("another process writes to the ledger" in done.stderr, done.stderr)
            equal(costinfer("ledger", "prune", "--ledger", path, "--keep-days", "1")[0], 1)
            copy = os.path.join(folder, "copy.db")
            equal(costinfer("ledger", "backup", "--ledger", path, copy), (0, ""))
            equal(os.stat(copy).st_mode & 0o777, 0o600)
            verify(copy)
        with sqlite3.connect(copy) as db:
            db.execute("UPDATE boots SET as_of_ns = as_of_ns + 1")
        status, output = costinfer("ledger", "verify", "--ledger", copy)
        equal(status, 1)
        check("a difference of -1" in output, output)


if __name__ == "__main__":
    run(one_run_one_table, a_price_is_a_row, one_writer_and_good_files)
