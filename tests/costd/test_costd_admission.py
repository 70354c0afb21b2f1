"""Who may ask: API keys and their accounts, the metrics listener, public addresses, names, Unix sockets, and
sockets that systemd hands over."""
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading

from costd_support import (CANARY, COSTD, LARGE, SMALL, Costd, Reply, check, equal, ns, parse_metrics, reset, run,
                           run_costd, temp_folder, together, total)
from decimal import Decimal

ALICE, BOB, ROOT = "sk-alice-" + CANARY, "sk-bob-" + CANARY, "sk-root-" + CANARY
MODELS = ["--model", "small=" + SMALL, "--model", "large=" + LARGE]


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


def key_file(folder, text=None):
    path = os.path.join(folder, "keys%d" % len(os.listdir(folder)))
    with open(path, "w") as f:
        f.write(text if text is not None else "# who\nalice %s\n\nbob\t%s\nroot %s admin # the boss\n"
                % (digest(ALICE), digest(BOB).upper(), digest(ROOT)))
    return path


def bearer(key):
    return {"Authorization": "Bearer " + key}


def key_files_are_judged():
    with temp_folder() as folder:
        good = digest("x")
        for text, words in (
                ("", "no key"), ("# nothing\n", "no key"), ("a\n", "line 1: expected a name and a SHA-256"),
                ("a %s\nb %s\n" % (good, good), "line 2: b"), ("a %s\na %s\n" % (good, good), "line 2: a"),
                ("a %s\na %s\na %s\n" % (good, digest("y"), digest("z")), "line 3: a"),
                ("a %s\nb %s\n" % (good, digest("")), "line 2: b: this is the digest of an empty key"),
                ("".join("n%d %s\n" % (i, digest(str(i))) for i in range(1001)), "line 1001: n1000"),
                ("a %s\n%s\n" % (good, "x" * 2000), "line 2: it is longer"),
                ("a %s\n" % good[:-1], "64 hexadecimal"), ("a %sg\n" % good[:-1], "64 hexadecimal"),
                ("a %s boss\n" % good, "admin"), ("a %s admin x\n" % good, "admin"),
                ("a/b %s\n" % good, "letters"), ("anonymous %s\n" % good, "letters"),
                ("%s %s\n" % ("a" * 65, good), "letters"), ("a %s\n\0" % good, "NUL byte")):
            code, _, err = run_costd(*MODELS[:2], "--listen", "127.0.0.1:0", "--keys", key_file(folder, text))
            equal(code, 1, (text, err))
            check(words in err, text, err)
        code, _, err = run_costd(*MODELS[:2], "--listen", "127.0.0.1:0", "--keys", os.path.join(folder, "absent"))
        equal(code, 1)
        # Of every length around the hash's blocks, by someone else's hash.
        lengths = (1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 1000)
        path = key_file(folder, "".join("k%d %s\n" % (n, digest("k" * n)) for n in lengths))
        with Costd(*MODELS[:2], "--keys", path) as server:
            for n in lengths:
                equal(server.get("/v1/models", **bearer("k" * n)).status, 200, n)
                equal(server.get("/v1/models", **bearer("k" * (n - 1) + "l")).status, 401, n)


