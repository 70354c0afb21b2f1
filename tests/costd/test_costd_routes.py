"""Every route of costd and every refusal, over loopback."""
import http.client
import json
import math

from costd_support import (CANARY, LARGE, SMALL, TWO, Costd, check, equal, expected, run)

PRICES = ["--cpu-cost-per-hour", "0.10"]
server = None


def plain_routes():
    equal(server.get("/health").json, {"status": "ok"})
    equal(server.get("/ready").json, {"status": "ok"})
    models = server.get("/v1/models").json
    equal(models["object"], "list")
    equal([m["id"] for m in models["data"]], ["small", "large"])
    one = server.get("/v1/models/small").json
    equal((one["object"], one["meta"]["n_ctx"], one["meta"]["n_vocab"]), ("model", 256, 2048))
    check("model_request_total" in server.get("/metrics").body.decode(), "no metrics")
    head = server.ask("HEAD", "/health")
    equal((head.status, head.body), (200, b""))


def the_texts_are_the_expected_ones():
    for model, folder in (("small", SMALL), ("large", LARGE)):
        for case in expected(folder):
            n = len(case["greedy_ids"])
            answer = server.generate(model, prompt=case["prompt"], max_tokens=n, ignore_eos=True).json
            equal(answer["text"], case["prompt"] + case["text"])
            equal((answer["input_tokens"], answer["output_tokens"]), (len(case["prompt_ids"]), n))
            equal(answer["finish_reason"], "length")
            answer = server.complete(model=model, prompt=case["prompt_ids"], max_tokens=n, temperature=0,
                                     ignore_eos=True, logprobs=0).json
            equal(answer["choices"][0]["text"], case["text"])


def generate_defaults():
    answer = server.post("/v1/generate/small", {"prompt": "Hello"}).json
    equal(set(answer), {"model", "text", "input_tokens", "output_tokens", "latency_seconds",
                        "estimated_cost_usd", "finish_reason", "queue_seconds", "prefill_seconds",
                        "decode_seconds", "device_seconds", "cached_tokens"})
    check(answer["text"].startswith("Hello"), answer)
    check(answer["output_tokens"] <= 50, answer)
    # The tutorial's client: parameters in the query, no body.
    query = server.ask("POST", "/v1/generate/small?prompt=Once+upon%20a&max_tokens=3").json
    equal((query["text"], query["output_tokens"]), ("Once upon a time there was", 3))
    equal(server.ask("POST", "/v1/generate/small?prompt=a&max_tokens=1", b"").status, 200)
    for origin, status in (("http://evil", 403), ("http://127.0.0.1:%d" % server.port, 415)):
        equal(server.ask("POST", "/v1/generate/small", b"", {"Origin": origin}).status, status)
    equal(server.ask("POST", "/v1/generate/small?max_tokens=x").error["param"], "max_tokens")
    equal(server.ask("POST", "/v1/generate/small?prompt=%00").error["param"], "prompt")


def streaming_equals_whole():
    for seed in (0, 1, 7):
        fields = dict(prompt="There was once a shy", max_tokens=60, temperature=1.2, top_k=50, seed=seed)
        whole = server.generate("small", **fields).json
        stream = server.generate("small", stream=True, **fields)
        equal(stream.headers["content-type"], "text/event-stream")
        *pieces, last, done = stream.events
        equal(done, "[DONE]")
        equal(fields["prompt"] + "".join(p["delta"] for p in pieces), last["text"])
        equal((last["text"], last["finish_reason"], last["output_tokens"]),
              (whole["text"], whole["finish_reason"], whole["output_tokens"]))

        fields = dict(model="large", prompt=["Long ago, a", "Lily"], n=2, max_tokens=30, logprobs=3, seed=seed)
        whole = server.complete(**fields).json
        chunks = server.complete(stream=True, stream_options={"include_usage": True}, **fields).events
        *chunks, usage, done = chunks
        equal((done, usage["choices"], usage["usage"]), ("[DONE]", [], whole["usage"] | {
            "prompt_tokens_details": usage["usage"]["prompt_tokens_details"]}))
        equal({c["usage"] for c in chunks}, {None})
        for choice in whole["choices"]:
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
            equal("".join(c["text"] for c in mine), choice["text"])
            equal([c["finish_reason"] for c in mine],
                  [None] * (len(mine) - 1) + [choice["finish_reason"]])
            for key in choice["logprobs"]:
                joined = [v for c in mine for v in c["logprobs"][key]]
                if key in ("tokens", "text_offset"):
                    equal(joined, choice["logprobs"][key])


