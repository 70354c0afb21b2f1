"""The built-in page as it is served, and the figures that it is made of: they are the metrics' own."""
import concurrent.futures
import gzip
import http.client
import os
import pathlib
import re
import time
from decimal import Decimal

from costd_support import CANARY, SMALL, SOURCE, TWO, Costd, check, equal, run, total

PAGE = next(pathlib.Path(SOURCE).glob("apps/costd/*/page"))
FILES = {"/": "text/html; charset=utf-8",
         **{"/page/" + f.name: "text/css; charset=utf-8" for f in PAGE.rglob("*.css")},
         **{"/page/" + f.name: "text/javascript; charset=utf-8" for f in PAGE.rglob("*.js")}}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
          "base-uri 'none'; frame-ancestors 'none'")
PRICE = ["--cpu-cost-per-hour", "0.10"]
PAGE_GZIP_BYTES_MAX = 60000
SCRAPES = 10000


def files_of_the_page():
    compressed = 0
    check(len(FILES) > 10, FILES)
    with Costd(*TWO, *PRICE) as server:
        for path, content_type in FILES.items():
            plain = server.get(path)
            packed = server.get(path, **{"Accept-Encoding": "br, gzip"})
            equal(gzip.decompress(packed.body), plain.body, path)
            compressed += len(packed.body)
            for reply, encoding in ((plain, None), (packed, "gzip")):
                h = reply.headers
                equal(reply.status, 200, path)
                equal(h["content-type"], content_type)
                equal(h.get("content-encoding"), encoding)
                equal(h["content-security-policy"], POLICY)
                equal(h["x-content-type-options"], "nosniff")
                equal(h["vary"], "Accept-Encoding")
                equal(h["cache-control"], "no-cache")
                known = server.get(path, **{"If-None-Match": h["etag"], "Accept-Encoding": encoding or "identity"})
                equal((known.status, known.body, known.headers["etag"]), (304, b"", h["etag"]))
            check(plain.headers["etag"] != packed.headers["etag"], "one tag for two representations")
            equal(server.get(path, **{"If-None-Match": '"other"'}).status, 200)
            equal(server.ask("HEAD", path).body, b"")
            equal(server.post(path, {}).status, 405)
            # Nothing is loaded from elsewhere: the only addresses are uPlot's home in its comment and a namespace.
            for address in re.findall(rb"https?://[^\s'\"]+", plain.body):
                known = (b"https://github.com/leeoniya/uPlot", b"http://www.w3.org/2000/svg")
                check(address.startswith(known), address)
        for accept, encoding in (("gzip;q=0", None), ("*", "gzip"), ("*;q=0", None), ("identity", None), ("", None),
                                 ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip"), ("gzip;q=0, *", None), ("xgzip", None)):
            equal(server.get("/", **{"Accept-Encoding": accept}).headers.get("content-encoding"), encoding, accept)
        for path in ("/page", "/page/", "/page/none.js", "/page/index.html", "/page/vendor/uPlot.min.css", "/page.css"):
            equal(server.get(path).status, 404, path)
        equal(server.get("//").status, 404)
        check("content-security-policy" not in server.get("/metrics").headers, "a policy on data")
    print("the page is %d bytes, compressed" % compressed)
    check(compressed <= PAGE_GZIP_BYTES_MAX, compressed)


def history(server, span="1h"):
    reply = server.get("/api/history?range=" + span)
    equal((reply.status, reply.headers["content-type"], reply.headers["cache-control"]),
          (200, "application/json", "no-store"))
    return reply.json


def amounts_add(h):
    """The accounts add up to the bill: exactly in nanoseconds, and within their rounding in dollars."""
    for part in (h["since_start"], h["range_total"], h["day_total"]):
        costs = [Decimal(part[k + "_cost"]) for k in ("serve", "load", "idle")]
        check(abs(sum(costs) - Decimal(part["cost"])) <= Decimal("3e-12"), part)
    for span in ("since_start", "range"):
        whole = h["range_total" if span == "range" else span]
        for kind in ("serve", "load"):
            equal(sum(m[span][kind + "_seconds"] for m in h["models"]), whole[kind + "_seconds"], kind)
            cost = sum(Decimal(m[span][kind + "_cost"]) for m in h["models"])
            check(abs(cost - Decimal(whole[kind + "_cost"])) <= len(h["models"]) * Decimal("1e-12"), kind, cost)


def figures_are_the_metrics_own():
    answers = {"small": [], "large": []}
    with Costd(*TWO, *PRICE, "--daily-budget", "3.5") as server:
        h = history(server)
        equal([m["since_start"]["requests"] for m in h["models"]], [0, 0])
        equal((h["daily_budget"], h["dollars_per_hour"]), ("3.500000000000", "0.100000000000"))
        # Lopsided: four fifths of the requests, overlapping, to one model.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            def one(i):
                model = "small" if i % 5 == 0 else "large"
                return model, server.generate(model, prompt=CANARY + str(i), max_tokens=24).json
            for model, answer in pool.map(one, range(40)):
                answers[model].append(answer)
        equal(server.post("/v1/generate/large", {"max_tokens": -1}).status, 400)
        m = server.settle()
        h = history(server)
        amounts_add(h)
        served = total(m, "model_estimated_cost_dollars_total")
        for model in h["models"]:
            name, t = model["name"], model["since_start"]
            equal(t, model["range"], "a range that is longer than the process is old")
            equal(Decimal(t["serve_cost"]), total(m, "model_estimated_cost_dollars_total", model_name=name))
            for key, phase in (("prefill", "prefill"), ("decode", "decode"), ("load", "load")):
                equal(t[key + "_seconds"], total(m, "model_device_seconds_total", model_name=name, phase=phase))
            for key in ("input", "output"):
                equal(t[key + "_tokens"], total(m, "model_tokens_total", model_name=name, direction=key))
            equal(t["cached_tokens"], total(m, "model_cached_tokens_total", model_name=name))
            equal(t["requests"], total(m, "model_request_total", model_name=name))
            equal(t["errors"], total(m, "model_request_errors_total", model_name=name))
            equal(t["errors"], 1 if name == "large" else 0)
            responses = sum(Decimal(a["estimated_cost_usd"]) for a in answers[name])
            check(abs(responses - Decimal(t["serve_cost"])) <= 41 * Decimal("1e-12"), responses, t)
            share = Decimal(t["serve_cost"]) / Decimal(h["since_start"]["serve_cost"])
            cost = total(m, "model_estimated_cost_dollars_total", model_name=name)
            check(abs(share - cost / served) < Decimal("0.01"), share, cost, served)
            equal(model["latency"]["n"], t["requests"])
            check(0 < model["latency"]["p50"] <= model["latency"]["p95"], model["latency"])
        later = total(server.metrics(), "costinfer_device_cost_dollars_total")
        earlier, seen = total(m, "costinfer_device_cost_dollars_total"), Decimal(h["since_start"]["cost"])
        digits = Decimal("3e-12")  # of three rounded costs, while the device stands at one boundary
        check(earlier - digits <= seen <= later + digits, earlier, seen, later)
        last_requests(server, answers)


def last_requests(server, answers):
    body = server.get("/api/recent")
    check(CANARY.encode() not in body.body, "a prompt among the last requests")
    rows = body.json["requests"]
    equal(len(rows), 40)
    logged = {line["id"]: line for line in server.requests_logged()}
    equal(sum(Decimal(r["cost"]) for r in rows),
          sum(Decimal(a["estimated_cost_usd"]) for group in answers.values() for a in group))
    for row in rows:
        line = logged[row["id"]]
        for key in ("input_tokens", "output_tokens", "cached_tokens", "queue_seconds", "latency_seconds",
                    "device_seconds", "model", "endpoint", "finish", "status"):
            equal(row[key], line[key], key)
        equal(row["prefill_seconds"] + row["decode_seconds"], row["device_seconds"])
    for i in range(70):
        server.generate("small", prompt="x", max_tokens=1)
    rows = server.get("/api/recent").json["requests"]
    equal(len(rows), 100)
    check(all(a["ended"] >= b["ended"] for a, b in zip(rows, rows[1:])), "not the newest first")
    equal(rows[99]["output_tokens"], 24)


def ranges_and_restarts():
    with Costd("--model", "small=" + SMALL) as server:
        for bad in ("2h", "", "1h%00", "%31h", "24h;", "-1"):
            reply = server.get("/api/history?range=" + bad)
            equal((reply.status, reply.error["param"]), (400, "range"), bad)
        equal(server.get("/api/history").json["range"], "1h")
        for span, length in (("15m", 900), ("1h", 3600), ("6h", 21600), ("24h", 86400)):
            equal(history(server, span)["range_seconds"], length)
        server.generate("small", max_tokens=3)
        server.settle()
        # Without a price the cost is unknown, which is not the same as zero.
        h = history(server)
        equal((h["dollars_per_hour"], h["daily_budget"]), (None, None))
        t = h["range_total"]
        equal(t["unpriced_seconds"], t["serve_seconds"] + t["load_seconds"] + t["idle_seconds"] + t["lost_seconds"])
        equal(server.get("/api/recent").json["requests"][0]["cost"], None)
        first = h["run"]
        equal(history(server)["run"], first)
    with Costd("--model", "small=" + SMALL) as server:
        check(history(server)["run"] != first, "a restart cannot be seen")


def resident(server):
    with open("/proc/%d/statm" % server.process.pid) as f:
        return int(f.read().split()[1]) * 4096


def many_scrapes():
    """Ten thousand readings change no figure and take no memory; a sample taken during them becomes a point."""
    # AddressSanitizer would keep freed memory for a while, and it would count.
    quarantine = ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    env = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + quarantine}
    with Costd(*TWO, *PRICE, env=env) as server:
        server.generate("large", max_tokens=20)
        before = server.settle()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def scrape(n):
            for i in range(n):
                connection.request("GET", ("/metrics", "/api/history?range=24h", "/api/recent", "/")[i % 4])
                reply = connection.getresponse()
                equal(reply.status, 200)
                reply.read()

        scrape(1000)
        memory, start = resident(server), time.monotonic()
        scrape(SCRAPES)
        seconds, grown = time.monotonic() - start, resident(server) - memory
        connection.close()
        print("%d scrapes in %.1f s; %d KiB more" % (SCRAPES, seconds, grown // 1024))
        check(grown < 2 << 20, grown)
        after = server.metrics()
        for name in ("model_request_total", "model_tokens_total", "model_estimated_cost_dollars_total"):
            equal(total(after, name), total(before, name))
        end = time.monotonic() + 120
        while not (h := history(server, "15m"))["times"]:
            check(time.monotonic() < end, "no sample")
            time.sleep(0.2)
        points = len(h["times"])
        # A sample is due every ten seconds since the start; a busy machine may take it later.
        age = sum(h["since_start"][k + "_seconds"] for k in ("serve", "load", "idle"))
        check(-1 <= h["now"] - h["times"][-1] <= age + 1, h["times"], h["now"], age)  # whole seconds
        for lists in [h["points"]] + [m["points"] for m in h["models"]]:
            equal({len(v) for v in lists.values()}, {points})
        first = sum(h["points"][k + "_seconds"][0] for k in ("serve", "load", "idle"))
        check(9 < first <= age, "a point of ten seconds has", first)
        equal(sum(sum(m["points"]["output_tokens"]) for m in h["models"]), 20)


run(files_of_the_page, figures_are_the_metrics_own, ranges_and_restarts, many_scrapes, at_once=True)