def keys_are_read_again():
    """On SIGHUP: keys come, go and change hands of their names."""
    with temp_folder() as folder:
        path = key_file(folder)

        def rewrite(text, line="the keys were read again"):
            n = len(server.lines)
            with open(path + ".new", "w") as f:
                f.write(text)
            os.replace(path + ".new", path)
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: l["event"] == "keys" and l["message"] == line and l in server.lines[n:])

        def statuses(*others):
            return [server.get("/v1/models", **bearer(k)).status
                    for k in (ALICE, BOB, ROOT, "sk-eve-" + CANARY, *others)]

        with Costd(*MODELS[:2], "--cpu-cost-per-hour", "1", "--keys", path) as server:
            equal(statuses(), [200, 200, 200, 401])
            ask = {"prompt": "Once", "max_tokens": 3}
            equal(server.ask("POST", "/v1/generate/small", ask, bearer(BOB)).status, 200)
            # bob goes, eve comes as an admin, root is none any more, alice has a new key.
            rewrite("eve %s admin\nroot %s\nalice %s\n" % (digest("sk-eve-" + CANARY), digest(ROOT), digest("new")))
            equal(statuses(), [401, 401, 200, 200])
            equal(server.get("/v1/models", **bearer("new")).status, 200)
            equal(server.ask("PUT", "/admin/price", {"dollars_per_hour": "2"}, bearer(ROOT)).status, 403)
            equal(server.ask("POST", "/v1/generate/small", ask, bearer("sk-eve-" + CANARY)).status, 200)
            m = parse_metrics(server.get("/metrics", **bearer("sk-eve-" + CANARY)).body.decode())
            for name, used in (("alice", False), ("bob", True), ("eve", True), ("root", False)):
                equal(total(m, "costd_key_device_seconds_total", key=name) > 0, used, name)
            # bob comes back to his account, with another key.
            rewrite("bob %s admin\n" % digest("again"))
            equal(server.get("/v1/models", **bearer("again")).status, 200)
            equal(statuses(), [401] * 4)
            after = parse_metrics(server.get("/metrics", **bearer("again")).body.decode())
            equal(total(after, "costd_key_device_seconds_total", key="bob"),
                  total(m, "costd_key_device_seconds_total", key="bob"))
            equal(server.ask("PUT", "/admin/price", {"dollars_per_hour": "2"}, bearer("again")).status, 202)
            # Without the file nothing is known of any key.
            os.unlink(path)
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: l["event"] == "keys" and path in l["message"])
            equal(server.get("/v1/models", **bearer("again")).status, 200)


def what_left_the_file_is_shut_out():
    """Whatever else is wrong in it; lines that are good apply, and each that is refused is named."""
    with temp_folder() as folder:
        path = key_file(folder)
        a, b, r = ("%s %s" % (n, digest(k)) for n, k in (("alice", ALICE), ("bob", BOB), ("root", ROOT)))
        r += " admin"
        many = "\n".join("n%d %s" % (i, digest("n%d" % i)) for i in range(1100))
        with Costd(*MODELS[:2], "--keys", path) as server:
            for lines, refused in (
                    ([r, a, "carol"], 1), ([a, r, "carol %s" % digest("c")[:-1]], 1),
                    ([a, r, "carol %s" % digest("")], 1), ([a, r, "carol %s boss" % digest("c")], 1),
                    ([a, r, "carol %s" % digest(ALICE), "dave %s" % digest(ROOT)], 2), ([a, r, "x\0y"], 1),
                    (["bob %s" % digest(BOB)[:-1], a, r], 1), (["b\xe9b %s" % digest(BOB), a, r], 1),
                    ([a, r, "z" * 5000], 1), ([a, r, "# " + "z" * (3 << 20)], 0),
                    ([a, r, many], 1100 - 997), ([a, r, *(["nonsense"] * 3000)], 3000)):
                with open(path, "w") as f:
                    f.write("\n".join((a, b, r)) + "\n")
                for text in (None, "\n".join(lines)):
                    if text is not None:
                        with open(path, "w", encoding="latin-1") as f:
                            f.write(text)
                    n = len(server.lines)
                    server.signal(signal.SIGHUP)
                    line = server.await_log(lambda l: l["event"] == "keys" and l in server.lines[n:])
                equal(line["message"], "the keys were read again" +
                      (", but %d lines were refused" % refused if refused else ""), lines[-1][:100])
                told = [l for l in server.lines[n:] if l["event"] == "key_file" and "line" in l["message"]]
                equal(len(told), refused if refused <= 20 else 21)
                gone = [l["message"] for l in server.lines[n:] if l["event"] == "key_gone"]
                check("bob has no valid key any more" in gone, gone)
                equal([server.get("/v1/models", **bearer(k)).status for k in (ALICE, BOB, ROOT)], [200, 401, 200])
                metrics = parse_metrics(server.get("/metrics", **bearer(ROOT)).body.decode())
                equal(total(metrics, "costd_key_lines_refused"), refused)
            # A name more than there can be accounts: the others change.
            with open(path, "w") as f:
                f.write("\n".join((r, "one-more %s" % digest("m"), "alice %s" % digest("new"))))
            server.signal(signal.SIGHUP)
            line = server.await_log(lambda l: l["event"] == "key_file" and "one-more" in l["message"])
            check("line 2" in line["message"] and "1000 names" in line["message"], line)
            server.await_log(lambda l: l["event"] == "keys" and "but 1 lines were refused" in l["message"]
                             and l in server.lines[server.lines.index(line):])
            equal([server.get("/v1/models", **bearer(k)).status for k in ("m", "new", ALICE)], [401, 200, 401])
            # Nothing is left in it.
            open(path, "w").close()
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: l["event"] == "key_gone" and l["message"].startswith("root "))
            equal([server.get("/v1/models", **bearer(k)).status for k in ("new", ROOT, "")], [401] * 3)