def completions_shape():
    answer = server.complete(model="small", prompt="Once upon a time", max_tokens=5, temperature=0).json
    equal(set(answer), {"id", "object", "created", "model", "system_fingerprint", "choices", "usage",
                        "cost"})
    equal(answer["object"], "text_completion")
    check(answer["id"].startswith("cmpl-"), answer["id"])
    equal(answer["choices"], [{"text": " there was a little girl", "index": 0, "logprobs": None,
                               "finish_reason": "length"}])
    usage = answer["usage"]
    equal((usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]), (4, 5, 9))
    equal(set(answer["cost"]), {"dollars", "device_seconds", "latency_seconds", "queue_seconds",
                                "prefill_seconds", "decode_seconds", "cached_tokens"})
    equal(server.complete(model="small", prompt="Once", temperature=0).json["usage"]["completion_tokens"], 16)
    empty = server.complete(model="small", prompt="", temperature=0, max_tokens=4, echo=True).json
    equal(empty["choices"][0]["text"], "Once upon a time")


def prompts_of_every_kind():
    ids = expected(SMALL)[1]["prompt_ids"]
    text = expected(SMALL)[1]["prompt"]
    wanted = server.complete(model="small", prompt=text, temperature=0, max_tokens=8).json["choices"][0]["text"]
    for prompt, n in ((ids, 1), ([ids], 1), ([text, text], 2), ([ids, ids, ids], 3)):
        choices = server.complete(model="small", prompt=prompt, temperature=0, max_tokens=8).json["choices"]
        equal([c["text"] for c in choices], [wanted] * n)
    choices = server.complete(model="small", prompt=["Once", "Lily"], n=3, temperature=0, max_tokens=2,
                              echo=True).json["choices"]
    equal([c["index"] for c in choices], list(range(6)))
    equal([c["text"].split()[0] for c in choices], ["Once"] * 3 + ["Lily"] * 3)


def stop_strings():
    base = server.complete(model="small", prompt="Once upon a time", temperature=0, max_tokens=30).json
    text = base["choices"][0]["text"]
    for stop in ("She", ["xyz", " lived", "She l"], "e li"):
        first = min(text.index(s) for s in ([stop] if isinstance(stop, str) else stop) if s in text)
        for fields in ({}, {"stream": True}):
            reply = server.complete(model="small", prompt="Once upon a time", temperature=0, max_tokens=30,
                                    stop=stop, **fields)
            if fields:
                choices = [e["choices"][0] for e in reply.events if e != "[DONE]"]
                equal(("".join(c["text"] for c in choices), choices[-1]["finish_reason"]),
                      (text[:first], "stop"))
            else:
                choice = reply.json["choices"][0]
                equal((choice["text"], choice["finish_reason"]), (text[:first], "stop"))


def logprobs_and_echo():
    prompt = "Once upon a time there was"
    scored = server.complete(model="large", prompt=prompt, echo=True, max_tokens=0, logprobs=10,
                             temperature=0).json
    choice, l = scored["choices"][0], scored["choices"][0]["logprobs"]
    equal((choice["text"], choice["finish_reason"]), (prompt, "length"))
    equal(scored["usage"]["completion_tokens"], 0)
    equal("".join(l["tokens"]), prompt)
    equal((l["token_logprobs"][0], l["top_logprobs"][0]), (None, None))
    equal(l["text_offset"], [prompt.index(t) for t in l["tokens"]])
    for token, logprob, top in list(zip(l["tokens"], l["token_logprobs"], l["top_logprobs"]))[1:]:
        check(10 <= len(top) <= 11 and top[token] == logprob, top)
        check(sum(math.exp(v) for v in top.values()) < 1.00001, top)
    # Generated tokens are scored alike, and offsets go on from the prompt.
    more = server.complete(model="large", prompt=prompt, max_tokens=3, logprobs=0, temperature=0).json
    m = more["choices"][0]["logprobs"]
    equal(m["text_offset"][0], len(prompt))
    equal([len(t) for t in m["top_logprobs"]], [1, 1, 1])
    again = server.complete(model="large", prompt=prompt + more["choices"][0]["text"], echo=True, max_tokens=0,
                            logprobs=1).json["choices"][0]["logprobs"]
    for a, b in zip(m["token_logprobs"], again["token_logprobs"][-3:]):
        check(abs(a - b) < 1e-3, "scores differ:", a, b)
    # What an empty prompt becomes is scored, and is not in the text.
    for fields in dict(echo=True), {}:
        choice = server.complete(model="small", prompt="", max_tokens=3, logprobs=0, temperature=0,
                                 **fields).json["choices"][0]
        l = choice["logprobs"]
        made = l["tokens"][len(l["tokens"]) - 3:]
        equal((l["tokens"][:-3], "".join(made)), (["<|endoftext|>"] if fields else [], choice["text"]))
        equal(l["text_offset"], [0] * (len(l["tokens"]) - 3) + [choice["text"].index(t) for t in made])
    # Pieces that are not UTF-8 on their own.
    odd = server.complete(model="small", prompt="a\u20acb", echo=True, max_tokens=0, logprobs=1).json
    l = odd["choices"][0]["logprobs"]
    check(any(t.startswith("bytes:\\x") for t in l["tokens"]), l["tokens"])
    equal(odd["choices"][0]["text"], "a\u20acb")
    check(l["text_offset"] == sorted(l["text_offset"]) and l["text_offset"][-1] <= 2, l["text_offset"])


