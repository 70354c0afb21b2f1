"""What is served goes on until its successor is complete: models, prices and settings that are read again, good and
bad, by SIGHUP and by POST /admin/models; and every outcome is told."""
import json
import os
import shutil
import signal
import threading
import time

from costd_support import LARGE, SMALL, Costd, check, equal, ns, run, sanitized, temp_folder, total


def copy_of(source, folder, name):
    path = os.path.join(folder, name)
    shutil.copytree(source, path)
    return path


def replace_files(folder, source):
    """As a deployment does it: each file is renamed into its place."""
    for name in os.listdir(source):
        shutil.copy(os.path.join(source, name), os.path.join(folder, name + ".new"))
        os.replace(os.path.join(folder, name + ".new"), os.path.join(folder, name))


def write_into(path, data, at=0):
    with open(path, "r+b") as f:
        f.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        f.write(data)


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


# What is wrong with a folder, how it is made so, and words of the message.
FAULTS = {
    "a misspelt folder": (lambda f: os.rename(f, f + "-gone"), "No such file"),
    "a file cut in half": (lambda f: truncate(f + "/model.safetensors"), "model.safetensors"),
    "an empty file": (lambda f: os.truncate(f + "/model.safetensors", 0), "model.safetensors"),
    "no weights": (lambda f: os.unlink(f + "/model.safetensors"), "model.safetensors"),
    "weights that are not numbers": (lambda f: write_into(f + "/model.safetensors", b"\xff" * 8, -8), "not finite"),
    "no tokenizer": (lambda f: os.unlink(f + "/vocab.json"), "vocab.json"),
    "no file of a tokenizer": (lambda f: (os.unlink(f + "/vocab.json"), os.unlink(f + "/merges.txt")), "no tokenizer"),
    "a broken tokenizer": (lambda f: truncate(f + "/vocab.json"), "vocab.json"),
    "no configuration": (lambda f: os.unlink(f + "/config.json"), "config.json"),
    "a broken configuration": (lambda f: truncate(f + "/config.json"), "config.json"),
    "another architecture": (lambda f: write_into(f + "/config.json", b'{"model_type":"llama"}' + b" " * 579), "llama"),
    "a configuration of another shape": (lambda f: shutil.copy(LARGE + "/config.json", f), "tensor"),
    "a link that leads nowhere": (lambda f: (os.unlink(f + "/model.safetensors"),
                                             os.symlink("nowhere", f + "/model.safetensors")), "model.safetensors"),
    "a folder that cannot be opened": (lambda f: (shutil.rmtree(f), open(f, "w").close()), "Not a directory"),
}


class Reloaded(Costd):
    """With a configuration that can be written anew."""

    def __init__(self, path, *arguments, **settings):
        self.path = path
        self.write(**settings)
        super().__init__("--config", path, *arguments)

    def write(self, **settings):
        with open(self.path, "w") as f:
            json.dump(settings, f)

    def hup(self):
        """The log's lines from the signal to the end of the reload, without those of requests."""
        n = len(self.lines)
        self.signal(signal.SIGHUP)
        self.await_log(lambda l: l["event"] == "reload" and any(l is m for m in self.lines[n:]))
        with self.arrived:
            return [l for l in self.lines[n:] if l["event"] != "request"]

    def state(self, name):
        return self.get("/admin/models/" + name).json

    def admin(self, method="GET", path="", body=None):
        return self.ask(method, "/admin/models" + path, body)

    def outcome(self, name, seconds=60):
        """Follows a load to its end."""
        end = time.monotonic() + seconds
        while (seen := self.admin(path="/" + name).json)["state"] in ("queued", "loading"):
            check(time.monotonic() < end, "never over:", seen)
            time.sleep(0.01)
        return seen


def server_in(folder, *arguments, **settings):
    """Its administrative listener is the one that ask() and metrics() use; requests go there too with generate()."""
    server = Reloaded(os.path.join(folder, "costd.json"), "--metrics-listen", "127.0.0.1:0", *arguments, **settings)
    main = server.port
    admin = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]

    def ask(method, path, *rest, **more):
        server.port = main if path.startswith("/v1/") and method == "POST" else admin
        return Costd.ask(server, method, path, *rest, **more)

    server.ask = ask
    return server


def events(lines, event):
    return [l for l in lines if l["event"] == event]


def counted(server, outcome):
    return total(server.metrics(), "costd_model_loads_total", outcome=outcome)


