"""A secret goes in at every place where a client can put one, at each route, into good requests and into those that are
refused.  It comes back to that client alone; it is in no line of the log, no metric, no page, no answer to others.

What the log does say of a client is method, path and, once it is found, the model's name, and the ids that are made
for logs, x-request-id and traceparent: nothing secret belongs there."""
import base64
import hashlib
import json
import os
import socket
import urllib.parse

from costd_support import SMALL, Costd, check, equal, reset, run, run_costd, temp_folder

SECRET = "Zebra77Quagga"  # as a prompt, a key, a member's name
KEY, ADMIN = "key-" + SECRET, "admin-" + SECRET
# Whatever it may be turned into on the way: escaped, encoded, cut.
TRACES = [t.lower() for t in (SECRET, SECRET[:8], SECRET[5:], urllib.parse.quote(SECRET), SECRET[::-1],
                              base64.b64encode(SECRET.encode()).decode()[:12], SECRET.encode().hex(),
                              hashlib.sha256(KEY.encode()).hexdigest()[:16])]
GOOD = {"model": "small", "prompt": SECRET, "max_tokens": 3}


def trace_in(data):
    text = data.decode(errors="replace").lower() if isinstance(data, bytes) else data.lower()
    return next((t for t in TRACES if t in text), None)


def bodies():
    """Good and bad ones, the secret in each."""
    yield GOOD
    yield {**GOOD, "echo": True, "logprobs": 1, "stop": [SECRET + "!"], "user": SECRET}
    yield {**GOOD, "stream": True}
    yield {**GOOD, "max_tokens": 0, "echo": True, "logprobs": 0}
    for bad in ({"max_tokens": -1}, {"max_tokens": SECRET}, {"temperature": SECRET}, {"stop": [SECRET] * 5},
                {"stop": SECRET * 30}, {"logit_bias": {SECRET: 1}}, {"logit_bias": {"1": SECRET}}, {"n": SECRET},
                {"suffix": SECRET}, {"prompt": [SECRET, 1]}, {"prompt": {SECRET: 1}}, {"prompt": SECRET * 900},
                {"stream_options": SECRET}, {"seed": SECRET}, {"model": SECRET}, {"best_of": 0}, {SECRET: SECRET},
                {"stream": True, "best_of": 3, "n": 2}, {"content": SECRET}, {"tokens": [SECRET]},
                {"tokens": SECRET}, {"id": "made-up", "folder": "/nowhere/" + SECRET}, {"dollars_per_hour": SECRET}):
        yield {**GOOD, **bad}
    yield {"id": "synthetic", "folder": "/nowhere/" + SECRET}
    yield ('{"prompt": "%s", "prompt": "%s"}' % (SECRET, SECRET)).encode()
    yield ('{"prompt": "%s' % SECRET).encode()
    yield ('%s' % SECRET).encode()
    yield ('["%s"]' % SECRET).encode()
    yield b'{"prompt": "%s\xff"}' % SECRET.encode()
    yield ('{"prompt": "%s\\u0000"}' % SECRET).encode()
    yield b'{"a": ' * 20 + SECRET.encode()
    yield SECRET.encode() * 90000  # too large


HEADERS = ({}, {"Content-Type": "text/" + SECRET}, {"Authorization": "Bearer wrong" + SECRET},
           {"Authorization": "Basic " + SECRET}, {"Cookie": SECRET}, {"Referer": "http://x/" + SECRET},
           {"User-Agent": SECRET}, {"Accept": SECRET}, {"If-None-Match": SECRET},
           {"OpenAI-Organization": SECRET}, {"Origin": "http://" + SECRET})
POSTS = ("/v1/completions", "/v1/generate/small", "/tokenize", "/detokenize", "/admin/models",
         "/v1/chat/completions", "/v1/embeddings", "/nothing")
GETS = ("/", "/page/start.js", "/v1/models", "/v1/models/small", "/api/history", "/api/recent", "/metrics", "/props",
        "/openapi.json", "/health", "/ready", "/nothing", "/v1/completions")