def sampling_fields():
    def text(**fields):
        return server.complete(model="small", prompt="Once", max_tokens=12, **fields).json["choices"][0]["text"]
    equal(text(seed=5), text(seed=5))
    equal(text(seed=0), text(seed=0))
    check(len({text() for _ in range(6)}) > 1, "six random texts are the same")
    greedy = text(temperature=0)
    for field in (dict(top_k=1), dict(top_p=0), dict(min_p=1)):
        equal(text(**field), greedy, field)
    for whole in (0, 1, None):
        equal(text(seed=5, typical_p=whole), text(seed=5), whole)
    check(text(seed=5, typical_p=1e-6) != text(seed=5), "typical_p has no effect")
    equal(text(seed=5, typical_p=1e-6), text(seed=6, typical_p=1e-6), "one token is left")
    token = server.post("/tokenize", {"model": "small", "content": " upon"}).json["tokens"][0]
    check(not text(temperature=0, logit_bias={str(token): -100}).startswith(" upon"), "bias has no effect")
    lily = server.post("/tokenize", {"model": "small", "content": " Lily"}).json["tokens"][0]
    equal(text(temperature=0, logit_bias={str(lily): 100}), " Lily" * 12)
    check(text(temperature=0, logit_bias={str(lily): 100}, frequency_penalty=2) == " Lily" * 12, "bias wins")
    check(text(temperature=0, repetition_penalty=50) != greedy, "penalty has no effect")
    check(text(temperature=0, presence_penalty=2, frequency_penalty=2) is not None)


def tokenize():
    reply = server.post("/tokenize", {"model": "small", "content": "Once upon a time"}).json
    equal(server.post("/detokenize", {"model": "small", "tokens": reply["tokens"]}).json,
          {"content": "Once upon a time"})
    pieces = server.post("/tokenize", {"model": "small", "content": " \u20ac", "with_pieces": True}).json["tokens"]
    flat = b"".join(bytes(p["piece"]) if isinstance(p["piece"], list) else p["piece"].encode() for p in pieces)
    equal(flat.decode(), " \u20ac")
    equal(server.post("/tokenize", {"model": "small", "content": ""}).json, {"tokens": []})
    special = "<|endoftext|>"
    check(len(server.post("/tokenize", {"model": "small", "content": special}).json["tokens"]) > 1)
    equal(server.post("/tokenize", {"model": "small", "content": special, "parse_special": True}).json,
          {"tokens": [2047]})
    equal(server.post("/tokenize", {"content": "x"}).error["param"], "model")
    equal(server.post("/tokenize", {"model": "small"}).error["param"], "content")
    equal(server.post("/detokenize", {"model": "small", "tokens": [2048]}).error["param"], "tokens")
    equal(server.post("/detokenize", {"model": "small", "tokens": "x"}).error["param"], "tokens")


BAD_FIELDS = [
    ("max_tokens", [-1, 0.5, "5", 1000001, 2**31, 2**63, True, [], {}]),
    ("temperature", [-0.1, 2.1, "1", True, []]),
    ("top_p", [-0.1, 1.1, "x"]),
    ("min_p", [-0.1, 1.1]),
    ("typical_p", [-0.1, 1.1, "x"]),
    ("top_k", [-2, 1.5, "x"]),
    ("presence_penalty", [-2.1, 2.1]),
    ("frequency_penalty", [-2.1, 2.1]),
    ("repetition_penalty", [0, -1, 101]),
    ("seed", [1.5, "x", 2**63, -2**63 - 1]),
    ("stop", ["", ["a"] * 17, [""], [1], 3, "x" * 257]),
    ("logit_bias", [[], {"x": 1}, {"2048": 1}, {"-1": 1}, {"1": 101}, {"1": "x"}, {"1e1": 1}, {"": 1}]),
    ("stream", ["true", 1]),
    ("prompt", [5, True, {}]),
]
BAD_COMPLETIONS = [
    ("n", [0, -1, 65, 1.5, "2"]),
    ("best_of", [0, 65]),
    ("logprobs", [-1, 21, True]),
    ("echo", ["yes"]),
    ("max_tokens", [0]),
    ("prompt", [[], [1, "a"], ["a", 1], [2048], [-1], [1.5], [["a"]], ["a"] * 65, [None]]),
    ("stream_options", [{}, 1]),
    ("suffix", ["x", 1]),
    ("model", [1]),
]