def text_of(server, model):
    return server.generate(model, prompt="Once upon a time", max_tokens=20).json["text"]


def the_old_model_serves_through_every_fault():
    with temp_folder() as folder:
        good = copy_of(SMALL, folder, "good")
        with server_in(folder, models={"m": good}) as server:
            said = text_of(server, "m")
            served = server.state("m")
            equal((served["state"], served["serving"], served["error"]), ("loaded", True, None))
            for i, (fault, (break_it, words)) in enumerate(FAULTS.items()):
                bad = copy_of(SMALL, folder, "bad%d" % i)
                break_it(bad)
                for way in ("SIGHUP", "POST"):
                    failed = counted(server, "failed")
                    if way == "SIGHUP":
                        server.write(models={"m": bad})
                        lines = server.hup()
                        equal(events(lines, "reload")[0]["level"], "error", fault)
                        line = events(lines, "model_failed")[0]
                    else:
                        n = len(server.lines)
                        reply = server.admin("POST", body={"id": "m", "folder": bad})
                        if reply.status == 400:
                            check(words in reply.error["message"], fault, reply.body)
                        else:  # it takes a load to know
                            equal(reply.status, 202, fault)
                            server.outcome("m")
                        line = server.await_log(lambda l: l["event"] == "model_failed" and l in server.lines[n:])
                    check(words in line["message"] and "goes on" in line["message"], fault, way, line)
                    equal(counted(server, "failed"), failed + 1, fault)
                    now = server.state("m")
                    equal((now["state"], now["serving"], now["fingerprint"], now["served_folder"]),
                          ("failed", True, served["fingerprint"], good), fault)
                    check(words in now["error"], fault, now)
                    equal((server.get("/ready").status, server.get("/ready").json), (200, {"status": "ok"}), fault)
                    equal(text_of(server, "m"), said, fault)
                    equal(total(server.metrics(), "model_loaded", model_name="m"), 1)
            equal(total(server.metrics(), "costd_reloads_total", outcome="partial"), len(FAULTS))
            equal(total(server.metrics(), "costd_last_reload_successful"), 0)
            # The operator mends it, and all is as before.
            server.write(models={"m": good})
            equal(events(server.hup(), "reload")[0]["level"], "info")
            now = server.state("m")
            equal((now["state"], now["error"], now["folder"]), ("loaded", None, good))
            equal(total(server.metrics(), "costd_last_reload_successful"), 1)


def a_file_of_settings_is_applied_as_a_whole_or_not():
    """Mistakes in the file itself change nothing, not even what stands before them."""
    with temp_folder() as folder:
        before = {"models": {"m": SMALL}, "cpu_cost_per_hour": "1", "daily_budget": "5"}
        with server_in(folder, **before) as server:
            for bad in ({"models": {"m": LARGE}, "cpu_cost_per_hour": "x"},
                        {"cpu_cost_per_hour": "2", "models": {"m": LARGE, "n": 1}},
                        {"cpu_cost_per_hour": "2", "daily_budget": "-1", "models": {"m": LARGE}},
                        {"cpu_cost_per_hour": "2", "models": {"m": LARGE}, "nonsense": 1},
                        {"cpu_cost_per_hour": "2", "models": {}}, {"models": {"m": LARGE}, "reload": "sometimes"},
                        {"models": {"m": LARGE}, "weights": "f17"}, None):
                server.write(**bad) if bad else truncate(server.path)
                lines = server.hup()
                equal([l["event"] for l in lines], ["reload"], bad)
                check("nothing has changed: " in lines[0]["message"] and lines[0]["level"] == "error", lines)
                metrics = server.metrics()
                equal(total(metrics, "costinfer_price_dollars_per_hour"), 1, bad)
                equal(total(metrics, "costd_daily_budget_dollars"), 5, bad)
                equal(server.get("/v1/models/m").json["meta"]["n_embd"], 128, bad)
            equal(total(server.metrics(), "costd_reloads_total", outcome="refused"), 8)
            os.unlink(server.path)
            check("nothing has changed: " in server.hup()[0]["message"])
            equal(server.generate("m", max_tokens=2).json["output_tokens"], 2)