def a_name_has_two_keys():
    """A new key is valid before the old one is withdrawn, and both are one account."""
    with temp_folder() as folder:
        path = key_file(folder, "a %s\nroot %s admin\na %s admin\n" % (digest("old"), digest(ROOT), digest("new")))
        os.chmod(path, 0o644)
        with Costd(*MODELS[:2], "--keys", path) as server:
            ask = {"prompt": "Once", "max_tokens": 3}
            for key in ("old", "new"):
                equal(server.ask("POST", "/v1/generate/small", ask, bearer(key)).status, 200)
            server.await_log(lambda l: [l["key"] for l in server.requests_logged()] == ["a", "a"])
            # A name is an administrator's when each of its lines says so.
            equal([server.ask("PUT", "/admin/price", {"dollars_per_hour": "1"}, bearer(k)).status
                   for k in ("old", "new", ROOT)], [403, 403, 202])
            for key, status in (("", 401), (" ", 401), ("old ", 401)):
                equal(server.ask("GET", "/v1/models", None, {"Authorization": "Bearer " + key}).status, status)
            with open(path, "w") as f:
                f.write("root %s admin\na %s admin\n" % (digest(ROOT), digest("new")))
            os.chmod(path, 0o600)
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: l["event"] == "keys")
            equal([server.get("/v1/models", **bearer(k)).status for k in ("old", "new", ROOT)], [401, 200, 200])
            equal(server.ask("PUT", "/admin/price", {"dollars_per_hour": "1"}, bearer("new")).status, 202)
            warned = [l for l in server.lines if l["event"] == "key_file"]
            equal(len(warned), 1)
            equal(warned[0]["level"], "warn")
            check("mode 0644" in warned[0]["message"] and path in warned[0]["message"], warned)
            os.chmod(path, 0o620)
            server.signal(signal.SIGHUP)
            server.await_log(lambda l: l["event"] == "key_file" and "may change it (mode 0620)" in l["message"])