def bad_values_name_their_field():
    for field, values in BAD_FIELDS:
        for value in values:
            reply = server.post("/v1/generate/small", {field: value})
            equal((reply.status, reply.json.get("error", {}).get("param")), (400, field),
                  (field, value, reply.body))
    for field, values in BAD_FIELDS + BAD_COMPLETIONS:
        for value in values:
            reply = server.post("/v1/completions", {"model": "small", field: value})
            equal((reply.status, reply.json.get("error", {}).get("param")), (400, field),
                  (field, value, reply.body))
    for field, value in (("max_tokens", None), ("stop", None), ("logit_bias", None), ("n", None),
                         ("logprobs", None), ("user", "me"), ("suffix", None), ("best_of", 1)):
        equal(server.post("/v1/completions", {"model": "small", field: value, "prompt": "a"}).status, 200, field)


def contexts():
    reply = server.post("/v1/completions", {"model": "small", "prompt": "word " * 400})
    equal((reply.status, reply.error["code"]), (400, "context_length_exceeded"))
    full = server.complete(model="small", prompt="Once", max_tokens=1000000, temperature=0, ignore_eos=True).json
    equal(full["choices"][0]["finish_reason"], "length")
    check(full["usage"]["total_tokens"] in (256, 257), full["usage"])


def refusals():
    def refused(status, code, reply):
        equal((reply.status, reply.error["code"]), (status, code), reply.body)
        return reply
    refused(404, "model_not_found", server.post("/v1/generate/nobody", {}))
    refused(404, "model_not_found", server.post("/v1/completions", {"model": "nobody"}))
    refused(404, "model_not_found", server.get("/v1/models/nobody"))
    refused(400, "invalid_value", server.post("/v1/completions", {"prompt": "a"}))
    for path in ("/x", "/v1", "/v1/generate", "/v1/generate/", "/v1/models/", "/metrics/", "//health", "/%00"):
        refused(404, "not_found", server.ask("POST" if "generate" in path else "GET", path))
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        check(len(refused(404, "not_found", server.post(path, {})).error["message"]) > 20)
    refused(400, "invalid_value", server.get("/v1/models/%zz"))
    for method, path, allow in (("GET", "/v1/completions", "POST"), ("GET", "/v1/generate/small", "POST"),
                                ("POST", "/health", "GET, HEAD"), ("DELETE", "/v1/models/small", "GET, HEAD"),
                                ("PUT", "/tokenize", "POST"), ("OPTIONS", "/v1/completions", "POST")):
        equal(refused(405, "method_not_allowed", server.ask(method, path)).headers["allow"], allow)
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        refused(415, "unsupported_content_type",
                server.ask("POST", "/v1/completions", b"{}", {"Content-Type": content_type}))
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    for body in (b"", b"{", b"[]", b"null", b'{"a":1}x', b'{"prompt":"a","prompt":"b"}', b'{"a":01}',
                 b'{"a":1e999}', b'{"prompt":"\\u0000"}', b'{"prompt":"\xff"}', b'{"prompt":"\\ud800"}',
                 b"[" * 50 + b"]" * 50, b'\xef\xbb\xbf{}', b'{"a":' * 9 + b"1" + b"}" * 9):
        refused(400, "invalid_json", server.ask("POST", "/v1/completions", body, json_type))


def big_bodies():
    big = json.dumps({"model": "small", "prompt": CANARY + "x" * 300000})
    for headers in ({}, {"Expect": "100-continue"}):
        reply = server.ask("POST", "/v1/completions", big, {"Content-Type": "application/json", **headers})
        equal((reply.status, reply.error["code"]), (413, "body_too_large"))
    chunked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    chunked.request("POST", "/v1/completions", iter([b"x" * 65536] * 8), {"Content-Type": "application/json"},
                    encode_chunked=True)
    equal(chunked.getresponse().status, 413)
    chunked.close()
    huge = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n")
    check(b" 413 " in server.raw_exchange(huge).split(b"\r\n")[0], "no 413 for 100 GB")
    check(b" 431 " in server.raw_exchange(b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 60000 + b"\r\n\r\n"),
          "no 431")
    almost = json.dumps({"model": "small", "prompt": "a", "user": "x" * (256 * 1024 - 60)})
    check(len(almost) <= 256 * 1024, len(almost))
    equal(server.ask("POST", "/v1/completions", almost, {"Content-Type": "application/json"}).status, 200)