def good_models_of_a_reload_are_loaded():
    """Each model of the file is judged by itself, and each outcome is told."""
    with temp_folder() as folder:
        bad = copy_of(SMALL, folder, "bad")
        truncate(bad + "/model.safetensors")
        with server_in(folder, models={"same": SMALL, "changed": SMALL, "broken": SMALL, "gone": SMALL}) as server:
            server.write(models={"same": SMALL, "changed": LARGE, "broken": bad, "new": LARGE, "no": bad},
                         cpu_cost_per_hour="2")
            lines = server.hup()
            told = {(l["event"], l.get("model") or l["message"].split(":")[0].split()[1]) for l in lines
                    if l["event"].startswith("model_")}
            equal(told, {("model_unchanged", "same"), ("model_loaded", "changed"), ("model_failed", "broken"),
                         ("model_loaded", "new"), ("model_failed", "no"), ("model_unloaded", "gone")})
            equal(events(lines, "reload")[0]["message"], "the settings were read again, but 2 of 5 models were refused")
            # All were looked at before anything was done.
            order = [l["event"] for l in lines]
            check(order.index("price") > max(i for i, e in enumerate(order) if e == "model_failed"), order)
            equal(events(lines, "model_loaded")[0]["replaces"], server.state("same")["fingerprint"])
            equal({m["id"]: m["meta"]["n_embd"] for m in server.get("/v1/models").json["data"]},
                  {"same": 128, "changed": 256, "broken": 128, "new": 256})
            equal({m["id"]: (m["state"], m["wanted"], m["serving"]) for m in server.admin().json["data"]},
                  {"same": ("loaded", True, True), "changed": ("loaded", True, True), "broken": ("failed", True, True),
                   "new": ("loaded", True, True), "no": ("failed", True, False)})
            # One that should be served is not: the others are, and the answer names it.
            equal(server.get("/ready").json, {"status": "degraded", "missing": ["no"]})
            equal((server.get("/ready").status, server.get("/health").status), (200, 200))
            equal(total(server.metrics(), "costd_models_missing"), 1)
            equal(server.post("/v1/generate/no", {"prompt": "a"}).status, 404)
            # What an operator gives up is missing no more.
            equal(server.admin("DELETE", "/no").status, 202)
            end = time.monotonic() + 30
            while server.admin(path="/no").status != 404:
                check(time.monotonic() < end)
            equal(server.get("/ready").json, {"status": "ok"})
            equal(server.admin("DELETE", "/no").status, 404)


def the_last_models_stay_when_none_can_take_their_place():
    """A misspelt folder under a new name is not the end of the service."""
    with temp_folder() as folder:
        with server_in(folder, models={"old": SMALL}) as server:
            server.write(models={"new": "/nowhere"})
            lines = server.hup()
            check(events(lines, "model_kept") and not events(lines, "model_unloaded"), lines)
            equal(server.generate("old", max_tokens=2).json["output_tokens"], 2)
            equal(server.get("/ready").json, {"status": "degraded", "missing": ["new"]})
            server.write(models={"new": LARGE})
            lines = server.hup()
            check(events(lines, "model_unloaded") and events(lines, "reload")[0]["level"] == "info", lines)
            equal([m["id"] for m in server.get("/v1/models").json["data"]], ["new"])