def raw(server):
    """What no client library would send: broken heads, a cut body, a stream that is left."""
    s = SECRET.encode()
    key = b"Host: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n" % KEY.encode()
    for head in (b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % s,
                 b"GET / HTTP/1.1\r\nHost: a\r\nHost: %s\r\n\r\n" % s,
                 b"GET / %s\r\n\r\n" % s,
                 b"GET / HTTP/1.1\r\nHost: x\r\n%s\x01: 1\r\n\r\n" % s,
                 b"GET / HTTP/1.1\r\nHost: x\r\nA: %s\x01\r\n\r\n" % s,
                 b"POST /v1/completions HTTP/1.1\r\n" + key + b"Content-Length: %s\r\n\r\n" % s,
                 b"POST /v1/completions HTTP/1.1\r\n" + key + b"Transfer-Encoding: %s\r\n\r\n" % s,
                 b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + s * 3000 + b"\r\n\r\n"):
        server.raw_exchange(head, seconds=2)
    body = json.dumps({**GOOD, "stream": True, "max_tokens": 200, "ignore_eos": True}).encode()
    for sent in (body[:30], body):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(b"POST /v1/completions HTTP/1.1\r\n" + key + b"Content-Length: %d\r\n\r\n" % len(body) + sent)
        if sent == body:
            s.recv(100)
        reset(s)


def the_secret_stays_with_its_client():
    with temp_folder() as folder:
        keys = os.path.join(folder, "keys")
        with open(keys, "w") as f:
            for name, key, role in (("user", KEY, ""), ("boss", ADMIN, "admin"), ("other", "other", "")):
                f.write("%s %s %s\n" % (name, hashlib.sha256(key.encode()).hexdigest(), role))
        os.chmod(keys, 0o600)
        with Costd("--model", "small=" + SMALL, "--keys", keys) as server:
            seen = {}
            for path in POSTS:
                for body in bodies():
                    for key in (KEY, ADMIN, SECRET):
                        reply = server.ask("POST", path + "?api_key=" + SECRET, body, {
                            "Authorization": "Bearer " + key, "Content-Type": "application/json"})
                        seen[reply.status] = seen.get(reply.status, 0) + 1
                        # A key is never sent back; other text may be, to the client that sent it.
                        check(key not in reply.body.decode(), "a key in an answer:", reply.body)
                for headers in HEADERS:
                    server.ask("POST", path, GOOD, {"Authorization": "Bearer " + KEY,
                                                    "Content-Type": "application/json", **headers})
            for path in GETS:
                for headers in HEADERS:
                    reply = server.ask("GET", path + "?q=" + SECRET, None, {"Authorization": "Bearer " + KEY, **headers})
                    check(not trace_in(reply.body), path, "says", reply.body[:200])
            server.ask("PUT", "/admin/price", {"dollars_per_hour": SECRET}, {"Authorization": "Bearer " + ADMIN})
            raw(server)
            check(seen.get(200, 0) > 10 and seen.get(400, 0) > 100 and seen.get(401, 0) > 100 and
                  seen.get(413, 0) > 5, seen)

            others = {"Authorization": "Bearer other"}
            for path in GETS:
                reply = server.ask("GET", path, None, others)
                check(not trace_in(reply.body) and not trace_in(str(reply.headers)), path, "says", reply.body[:200])
        log = b"".join(server.raw)
        equal(log.count(b'"event":"request"') > 500, True, "requests in the log")
        # The folder of a model that an administrator asks for is named when it cannot be loaded.
        lines = [line for line in log.splitlines() if b'"event":"model_failed"' not in line]
        for line in lines:
            check(not trace_in(line), "in the log:", line)


def a_key_in_its_file():
    """Who writes the key itself where its digest belongs does not find it in an error message."""
    with temp_folder() as folder:
        keys = os.path.join(folder, "keys")
        for line in ("user " + KEY, KEY, "user %s %s" % ("0" * 64, SECRET), "a b c " + SECRET,
                     "%s!%s %s" % (SECRET, SECRET, "0" * 64)):
            with open(keys, "w") as f:
                f.write(line + "\n")
            code, out, err = run_costd("--model", "small=" + SMALL, "--listen", "127.0.0.1:0", "--keys", keys)
            equal(code, 1, err)
            check(not trace_in(out + err), "it says", out + err)


run(the_secret_stays_with_its_client, a_key_in_its_file)