# Heads that two servers might read differently, each with the section of RFC 9110 or 9112.
MALFORMED = [
    b"GET /health HTTP/1.1\r\n\r\n",                                                     # 9112 3.2: no Host
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",                               # 9112 3.2
    b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",                                        # 9112 3.2
    b"GET /health HTTP/1.1\r\nHost: a:x\r\n\r\n",                                        # 9112 3.2
    b"GET /health HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nB C: d\r\n\r\n",                                # 9110 5.1: name
    b"GET /health HTTP/1.1\r\nHost: a\r\nB\x01: d\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nB: d\x01e\r\n\r\n",                             # 9110 5.5: value
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",  # 9112 6.3
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",      # 9112 5.1
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",      # 9112 6.1
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /tokenize HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",       # 9112 6.1
    b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n",                                          # 9112 2.3
    b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
]
WELL_FORMED = [
    b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.0\r\n\r\n",
    b"POST /detokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n1e\r\n{\"model\":\"small\",\"tokens\":[1]}\r\n0\r\n\r\n",
]


def malformed_heads_are_refused():
    for head in MALFORMED:
        # What follows must never be taken for a second request.
        answer = server.raw_exchange(head + b"GET /v1/models HTTP/1.1\r\nHost: smuggled\r\n\r\n")
        first = answer.split(b"\r\n")[0]
        check(first == b"" or first.split()[1] in (b"400", b"505"), head, answer[:200])
        check(b'"object":"list"' not in answer, "a second answer:", head, answer)
    for head in WELL_FORMED:
        answer = server.raw_exchange(head)
        check(b" 200 OK" in answer.split(b"\r\n")[0], head, answer[:300])


def connections_are_kept():
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    ids = set()
    for body in ({"max_tokens": 3}, {"max_tokens": 3, "stream": True}, {"max_tokens": -3}, {"max_tokens": 2}):
        connection.request("POST", "/v1/generate/small", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        ids.add(response.getheader("x-request-id"))
        check(connection.sock is not None, "the connection was closed")
    equal(len(ids), 4)
    connection.close()


def refusals_are_counted_for_known_models_only():
    before = server.metrics()
    server.post("/v1/generate/small", {"max_tokens": -1})
    server.post("/v1/completions", {"model": "small", "prompt": "word " * 400})
    server.post("/v1/completions", {"model": "small", "n": 40, "prompt": "a"})
    for i in range(20):
        server.post("/v1/generate/nobody%d" % i, {})
    after = server.metrics()
    equal(set(after), set(before), "series appeared")
    name = "model_request_errors_total"
    changed = {dict(l)["code"]: after[k] - before[k] for k in after for (n, l) in [k]
               if n == name and after[k] != before[k]}
    equal(changed, {"invalid_request": 2, "context_length": 1})


def the_log_tells_and_keeps_secrets():
    evil = "/v1/models/\u00e9\"\n\x1b[31m".encode()
    server.raw_exchange(b"GET " + evil.replace(b"\n", b"%0a") + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    reply = server.generate("small", prompt="Once " + CANARY, max_tokens=4, user=CANARY)
    request = reply.headers["x-request-id"]
    line = server.await_log(lambda l: l.get("id") == request)
    answer = reply.json
    for key, logged in (("input_tokens",) * 2, ("output_tokens",) * 2, ("latency_seconds",) * 2,
                        ("queue_seconds",) * 2, ("device_seconds",) * 2, ("estimated_cost_usd", "cost_usd")):
        equal(line[logged], answer[key], key)
    equal((line["model"], line["endpoint"], line["status"], line["finish"], line["mode"]),
          ("small", "/v1/generate", 200, "length", "whole"))
    check(not [l for l in server.requests_logged() if l["path"] in ("/metrics", "/health") and l["status"] < 400],
          "scrapes in the log")


def main():
    global server
    with Costd(*TWO, *PRICES, "--body-bytes", "256K") as server:
        run(plain_routes, the_texts_are_the_expected_ones, generate_defaults, streaming_equals_whole,
            completions_shape, prompts_of_every_kind, stop_strings, logprobs_and_echo, sampling_fields, tokenize,
            bad_values_name_their_field, contexts, refusals, big_bodies, malformed_heads_are_refused,
            connections_are_kept, refusals_are_counted_for_known_models_only, the_log_tells_and_keeps_secrets)


main()