def a_model_is_what_its_files_are():
    with temp_folder() as folder:
        versions = [copy_of(SMALL, folder, "v1"), copy_of(LARGE, folder, "v2")]
        place, current = copy_of(SMALL, folder, "place"), os.path.join(folder, "current")
        os.symlink("v1", current)

        def size(name):
            return server.get("/v1/models/" + name).json["meta"]["n_embd"]

        with server_in(folder, models={"linked": current, "placed": place}) as server:
            def changed(way, name):
                """Has it read again; returns what became of it, as the log says."""
                n = len(server.lines)

                def told():
                    return {l["event"] for l in server.lines[n:] if l["event"].startswith("model_") and
                            (l.get("model") or l["message"].split(":")[0][6:]) == name}

                if way == "SIGHUP":
                    server.hup()
                else:
                    path = current if name == "linked" else place
                    reply = server.admin("POST", body={"id": name, "folder": path})
                    server.outcome(name)
                    server.await_log(lambda l: told())
                    equal(reply.status, 200 if told() == {"model_unchanged"} else 202)
                    equal(reply.json["status"], "unchanged" if reply.status == 200 else "accepted")
                return told()

            for i, way in enumerate(("SIGHUP", "POST") * 2):
                other = (i + 1) % 2
                for name in ("linked", "placed"):
                    equal(changed(way, name), {"model_unchanged"}, (way, name))
                    before = server.state(name)
                    if name == "linked":
                        os.symlink(("v1", "v2")[other], current + ".new")
                        os.replace(current + ".new", current)
                    else:
                        replace_files(place, versions[other])
                    equal(changed(way, name), {"model_loaded"}, (way, name))
                    equal(size(name), (128, 256)[other], (way, name))
                    after = server.state(name)
                    check(after["fingerprint"] != before["fingerprint"], after)
                    equal(server.get("/v1/models/" + name).json["fingerprint"], after["fingerprint"])
            equal(server.state("linked")["fingerprint"], server.state("placed")["fingerprint"], "the same version")

            # The same size and names, written in place, to the very time of before; a new file; a file less.
            weights = os.path.join(place, "model.safetensors")
            times = os.stat(weights)
            for change in (lambda: (write_into(weights, b"\0\0", os.path.getsize(weights) // 2),
                                    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))),
                           lambda: open(place + "/config.json", "a").write("\n"),
                           lambda: shutil.copy(weights, place + "/other.safetensors"),
                           lambda: os.unlink(place + "/generation_config.json"),
                           lambda: shutil.copytree(place, place + ".new") and shutil.rmtree(place) or
                           os.rename(place + ".new", place)):
                change()
                equal(changed("SIGHUP", "placed"), {"model_loaded"})
                equal(changed("POST", "placed"), {"model_unchanged"})
            with open(place + "/README.md", "w") as f:
                f.write("not of the model")
            equal(changed("SIGHUP", "placed"), {"model_unchanged"})
            check(counted(server, "unchanged") > 10)
            # How they are loaded is part of it.
            server.write(models={"linked": current, "placed": place}, weights="int8")
            equal(changed("SIGHUP", "placed"), {"model_loaded"})
            equal(server.get("/v1/models/placed").json["meta"]["weights"], "int8")


def settings_that_need_a_restart_are_named():
    with temp_folder() as folder:
        first = {"models": {"m": SMALL}, "queue": 7, "listen": "127.0.0.1:0", "latency_buckets": [1, 2],
                 "no_speculation": True, "kv": "f32", "basis": "wall", "kv_memory": "64M"}
        with server_in(folder, **first) as server:
            equal(events(server.hup(), "setting"), [])
            for key, value in (("queue", 8), ("latency_buckets", [1, 3]), ("no_speculation", False), ("kv", "f16"),
                               ("basis", "cpu"), ("kv_memory", "65M"), ("stall_seconds", 3), ("body_bytes", "2M"),
                               ("keys", "/nowhere"), ("strict", True), ("threads", 3), ("drain_seconds", 1)):
                server.write(**{**first, key: value})
                for _ in range(2):  # as long as it differs from what runs
                    lines = server.hup()
                    named = [l["message"].split()[0] for l in events(lines, "setting")]
                    equal(named, ["--" + key.replace("_", "-")], key)
                    equal(events(lines, "reload")[0]["level"], "info")
            server.write(**{**first, "queue": 8, "basis": "cpu"})
            equal(len(events(server.hup(), "setting")), 2)
            server.write(**first)
            equal(events(server.hup(), "setting"), [])


def a_load_can_be_followed():
    with temp_folder() as folder:
        with server_in(folder, models={"small": SMALL}) as server:
            reply = server.admin("POST", body={"id": "a b/ü", "folder": LARGE})
            equal((reply.status, reply.json["status"], reply.json["id"]), (202, "accepted", "a b/ü"))
            link = reply.json["href"]
            equal((link, reply.headers["location"]), ("/admin/models/a%20b%2F%C3%BC",) * 2)
            states = []
            end = time.monotonic() + 60
            while not states or states[-1]["state"] in ("queued", "loading"):
                states.append(server.get(link).json)
                check(states[-1]["bytes_done"] <= states[-1]["bytes_total"], states[-1])
                check(time.monotonic() < end, states[-1])
            last = states[-1]
            equal((last["state"], last["wanted"], last["serving"], last["served_folder"], last["error"]),
                  ("loaded", True, True, LARGE, None))
            check(abs(last["loaded_at"] - time.time()) < 60 and len(last["fingerprint"]) == 64, last)
            equal(last["bytes_done"], last["bytes_total"])
            line = server.await_log(lambda l: l["event"] == "model_loaded" and l["model"] == "a b/ü")
            equal((line["fingerprint"], "replaces" in line), (last["fingerprint"], False))
            equal(server.get("/admin/models/nothing").status, 404)
            equal(server.ask("DELETE", link).status, 202)
            end = time.monotonic() + 60
            while (reply := server.get(link)).status == 200:
                equal(reply.json["state"], "unloading")
                check(time.monotonic() < end)
            equal(reply.status, 404)
            # Requests that run end before their model goes, and it is seen to be going.
            results = []
            thread = threading.Thread(target=lambda: results.append(server.generate("small", max_tokens=240)))
            server.post("/admin/models", {"id": "large", "folder": LARGE})
            server.outcome("large")
            equal(sorted(m["id"] for m in server.admin().json["data"]), ["large", "small"])
            thread.start()
            thread.join()
            equal(len(results), 1)