def keys_are_needed_and_accounted():
    with temp_folder() as folder, Costd(*MODELS, "--keys", key_file(folder), "--cpu-cost-per-hour", "2.5",
                                        "--queue", "3") as server:
        for headers in ({}, bearer("wrong"), {"Authorization": "Basic " + ALICE}, bearer(""), bearer(ALICE + "x"),
                        {"Authorization": "Bearer"}):
            for path in ("/v1/models", "/metrics", "/api/recent"):
                reply = server.ask("GET", path, headers=headers)
                equal((reply.status, reply.error["code"]), (401, "invalid_api_key"), (path, headers))
                equal(reply.headers["www-authenticate"], 'Bearer realm="costd"')
                equal(reply.headers["x-should-retry"], "false")
            reply = server.ask("POST", "/v1/completions", {"model": "small", "prompt": "a"}, headers)
            equal(reply.status, 401)
        for path in ("/health", "/ready"):
            equal(server.get(path).status, 200)

        def complete(key, **fields):
            return server.ask("POST", "/v1/completions", fields, bearer(key))

        def metrics():
            from costd_support import parse_metrics
            return parse_metrics(server.get("/metrics", **bearer(ROOT)).body.decode())

        def complete_at_last(key, **fields):
            """The queue is short, and others use it too."""
            while complete(key, **fields).status == 429:
                pass

        threads = [threading.Thread(target=complete_at_last, args=(k,), kwargs={
            "model": m, "prompt": "Once " + CANARY, "max_tokens": 10, "n": 2, "ignore_eos": True})
            for k, m in ((ALICE, "small"), (BOB, "large"), (ALICE, "large"), (ROOT, "small"))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        # One who hangs up is accounted too, and a call whose prompts do not find room together costs nothing.
        body = json.dumps({"model": "large", "prompt": "a", "ignore_eos": True, "max_tokens": 200,
                           "stream": True}).encode()
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (BOB.encode(), len(body)) + body)
        s.recv(100)
        reset(s)
        replies = together(*[lambda: complete(ALICE, model="large", prompt=["a"] * 19, max_tokens=20)] * 5)
        check(any(r.status == 429 for r in replies), [r.status for r in replies])
        for r in replies:
            if r.status == 429:
                equal((r.headers["retry-after"], r.headers["retry-after-ms"]), ("1", "1000"))
                check("x-should-retry" not in r.headers, r.headers)
        while True:
            m = metrics()
            if total(m, "model_requests_running") + total(m, "model_requests_waiting") == 0:
                break
        keys = ["anonymous", "alice", "bob", "root"]
        by_key = [ns(total(m, "costd_key_device_seconds_total", key=k)) for k in keys]
        served = sum(ns(total(m, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode"))
        equal(sum(by_key), served, by_key)
        equal(by_key[0], 0, "every request had a key")
        check(all(v > 0 for v in by_key[1:]), by_key)
        costs = [total(m, "costd_key_cost_dollars_total", key=k) for k in keys]
        for nanoseconds, cost in zip(by_key, costs):
            check(abs(cost - Decimal(nanoseconds) * Decimal("2.5") / (3600 * 10**9)) < Decimal("1e-11"), cost)
        logged = {line.get("key") for line in server.requests_logged() if line.get("endpoint")}
        equal(logged, {"alice", "bob", "root"})


def a_key_sees_its_own_figures():
    """No names, money or time of other keys, and no sum from which its own could be taken away."""
    def names(metrics):
        return {dict(labels)["key"] for (name, labels) in metrics if "key" in dict(labels)}

    with temp_folder() as folder:
        keys = ["--keys", key_file(folder), "--cpu-cost-per-hour", "2.5"]
        for listener in ([], ["--metrics-listen", "0.0.0.0:0"], ["--metrics-listen", "127.0.0.1:0"]):
            with Costd(*MODELS, *keys, *listener) as server:
                main, line = server.port, server.await_log(lambda l: l["event"] == "listening")
                spent = {}
                for name, key, n in (("alice", ALICE, 3), ("bob", BOB, 5)):
                    for model in ("small", "large"):
                        ask = {"prompt": "Once", "max_tokens": n, "ignore_eos": True}
                        reply = server.ask("POST", "/v1/generate/" + model, ask, bearer(key))
                        equal(reply.status, 200)
                        spent[name] = spent.get(name, 0) + ns(reply.json["device_seconds"])
                server.port = line.get("metrics_port", main)
                for accept in ("text/plain", "application/openmetrics-text"):
                    for name, key in (("alice", ALICE), ("bob", BOB)):
                        text = server.get("/metrics", Accept=accept, **bearer(key)).body.decode()
                        if listener and "127" in listener[1]:
                            continue  # the private listener shows all to all
                        m = parse_metrics(text)
                        equal(names(m), {name})
                        equal(ns(total(m, "costd_key_device_seconds_total")), spent[name])
                        check(total(m, "costd_key_cost_dollars_total") > 0, m)
                        equal({n for n, _ in m}, {"costd_build_info", "costd_key_device_seconds_total",
                                                  "costd_key_cost_dollars_total"})
                        reply = server.get("/api/history", **bearer(key))
                        equal((reply.status, reply.error["code"]), (403, "forbidden"))
                        recent = server.get("/api/recent", **bearer(key)).json["requests"]
                        equal(sum(ns(r["device_seconds"]) for r in recent), spent[name])
                        equal(len(recent), 2)
                for headers in (bearer(ROOT), {}):
                    if not headers and not (listener and "127" in listener[1]):
                        for path in ("/metrics", "/api/history", "/api/recent"):
                            equal(server.get(path).status, 401)
                        continue
                    m = parse_metrics(server.get("/metrics", **headers).body.decode())
                    equal(names(m), {"anonymous", "alice", "bob", "root"})
                    check(total(m, "model_estimated_cost_dollars_total") > 0, "no sums")
                    equal(server.get("/api/history", **headers).status, 200)
                    equal(len(server.get("/api/recent", **headers).json["requests"]), 4)
                server.port = main


def the_metrics_listener_takes_over():
    with Costd(*MODELS[:2], "--metrics-listen", "127.0.0.1:0") as server:
        main = server.port
        line = server.await_log(lambda l: l["event"] == "listening")
        for path in ("/metrics", "/", "/api/recent"):
            equal(server.get(path).status, 404, path)
        equal(server.get("/health").status, 200)
        server.generate("small", prompt="a", max_tokens=2)
        server.port = line["metrics_port"]
        m = server.settle()
        equal(ns(total(m, "costd_key_device_seconds_total", key="anonymous")),
              sum(ns(total(m, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode")))
        for path in ("/", "/api/recent", "/health", "/ready", "/v1/models"):
            equal(server.get(path).status, 200, path)
        equal(server.post("/v1/completions", {"prompt": "a"}).status, 404)
        server.port = main


def public_addresses_need_keys():
    for listen in ("0.0.0.0:0", "[::]:0"):
        code, _, err = run_costd(*MODELS[:2], "--listen", listen)
        equal(code, 1, err)
        check("not a loopback address" in err and "--insecure" in err, err)
    code, _, err = run_costd(*MODELS[:2], "--listen", "127.0.0.1:0", "--metrics-listen", "0.0.0.0:0")
    equal(code, 1, err)
    with Costd(*MODELS[:2], "--listen", "0.0.0.0:0", "--insecure") as server:
        equal(server.get("/health").status, 200)
    with temp_folder() as folder, Costd(*MODELS[:2], "--listen", "0.0.0.0:0", "--keys", key_file(folder)) as server:
        equal(server.get("/v1/models").status, 401)


def other_names_are_refused():
    with Costd(*MODELS[:2], "--allow-host", "models.example,b.example,*.svc.cluster.local") as server:
        for host, status in (("127.0.0.1:80", 200), ("localhost", 200), ("LOCALHOST:8000", 200), ("[::1]:8", 200),
                             ("a.localhost", 200), ("models.example", 200), ("B.Example:8000", 200),
                             ("localhost.", 200), ("models.example.:80", 200), ("costd.ns.svc.cluster.local", 200),
                             ("COSTD.SVC.cluster.local:8000", 200), ("svc.cluster.local", 421),
                             ("evilsvc.cluster.local", 421), ("a.svc.cluster.local.evil", 421),
                             (".svc.cluster.local", 421), ("any", 421),
                             ("evil.example", 421), ("localhost.evil.example", 421), ("models.example.evil", 421),
                             ("models", 421), ("127.0.0.1.evil.example", 421), ("evillocalhost", 421)):
            reply = server.ask("GET", "/v1/models", headers={"Host": host})
            equal(reply.status, status, host)
            check(not any(h.startswith("access-control") for h in reply.headers), "CORS:", reply.headers)
        reply = server.ask("GET", "/nothing", headers={"Host": "evil.example:80"})
        equal((reply.status, reply.error["code"]), (421, "host_not_allowed"))
        for word in ('"evil.example"', "--allow-host", "docs/proxies.md"):
            check(word in reply.error["message"], word, reply.error)
        equal(server.ask("OPTIONS", "/v1/completions", headers={"Origin": "http://evil.example"}).status, 405)
    with Costd(*MODELS[:2], hosts="any") as server:
        equal(server.ask("GET", "/v1/models", headers={"Host": "evil.example"}).status, 200)
    for bad in ("*", "*.", "a,", ",a", "a:80", "http://a", "a b", "*a", "a.*", "a,,b", "*.*.a", "*..a"):
        code, _, err = run_costd(*MODELS[:2], "--allow-host", bad)
        equal(code, 2, bad)
        check("--allow-host" in err and "host name" in err or "*.NAME" in err, bad, err)


def every_listener_that_trusts_its_address_looks():
    """Whether there are keys or not: the private metrics listener needs none."""
    with temp_folder() as folder:
        keys = ["--keys", key_file(folder)]
        for arguments, checked_main in (([], True), (keys, False)):
            with Costd(*MODELS[:2], "--metrics-listen", "127.0.0.1:0", *arguments, hosts=None) as server:
                main, admin = server.port, server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
                evil = {"Host": "evil.example"}
                for key in ({}, bearer(ROOT)) if arguments else ({},):
                    server.port = admin
                    for method, path, body in (("GET", "/metrics", None), ("GET", "/", None), ("GET", "/health", None),
                                               ("GET", "/api/history", None), ("DELETE", "/admin/models/small", None),
                                               ("PUT", "/admin/price", {"dollars_per_hour": "9"})):
                        equal(server.ask(method, path, body, {**evil, **key}).status, 421, path)
                    equal(server.get("/metrics").status, 200)
                    server.port = main
                    equal(server.ask("GET", "/v1/models", headers={**evil, **key}).status,
                          421 if checked_main else 200 if key else 401)
                server.port = main
        # Where names are given, they count for every listener.
        with Costd(*MODELS[:2], "--listen", "0.0.0.0:0", *keys, hosts="good.example") as server:
            for host, status in (("good.example", 200), ("evil.example", 421), ("10.0.0.1", 200)):
                equal(server.ask("GET", "/v1/models", headers={"Host": host, **bearer(BOB)}).status, status, host)
        with Costd(*MODELS[:2], "--listen", "0.0.0.0:0", *keys, hosts=None) as server:
            equal(server.ask("GET", "/v1/models", headers={"Host": "any.example", **bearer(BOB)}).status, 200)


def pages_of_other_origins_change_nothing():
    price = ("PUT", "/admin/price", {"dollars_per_hour": "9"})
    load = ("POST", "/admin/models", {"id": "small", "folder": SMALL})
    unload = ("DELETE", "/admin/models/absent", None)
    tokenize = ("POST", "/tokenize", {"content": "a"})
    with temp_folder() as folder:
        keys = ["--keys", key_file(folder)]
        for arguments, key in (([], {}), (keys, bearer(ROOT))):
            with Costd(*MODELS[:2], "--allow-host", "models.example,*.ours.example", "--metrics-listen", "127.0.0.1:0",
                       *arguments) as server:
                main, admin = server.port, server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
                # Tokenizing is not for administrators: with a key, which no page knows, any page may ask for it.
                for method, path, body in (price, load, unload) if arguments else (price, load, unload, tokenize):
                    server.port = main if path == "/tokenize" else admin
                    own = "127.0.0.1:%d" % server.port

                    def status(**headers):
                        names = {k.replace("_", "-"): v for k, v in headers.items()}
                        reply = server.ask(method, path, body, {**names, **key})
                        if reply.status == 403:
                            equal(reply.error["code"], "origin_not_allowed")
                            check("--allow-host" in reply.error["message"], reply.error)
                        return reply.status

                    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"},
                                    {"Origin": "https://127.0.0.1"}, {"Origin": "http://localhost:3000"},
                                    {"Origin": "http://127.0.0.1:1"},
                                    {"Origin": "http://models.example.evil"}, {"Origin": "garbage"},
                                    {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
                                    {"Sec_Fetch_Site": "cross-site", "Origin": "http://" + own},
                                    {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-site"}):
                        equal(status(**headers), 403, (path, headers))
                    for headers in ({}, {"Origin": "http://" + own}, {"Sec_Fetch_Site": "same-origin"},
                                    {"Sec_Fetch_Site": "none"}, {"Origin": "https://models.example"},
                                    {"Origin": "https://a.ours.example:444", "Sec_Fetch_Site": "cross-site"},
                                    {"Origin": "https://public.example", "Sec_Fetch_Site": "same-origin"},
                                    {"Origin": "http://localhost", "Host": "localhost:80"}):
                        check(status(**headers) in (200, 202, 404), path, headers)
                server.port = main
                equal(server.get("/v1/models", Origin="http://evil.example", **key).status, 200)
                if key:
                    equal(server.ask(*tokenize, {"Origin": "http://evil.example", **key}).status, 200)


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask_unix(path, where):
    connection = Unix(path)
    connection.request("GET", where, headers={"Host": "anything"})
    response = connection.getresponse()
    reply = Reply(response.status, {}, response.read())
    connection.close()
    return reply


def a_unix_socket():
    with temp_folder() as folder:
        path = os.path.join(folder, "socket")
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        with Costd(*MODELS[:2], "--listen", "unix:" + path) as server:
            equal(server.port, 0)
            equal(ask_unix(path, "/v1/models").status, 200)
            code, _, err = run_costd(*MODELS[:2], "--listen", "unix:" + path)
            equal(code, 1)
            check("in use" in err, err)
            equal(ask_unix(path, "/health").status, 200, "the second one has not taken it away")
        check(not os.path.exists(path), "the socket is left")
        code, _, err = run_costd(*MODELS[:2], "--listen", "unix:" + "x" * 200)
        equal(code, 1)
        equal(run_costd(*MODELS[:2], "--listen", "unix:")[0], 2)


def only_a_dead_socket_is_replaced():
    with temp_folder() as folder:
        def refused(path, *words):
            code, _, err = run_costd(*MODELS[:2], "--listen", "unix:" + path)
            equal(code, 1, err)
            check(all(w in err for w in words), words, err)

        path, target = os.path.join(folder, "path"), os.path.join(folder, "target")
        for name in (path, target):
            with open(name, "w") as f:
                f.write("precious")
        refused(path, path, "not a socket")
        os.remove(path)
        for where in (target, os.path.join(folder, "nowhere"), folder):
            os.symlink(where, path)
            refused(path, "not a socket")
            equal(os.readlink(path), where, "the link")
            os.remove(path)
        # A link to a socket is a link, whether that socket lives or not.
        dead = os.path.join(folder, "dead")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(dead)
        os.symlink(dead, path)
        refused(path, "not a socket")
        check(os.path.lexists(dead) and os.path.islink(path), "link and socket")
        os.remove(path)
        for make in (os.mkdir, os.mkfifo):
            make(path)
            refused(path, "not a socket")
            (os.rmdir if make is os.mkdir else os.remove)(path)
        # Sockets that live: one of datagrams, and one whose queue is full.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            refused(path, "in use")
            os.remove(path)
        with socket.socket(socket.AF_UNIX) as s, contextlib.ExitStack() as full:
            s.bind(path)
            s.listen(0)
            for _ in range(3):
                client = full.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect_ex(path)
            refused(path, "in use")
            check(os.path.exists(path), "a socket that lives was removed")
            os.remove(path)
        with open(target) as f:
            equal(f.read(), "precious")

        # At the end costd removes its own socket, and nothing that has taken its place.
        with Costd(*MODELS[:2], "--listen", "unix:" + path):
            os.remove(path)
            with open(path, "w") as f:
                f.write("precious")
        with open(path) as f:
            equal(f.read(), "precious")


def of_those_that_start_together_one_serves():
    with temp_folder() as folder:
        path = os.path.join(folder, "socket")
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path)
            command = [COSTD, *MODELS[:2], "--listen", "unix:" + path]
            rivals = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
            try:
                lines = [p.stderr.readline() for p in rivals]
                events = [json.loads(line)["event"] for line in lines]
                equal(sorted(events), ["listening", "start", "start", "start"], lines)
                equal(ask_unix(path, "/v1/models").status, 200)
            finally:
                for p in rivals:
                    p.terminate()
                    p.communicate()
            check(not os.path.lexists(path), "the socket is left")


def sockets_of_systemd():
    with socket.create_server(("127.0.0.1", 0)) as main, socket.create_server(("127.0.0.1", 0)) as metrics:
        # Copies out of the way first: a dup2() onto itself would leave a descriptor that exec closes.
        script = ("import fcntl, os, sys\n"
                  "a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])\n"
                  "os.dup2(a, 3); os.dup2(b, 4)\n"
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')\n"
                  "os.execv(sys.argv[3], sys.argv[3:])\n")
        process = subprocess.Popen([sys.executable, "-c", script, str(main.fileno()), str(metrics.fileno()), COSTD,
                                    *MODELS[:2], "--listen", "127.0.0.1:1"], stderr=subprocess.PIPE,
                                   pass_fds=[main.fileno(), metrics.fileno()])
        try:
            for line in process.stderr:
                if json.loads(line)["event"] == "ready":
                    break
            for listener, path, status in ((main, "/v1/models", 200), (main, "/metrics", 404),
                                           (metrics, "/metrics", 200)):
                connection = http.client.HTTPConnection(*listener.getsockname(), timeout=120)
                connection.request("GET", path)
                equal(connection.getresponse().status, status, path)
                connection.close()
        finally:
            process.terminate()
            process.communicate()
        equal(process.returncode, 0)


if __name__ == "__main__":
    run(key_files_are_judged, keys_are_read_again, what_left_the_file_is_shut_out, a_name_has_two_keys,
        keys_are_needed_and_accounted, a_key_sees_its_own_figures,
        the_metrics_listener_takes_over, public_addresses_need_keys, other_names_are_refused,
        every_listener_that_trusts_its_address_looks,
        pages_of_other_origins_change_nothing, a_unix_socket,
        only_a_dead_socket_is_replaced, of_those_that_start_together_one_serves, sockets_of_systemd)
