"""Changes by hand while requests go on, /props, and the choices of best_of."""
import hashlib
import os
import time
from decimal import Decimal

from costd_support import LARGE, SMALL, Costd, check, equal, run, temp_folder


def until(condition, what):
    end = time.monotonic() + 120
    while not condition():
        check(time.monotonic() < end, "never:", what)
        time.sleep(0.02)


def ids(server):
    return sorted(m["id"] for m in server.get("/v1/models").json["data"])


def change(server):
    """Everything, on a server whose port is one for administration."""
    def accepted(reply, name=None):
        wanted = {"status": "accepted"}
        if name:
            wanted.update(id=name, href="/admin/models/" + name)
            equal(reply.headers.get("location", wanted["href"]), wanted["href"])
        equal((reply.status, reply.json), (202, wanted), reply.body)

    def refused(reply, *words):
        equal((reply.status, reply.error["code"], reply.error["param"]), (400, "invalid_value", "folder"), reply.body)
        check(all(w in reply.error["message"] for w in words), reply.body)

    accepted(server.post("/admin/models", {"id": "large", "folder": LARGE}), "large")
    until(lambda: ids(server) == ["large", "small"], "large is loaded")
    accepted(server.ask("DELETE", "/admin/models/small"), "small")
    until(lambda: ids(server) == ["large"], "small is unloaded")
    accepted(server.post("/admin/models", {"id": "large", "folder": SMALL}), "large")
    folder = os.path.realpath(SMALL)
    server.await_log(lambda l: l["event"] == "model_loaded" and l["model"] == "large" and
                     os.path.realpath(l["folder"]) == folder)
    refused(server.post("/admin/models", {"id": "nothing", "folder": "/nowhere"}), "/nowhere", "No such file")
    server.await_log(lambda l: l["event"] == "model_failed")
    equal(ids(server), ["large"])
    seen = server.get("/admin/models/nothing").json
    equal((seen["state"], seen["wanted"], seen["serving"], seen["fingerprint"]), ("failed", False, False, None))
    check("/nowhere" in seen["error"], seen)
    equal(server.post("/v1/generate/nothing", {"prompt": "a"}).status, 404)
    equal(server.get("/ready").json, {"status": "ok"})
    equal(sorted(m["id"] for m in server.get("/admin/models").json["data"]), ["large", "nothing"])

    for method, path, body, status, code, param in (
            ("POST", "/admin/models", {"id": "x"}, 400, "invalid_value", "folder"),
            ("POST", "/admin/models", {"folder": SMALL}, 400, "invalid_value", "id"),
            ("POST", "/admin/models", {"id": "a\nb", "folder": SMALL}, 400, "invalid_value", "folder"),
            ("POST", "/admin/models", {"id": 1, "folder": SMALL}, 400, "invalid_value", "id"),
            ("DELETE", "/admin/models/small", None, 404, "model_not_found", "model"),
            # An operator's misspelling changes nothing.
            ("POST", "/admin/models", {"id": "x", "folder": SMALL, "wieghts": "f16"}, 400, "invalid_value", "wieghts"),
            ("PUT", "/admin/price", {"dollars_per_hour": "1", "x": 1}, 400, "invalid_value", "x"),
            ("PUT", "/admin/price", {}, 400, "invalid_value", "dollars_per_hour"),
            ("PUT", "/admin/price", {"dollars_per_hour": 1}, 400, "invalid_value", "dollars_per_hour"),
            ("PUT", "/admin/price", {"dollars_per_hour": "-1"}, 400, "invalid_value", "dollars_per_hour"),
            ("PUT", "/admin/price", {"dollars_per_hour": "1000001"}, 400, "invalid_value", "dollars_per_hour"),
            ("GET", "/admin/price", None, 405, "method_not_allowed", None)):
        reply = server.ask(method, path, body)
        equal((reply.status, reply.error["code"], reply.error["param"]), (status, code, param), (path, body))

    accepted(server.ask("PUT", "/admin/price", {"dollars_per_hour": "3600"}))
    server.await_log(lambda l: l["event"] == "price")
    props = server.get("/props").json
    equal((props["limits"]["choices"], props["limits"]["logprobs"]), (64, 20))
    equal(props["device"]["kv"], "f32")
    equal(props["device"]["speculation"], props["device"]["name"] == "cpu")


def the_private_metrics_listener_changes_things():
    with Costd("--model", "small=" + SMALL, "--metrics-listen", "127.0.0.1:0") as server:
        main = server.port
        for method, path in (("POST", "/admin/models"), ("PUT", "/admin/price"), ("DELETE", "/admin/models/small")):
            equal(server.ask(method, path, {}).status, 404)
        server.port = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
        change(server)
        server.port = main
        reply = server.complete(model="large", prompt="a", max_tokens=3).json
        # A dollar a second: the request has the new price.
        equal(reply["cost"]["dollars"].quantize(Decimal("1e-9")), reply["cost"]["device_seconds"])


class WithKey(Costd):
    key = None

    def ask(self, method, path, body=None, headers=None, timeout=60):
        headers = {**({"Authorization": "Bearer " + self.key} if self.key else {}), **(headers or {})}
        return super().ask(method, path, body, headers, timeout)


def an_admin_key_changes_things():
    with temp_folder() as folder:
        path = os.path.join(folder, "keys")
        with open(path, "w") as f:
            f.write("user %s\nroot %s admin\n" % tuple(hashlib.sha256(k).hexdigest() for k in (b"u", b"r")))
        with WithKey("--model", "small=" + SMALL, "--keys", path) as server:
            for key, status in ((None, 401), ("x", 401), ("u", 403)):
                server.key = key
                for method, where in (("POST", "/admin/models"), ("PUT", "/admin/price"),
                                      ("DELETE", "/admin/models/small")):
                    equal(server.ask(method, where, {}).status, status, key)
            server.key = "r"
            change(server)
    with Costd("--model", "small=" + SMALL) as server:
        equal(server.ask("PUT", "/admin/price", {"dollars_per_hour": "1"}).status, 403, "without any key")


def the_best_of_several():
    with Costd("--model", "small=" + SMALL) as server:
        fields = {"prompt": "Once upon a time", "max_tokens": 6, "seed": 7, "ignore_eos": True}
        every = server.complete(n=5, logprobs=0, **fields).json
        ranked = sorted(every["choices"], key=lambda c: -sum(c["logprobs"]["token_logprobs"]))
        for n in (1, 2):
            body = server.complete(n=n, best_of=5, **fields).json
            equal([c["text"] for c in body["choices"]], [c["text"] for c in ranked[:n]])
            equal([c["index"] for c in body["choices"]], list(range(n)))
            equal([c["logprobs"] for c in body["choices"]], [None] * n)
            equal(body["usage"]["completion_tokens"], 30, "all of them are paid")
            equal(body["system_fingerprint"], every["system_fingerprint"])
        two = server.complete(**{**fields, "prompt": ["a", "b"], "n": 1, "best_of": 3}).json
        equal([c["index"] for c in two["choices"]], [0, 1])
        same = server.complete(n=5, best_of=5, logprobs=0, **fields).json
        equal([c["text"] for c in same["choices"]], [c["text"] for c in every["choices"]], "in their order")
        for bad in ({"n": 2, "best_of": 1}, {"best_of": 2, "stream": True}, {"best_of": 65}):
            reply = server.post("/v1/completions", {**fields, **bad})
            equal((reply.status, reply.error["param"]), (400, "best_of"), bad)


if __name__ == "__main__":
    run(the_private_metrics_listener_changes_things, an_admin_key_changes_things, the_best_of_several)