def there_is_room_for_so_many_models():
    """A model too many is refused in the answer."""
    with temp_folder() as folder:
        with server_in(folder, "--slots", "1", models={"m%d" % i: SMALL for i in range(63)}) as server:
            equal(server.admin("POST", body={"id": "last", "folder": SMALL}).status, 202)
            reply = server.admin("POST", body={"id": "more", "folder": SMALL})
            equal((reply.status, reply.error["param"]), (400, "id"))
            check("64 models" in reply.error["message"], reply.body)
            equal(server.outcome("last")["state"], "loaded")
            equal(server.admin("POST", body={"id": "m3", "folder": LARGE}).status, 202, "a known name")
            equal(server.outcome("m3")["state"], "loaded")
            equal(server.admin("DELETE", "/m5").status, 202)
            end = time.monotonic() + 60
            while server.admin(path="/m5").status == 200:
                check(time.monotonic() < end)
            equal(server.admin("POST", body={"id": "more", "folder": SMALL}).status, 202)
            equal(server.outcome("more")["state"], "loaded")


def without_room_for_two():
    """The caches have room for 8 slots of the small model: 4 for the first, 2 for the second, and 2 are left."""
    with temp_folder() as folder:
        first, second = copy_of(SMALL, folder, "a"), copy_of(SMALL, folder, "b")
        settings = {"models": {"a": first, "b": second}, "kv_memory": "8M", "slots": 4}
        with server_in(folder, **settings) as server:
            equal([m["meta"]["slots"] for m in server.get("/v1/models").json["data"]], [4, 2])
            os.utime(first + "/model.safetensors")
            lines = server.hup()
            check("room for 2 slots" in events(lines, "model_failed")[0]["message"], lines)
            equal(server.get("/v1/models/a").json["meta"]["slots"], 4)
            equal(server.get("/ready").json, {"status": "ok"})
            reply = server.admin("POST", body={"id": "a", "folder": first})
            equal(reply.status, 202)
            equal(server.outcome("a")["state"], "failed")
            equal(server.admin("POST", body={"id": "a", "folder": first, "unload_first": True}).status, 202)
            equal(server.outcome("a")["state"], "loaded")
            equal(server.get("/v1/models/a").json["meta"]["slots"], 3)
            server.await_log(lambda l: len(events(server.lines, "model_loaded")) == 3)
            # As a setting, which SIGHUP applies.
            os.utime(first + "/model.safetensors")
            server.write(**settings, reload="unload-first")
            lines = server.hup()
            order = [l["event"] for l in lines if l["event"].startswith("model_")]
            equal(order, ["model_unloaded", "model_loaded", "model_unchanged"])
            # What can be known before the old one is given up still is.
            truncate(first + "/vocab.json")
            equal([l["event"] for l in server.hup() if l["event"] != "reload"], ["model_failed", "model_unchanged"])
            equal(server.generate("a", max_tokens=2).json["output_tokens"], 2)
            # The rest ends it, and readiness says so once nothing is served.
            shutil.copy(SMALL + "/vocab.json", first)
            for path in (first, second):
                write_into(path + "/model.safetensors", b"\xff" * 8, -8)
            server.hup()
            ready = server.get("/ready")
            equal((ready.status, ready.error["code"]), (503, "no_model_loaded"))
            equal(total(server.metrics(), "costd_models_missing"), 2)
            for source, path in ((SMALL, first), (SMALL, second)):
                replace_files(path, source)
            server.hup()
            equal((server.get("/ready").status, server.get("/ready").json), (200, {"status": "ok"}))


def prices_are_told_when_they_are_set():
    with temp_folder() as folder:
        with server_in(folder, models={"m": SMALL}, cpu_cost_per_hour="1") as server:
            for body, status in (({"dollars_per_hour": "2"}, 202), ({"dollars_per_hour": "x"}, 400),
                                 ({"dollars_per_hour": None}, 202), ({"dollars_per_hour": "3"}, 202)):
                equal(server.ask("PUT", "/admin/price", body).status, status)
                if status == 202:
                    price = total(server.metrics(), "costinfer_price_dollars_per_hour")
                    equal(price, float(body["dollars_per_hour"] or 0))
            server.hup()
            equal(total(server.metrics(), "costinfer_price_dollars_per_hour"), 1)


def stream(port, model, out, stop):
    """One client: streams without a pause; what came wrong goes to `out`."""
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 25, "ignore_eos": True, "stream": True})
    headers = {"Content-Type": "application/json"}
    while not stop.is_set():
        reply = Costd.ask(port, "POST", "/v1/generate/" + model, body, headers, timeout=120)
        done = reply.status == 200 and reply.events[-1] == "[DONE]"
        out.append((done, reply.status, reply.events[-2].get("device_seconds") if done else reply.body[-300:]))


class Port:
    def __init__(self, port):
        self.port = port


def a_model_is_swapped_under_load():
    """16 clients stream while their model is loaded again, good and bad in turn: none of them notices."""
    with temp_folder() as folder:
        place = copy_of(SMALL, folder, "place")
        bad = copy_of(SMALL, folder, "bad")
        truncate(bad + "/model.safetensors")
        with server_in(folder, models={"m": place}, cpu_cost_per_hour="1") as server:
            def descriptors():
                return int(total(server.metrics(), "process_open_fds"))

            out, stop, idle = [], threading.Event(), descriptors()
            port = Port(server.await_log(lambda l: l["event"] == "listening")["port"])
            threads = [threading.Thread(target=stream, args=(port, "m", out, stop)) for _ in range(16)]
            for thread in threads:
                thread.start()
            memory = []
            for i in range(10):
                n = len(out)
                replace_files(place, SMALL)
                server.write(models={"m": place}, cpu_cost_per_hour="1")
                equal(events(server.hup(), "reload")[0]["level"], "info")
                if i % 2:
                    server.write(models={"m": bad}, cpu_cost_per_hour="1")
                    equal(events(server.hup(), "reload")[0]["level"], "error")
                else:
                    equal(server.admin("POST", body={"id": "m", "folder": bad}).status, 400)
                end = time.monotonic() + 120
                while len(out) < n + 16:
                    check(time.monotonic() < end, "the clients wait")
                    time.sleep(0.02)
                memory.append(int(total(server.metrics(), "process_resident_memory_bytes")))
            stop.set()
            for thread in threads:
                thread.join()
            equal([o for o in out if not o[0]], [], "failed requests")
            equal(counted(server, "loaded"), 11)
            metrics = server.settle()
            accounts = {dict(l)["account"]: ns(v) for (n, l), v in metrics.items()
                        if n == "costinfer_device_seconds_total"}
            equal(sum(accounts.values()), ns(total(metrics, "costinfer_device_uptime_seconds")))
            equal(sum(ns(o[2]) for o in out), accounts["serve"], "the answers' sum")
            equal(total(metrics, "model_request_total"), len(out))
            equal(total(metrics, "model_loaded", model_name="m"), 1)
            end = time.monotonic() + 60
            while descriptors() > idle:
                check(time.monotonic() < end, "descriptors stay open:", descriptors(), "before:", idle)
                time.sleep(0.05)
            if not sanitized():
                check(max(memory[5:]) < max(memory[:5]) + (24 << 20), memory)


def sighups_by_the_thousand():
    """They are one reload, and SIGTERM does not wait for them."""
    with temp_folder() as folder:
        with server_in(folder, models={"m": SMALL}) as server:
            for _ in range(20000):
                server.signal(signal.SIGHUP)
            server.hup()
            check(len(events(server.lines, "reload")) < 10000)
            for _ in range(20000):
                server.signal(signal.SIGHUP)
            start = time.monotonic()
            server.stop()
            check(time.monotonic() - start < 10, "it took", time.monotonic() - start)


if __name__ == "__main__":
    run(the_old_model_serves_through_every_fault, a_file_of_settings_is_applied_as_a_whole_or_not,
        good_models_of_a_reload_are_loaded, the_last_models_stay_when_none_can_take_their_place,
        a_model_is_what_its_files_are, settings_that_need_a_restart_are_named, a_load_can_be_followed,
        there_is_room_for_so_many_models, without_room_for_two, prices_are_told_when_they_are_set,
        a_model_is_swapped_under_load, sighups_by_the_thousand)
