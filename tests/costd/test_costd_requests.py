"""What clients send: fields that are not implemented or unknown, integers, prompts that are too long or many, and
ids to be followed."""
import gzip
import json
import re

from costd_support import CANARY, SMALL, Costd, check, equal, run, run_costd, total

MODEL = ["--model", "small=" + SMALL]
ROUTES = ("/v1/completions", "/v1/generate/small")
server = None

# What each field asks for would change the answer, and costd cannot do it.
REFUSED = {
    "response_format": {"type": "json_object"}, "guided_json": {"type": "object"}, "guided_regex": "a+",
    "guided_choice": ["a"], "guided_grammar": "root ::= a", "structured_outputs": {"json": {}}, "grammar": "root ::= a",
    "json_schema": {"type": "object"}, "tools": [{"type": "function"}], "tool_choice": "required",
    "functions": [{"name": "f"}], "messages": [{"role": "user", "content": "x"}],
    "bad_words": ["a"],
    "allowed_token_ids": [1, 2], "use_beam_search": True, "num_beams": 2, "length_penalty": 2.0, "typical": 0.5,
    "mirostat": 2, "repeat_penalty": 1.2, "n_predict": 5, "max_new_tokens": 5, "max_completion_tokens": 5,
    "skip_special_tokens": False, "include_stop_str_in_output": True, "logits_processors": ["x"], "top_logprobs": 2,
    "dry_multiplier": 0.8, "xtc_probability": 0.5,
}
# The same fields where they ask for what happens anyway.
NEUTRAL = {
    "response_format": {"type": "text"}, "guided_json": None, "tools": [], "tool_choice": "none",
    "use_beam_search": False, "num_beams": 1, "length_penalty": 1.0, "typical": 1,
    "mirostat": 0, "repeat_penalty": 1.0, "skip_special_tokens": True, "include_stop_str_in_output": False,
}


def fields_that_would_change_the_answer_are_refused():
    for path in ROUTES:
        for name, value in REFUSED.items():
            reply = server.post(path, {"prompt": "a", "max_tokens": 1, name: value})
            equal((reply.status, reply.error["param"], reply.error["code"]), (400, name, "unsupported"), (path, name))
            check(name in reply.error["message"], reply.body)
        for name, value in NEUTRAL.items():
            reply = server.post(path, {"prompt": "a", "max_tokens": 1, name: value})
            equal(reply.status, 200, (path, name, reply.body))
            check("x-ignored-fields" not in reply.headers, name, reply.headers)
    # Known to one route and ignored by the other would be no better.
    for name, value in {"n": 2, "best_of": 2, "logprobs": 1, "prompt_logprobs": 0, "echo": False,
                        "suffix": "x"}.items():
        reply = server.post("/v1/generate/small", {"prompt": "a", "max_tokens": 1, name: value})
        equal((reply.status, reply.error["param"]), (400, name))
    before = total(server.settle(), "model_tokens_total")
    server.post("/v1/completions", {"prompt": "a", "guided_json": {"a": 1}})
    after = total(server.settle(), "model_tokens_total")
    equal((before > 0, after), (True, before), "a refused request is not billed")


def tokens_end_the_text_no_sooner_than_wished():
    """stop_token_ids and min_tokens, with vLLM's meanings, on both routes."""
    def ask(path, **fields):
        return server.post(path, {"prompt": "Once upon a time", "temperature": 0, **fields})

    def text(reply):
        equal(reply.status, 200, reply.body)
        return reply.json["choices"][0]["text"] if "choices" in reply.json else reply.json["text"]

    for path in ROUTES:
        whole = ask(path, max_tokens=200)
        tokens = server.post("/tokenize", {"content": text(whole)}).json["tokens"]
        stop = tokens[-8] if "completions" in path else tokens[-7]
        cut = ask(path, max_tokens=200, stop_token_ids=[stop])
        check(0 < len(text(cut)) < len(text(whole)) and text(whole).startswith(text(cut)), path, text(cut))
        ended = cut.json["choices"][0]["finish_reason"] if "choices" in cut.json else cut.json["finish_reason"]
        equal(ended, "stop")
        for fields in ({}, {"stop": [" ", "."]}, {"stop_token_ids": tokens[:20]}):
            late = ask(path, max_tokens=200, min_tokens=200, **fields)
            used = late.json["usage"]["completion_tokens"] if "usage" in late.json else late.json["output_tokens"]
            equal(used, 200, (path, fields))
        for fields, param in (({"min_tokens": 3, "max_tokens": 2}, None), ({"min_tokens": -1}, "min_tokens"),
                              ({"stop_token_ids": [1 << 20]}, "stop_token_ids"),
                              ({"stop_token_ids": 5}, "stop_token_ids"), ({"stop_token_ids": ["a"]}, "stop_token_ids"),
                              ({"stop_token_ids": [1] * 1025}, "stop_token_ids")):
            reply = ask(path, **fields)
            equal((reply.status, reply.error["param"]), (400, param), (path, fields))


def the_last_tokens_of_a_prompt_are_kept():
    """truncate_prompt_tokens, with vLLM's meaning: what is cut off is neither computed nor counted nor billed."""
    words = "The little cat sat on the mat. " * 60
    ids = server.post("/tokenize", {"content": words}).json["tokens"]
    context = server.get("/v1/models/small").json["meta"]["n_ctx"]
    check(len(ids) > context, len(ids))
    for keep, kept in ((1, 1), (5, 5), (context - 8, context - 8), (context, context), (-1, context)):
        tail = server.post("/detokenize", {"tokens": ids[-kept:]}).json["content"]
        ask = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
        wanted = server.complete(prompt=ids[-kept:], echo=True, logprobs=1, **ask).json
        for prompt in (words, ids):
            reply = server.complete(prompt=prompt, truncate_prompt_tokens=keep, echo=True, logprobs=1, **ask).json
            equal(reply["choices"], wanted["choices"], keep)
            equal(reply["usage"]["prompt_tokens"], kept)
            equal(reply["usage"]["completion_tokens"], wanted["usage"]["completion_tokens"])
        check(wanted["choices"][0]["text"].startswith(tail), wanted["choices"][0]["text"])
        reply = server.generate("small", prompt=words, truncate_prompt_tokens=keep, **ask)
        equal((reply.json["text"], reply.json["input_tokens"]), (wanted["choices"][0]["text"], kept))
        line = server.await_log(lambda l: l.get("id") == reply.headers["x-request-id"])
        equal(line["input_tokens"], kept)
        streamed = server.complete(prompt=words, truncate_prompt_tokens=keep, stream=True, **ask).events
        equal("".join(e["choices"][0]["text"] for e in streamed[:-1]), wanted["choices"][0]["text"][len(tail):])
    # A prompt that is short enough stays as it is, and so do others of the same request.
    reply = server.complete(prompt=["A cat", words, ""], truncate_prompt_tokens=7, max_tokens=1).json
    short = len(server.post("/tokenize", {"content": "A cat"}).json["tokens"])
    equal(reply["usage"]["prompt_tokens"], short + 7 + 1)
    equal(server.complete(prompt="A cat", truncate_prompt_tokens=None, max_tokens=1).status, 200)
    for path in ROUTES:
        for value in (0, -2, context + 1, 1.5, "5", True, [5]):
            reply = server.post(path, {"prompt": "A cat", "truncate_prompt_tokens": value})
            equal((reply.status, reply.error["param"]), (400, "truncate_prompt_tokens"), (path, value))


def prompts_are_scored_in_vllms_shape():
    prompt = "Once upon a time, zqx voted."
    ids = server.post("/tokenize", {"content": prompt}).json["tokens"]
    ask = {"prompt": prompt, "temperature": 0, "max_tokens": 3}
    wanted = server.complete(echo=True, logprobs=20, **ask).json["choices"][0]["logprobs"]
    for top in (0, 1, 5, 20):
        for more in ({}, {"logprobs": 2}, {"echo": True, "logprobs": 3}, {"max_tokens": 0}):
            reply = server.complete(**{**ask, "prompt_logprobs": top, **more}).json
            choice = reply["choices"][0]
            scores = choice["prompt_logprobs"]
            equal((len(scores), scores[0]), (len(ids), None))
            for i in range(1, len(ids)):
                own = scores[i][str(ids[i])]
                equal(set(own), {"logprob", "rank", "decoded_token"})
                check(abs(own["logprob"] - wanted["token_logprobs"][i]) < 1e-4, i, own, wanted["token_logprobs"][i])
                equal(own["decoded_token"], wanted["tokens"][i])
                equal(list(scores[i])[0], str(ids[i]), "the prompt's own token comes first")
                ranks = sorted(entry["rank"] for entry in scores[i].values())
                equal(ranks, sorted(set(range(1, top + 1)) | {own["rank"]}), i)
                by_rank = sorted(scores[i].values(), key=lambda entry: entry["rank"])
                likelihoods = [entry["logprob"] for entry in by_rank]
                equal(likelihoods, sorted(likelihoods, reverse=True))
                check((own["rank"] > 20) == (wanted["tokens"][i] not in list(wanted["top_logprobs"][i])[:20] or
                                             len(wanted["top_logprobs"][i]) == 21), i, own)
            equal(reply["usage"]["prompt_tokens"], len(ids))
            equal(reply["usage"]["completion_tokens"], 0 if "max_tokens" in more else 3)
            if "logprobs" not in more:
                equal(choice["logprobs"], None)
            else:
                equal(len(choice["logprobs"]["tokens"]), 3 + len(ids) * ("echo" in more))
                check(len(choice["logprobs"]["top_logprobs"][-1]) == more["logprobs"], choice["logprobs"])
    check(any(score[str(i)]["rank"] > 20 for score, i in zip(scores[1:], ids[1:])), "each token is likely")
    check("prompt_logprobs" not in server.complete(**ask).json["choices"][0])
    # Each choice of each prompt has its own prompt's.
    reply = server.complete(prompt=[prompt, "A cat"], n=2, prompt_logprobs=1, max_tokens=1).json["choices"]
    equal([len(c["prompt_logprobs"]) for c in reply], [len(ids), len(ids), 2, 2])
    ranked = server.complete(prompt=[prompt, "A cat"], n=1, best_of=3, prompt_logprobs=1, max_tokens=1).json["choices"]
    equal([len(c["prompt_logprobs"]) for c in ranked], [len(ids), 2])
    # Scored is what is kept, and a cached beginning is computed again for it.
    reply = server.complete(prompt=prompt, truncate_prompt_tokens=4, prompt_logprobs=0, max_tokens=1).json
    equal([list(score) for score in reply["choices"][0]["prompt_logprobs"][1:]], [[str(i)] for i in ids[-3:]])
    equal(server.complete(prompt="", prompt_logprobs=2, max_tokens=1).json["choices"][0]["prompt_logprobs"], [None])
    for fields in ({"prompt_logprobs": -1}, {"prompt_logprobs": 21}, {"prompt_logprobs": "1"},
                   {"prompt_logprobs": 1, "stream": True}):
        reply = server.post("/v1/completions", {"prompt": prompt, **fields})
        equal((reply.status, reply.error["param"]), (400, "prompt_logprobs"), fields)


def unknown_fields_are_told():
    bodies = [("POST", path, {"prompt": "a", "max_tokens": 1}) for path in ROUTES]
    bodies += [("POST", "/tokenize", {"content": "a"}), ("POST", "/detokenize", {"tokens": [1]})]
    for method, path, fields in bodies:
        reply = server.ask(method, path, {**fields, "promt": "x", "Temperature": 1})
        check(reply.status == 200, path, reply.body)
        equal(reply.headers["x-ignored-fields"], "promt, Temperature", path)
        line = server.await_log(lambda l: l.get("id") == reply.headers["x-request-id"])
        equal(line["ignored_fields"], "promt, Temperature" if "/v1/" in path else "?, ?")
        reply = server.ask(method, path, fields)
        check("x-ignored-fields" not in reply.headers, path)
    stream = server.post("/v1/generate/small", {"prompt": "a", "max_tokens": 2, "stream": True, "foo": 1})
    equal((stream.status, stream.headers["x-ignored-fields"]), (200, "foo"))
    nested = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "stream": True,
                                             "stream_options": {"include_usage": True, "chunks": 1}})
    equal(nested.headers["x-ignored-fields"], "stream_options.chunks")
    # Other servers' fields are named in the log, and what a client has made up is not.
    reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "service_tier": "x", "Zebra": 1,
                                            "top-k": 1})
    equal(reply.headers["x-ignored-fields"], "service_tier, Zebra, top-k")
    line = server.await_log(lambda l: l.get("id") == reply.headers["x-request-id"])
    equal(line["ignored_fields"], "service_tier, ?, top-k")
    # A name is a client's text: it splits no header, and no prompt enters the log by it.
    for name in ("a\r\nX-Evil: 1", CANARY + " and more", "é", "x" * 5000, ""):
        reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, name: 1})
        equal((reply.status, reply.headers["x-ignored-fields"]), (200, "?"), repr(name)[:40])
        check("x-evil" not in reply.headers, reply.headers)
    many = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, **{"field%d" % i: 1 for i in range(500)}})
    check(many.status == 200 and len(many.headers["x-ignored-fields"]) <= 256, many.headers)
    check(many.headers["x-ignored-fields"].endswith(", ..."), many.headers)


def parameters_of_the_query_are_judged_too():
    path = "/v1/generate/small?prompt=a&max_tokens=1"
    equal(server.ask("POST", path).status, 200)
    for name in ("temperature", "seed", "guided_json", "stream"):
        reply = server.ask("POST", path + "&" + name + "=1")
        equal(reply.status, 400, name)
        check('"%s" is not read from the query' % name in reply.error["message"], reply.body)
    reply = server.ask("POST", path + "&max_token=1&a%0d%0ab=c&" + "x" * 500)
    equal((reply.status, reply.headers["x-ignored-fields"]), (200, "max_token, ?, ?"))
    equal(server.ask("POST", "/v1/generate/small?promt=a").error["param"], "prompt")


def strict_refuses_them():
    with Costd(*MODEL, "--strict") as strict:
        for path, fields in (("/v1/completions", {"prompt": "a"}), ("/v1/generate/small", {"prompt": "a"}),
                             ("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [1]})):
            equal(strict.post(path, {**fields, "max_tokens": 1} if "v1" in path else fields).status, 200)
            reply = strict.post(path, {**fields, "promt": "x"})
            equal((reply.status, reply.error["param"]), (400, "promt"), path)
            check('unknown field "promt"' in reply.error["message"], reply.body)
            check(('did you mean "prompt"?' in reply.error["message"]) == ("/v1/" in path), reply.body)
        equal(strict.post("/v1/completions", {"prompt": "a", "user": "me", "max_tokens": 1}).status, 200)
        equal(strict.ask("POST", "/v1/generate/small?prompt=a&max_token=1").status, 400)


def a_misspelt_prompt_is_an_error():
    for path in ROUTES:
        reply = server.post(path, {"promt": "x"})
        equal((reply.status, reply.error["param"]), (400, "prompt"), (path, reply.body))
        equal(server.post(path, {"prompt": "", "max_tokens": 1}).status, 200)
    equal(server.ask("POST", "/v1/generate/small?promt=a").status, 400)
    for fields in ({}, {"prompt": None}):
        equal(server.post("/v1/completions", fields).status, 400)
        # The tutorial's API has a default.
        reply = server.post("/v1/generate/small", {**fields, "max_tokens": 1})
        check(reply.status == 200 and reply.json["text"].startswith("Hello"), reply.body)
    equal(server.ask("POST", "/v1/generate/small?max_tokens=1", b"").status, 200)
    equal(server.ask("POST", "/v1/generate/small?prompt=a&max_tokens=1").status, 200)


def overflow_is_told_in_the_words_that_clients_look_for():
    n = 3001
    reply = server.post("/v1/completions", {"prompt": [5] * n, "max_tokens": 1})
    error = reply.error
    equal((reply.status, error["code"], error["type"], error["param"]),
          (400, "context_length_exceeded", "invalid_request_error", "prompt"))
    words = r"This model's maximum context length is 256 tokens\. However, .* 3001 tokens"
    check(re.match(words, error["message"]), error)
    reply = server.post("/v1/generate/small", {"prompt": "Once upon a time " * 400})
    check(reply.error["message"].startswith("This model's maximum context length is 256 tokens. However, "), reply.body)
    reply = server.post("/v1/completions", {"prompt": ["a", "Once upon a time " * 400], "max_tokens": 1})
    equal(reply.error["code"], "context_length_exceeded")
    check("2 of 2" in reply.error["message"], reply.error)


def integers_are_exact():
    low, high = -2**63, 2**63 - 1
    texts = {}
    for seed in (low, high, 0, -1, 2**53, 2**53 + 1, 2**53 + 2, -2**53 - 1, high - 1):
        texts[seed] = server.complete(prompt="Once", max_tokens=12, temperature=2, seed=seed).json["choices"][0]["text"]
    check(texts[2**53] != texts[2**53 + 1] != texts[2**53 + 2], texts)
    check(texts[high] != texts[high - 1], texts)
    for seed in (low - 1, high + 1, 1.5, 1e300, 9007199254740993.0, 10**40):
        reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "seed": seed})
        equal((reply.status, reply.error["param"]), (400, "seed"), seed)
    for seed in ("9223372036854775807.0", "1e18", "9007199254740993e0"):
        body = '{"prompt":"a","max_tokens":1,"seed":%s}' % seed
        equal(server.ask("POST", "/v1/completions", body, {"Content-Type": "application/json"}).status, 400, seed)
    for whole in ("1.0", "1e1", "-0"):
        body = '{"prompt":"a","max_tokens":1,"seed":%s}' % whole
        equal(server.ask("POST", "/v1/completions", body, {"Content-Type": "application/json"}).status, 200, whole)
    # As a string of digits it is no integer; a token id is exact too.
    equal(server.post("/v1/completions", {"prompt": [4294967297], "max_tokens": 1}).status, 400)
    equal(server.post("/detokenize", {"tokens": [9007199254740993]}).status, 400)


def limits_agree():
    props = server.get("/props").json["limits"]
    n, context = props["choices"], 256
    equal((n, props["stop"]), (64, 16))
    with Costd(*MODEL, "--queue", "64") as roomy:
        body = json.dumps({"prompt": [[1999] * (context - 1)] * n, "max_tokens": 1, "echo": False}, indent=1)
        reply = roomy.ask("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        equal((reply.status, len(reply.json["choices"])), (200, n), reply.body[:200])
    # Of the largest context that GPT-2 has.
    check(n * 1024 * len("50257, ") <= props["body_bytes"], props)
    stops = {"prompt": "a", "max_tokens": 1, "stop": ["x%d" % i for i in range(16)]}
    equal(server.post("/v1/completions", stops).status, 200)
    stops["stop"].append("y")
    equal(server.post("/v1/completions", stops).error["param"], "stop")
    with Costd(*MODEL, "--body-bytes", "2K") as tight:
        equal(tight.get("/props").json["limits"]["body_bytes"], 2048)
        equal(tight.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "user": "x" * 1900}).status, 200)
        reply = tight.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "user": "x" * 2048})
        equal((reply.status, reply.error["code"]), (413, "body_too_large"))
        check("2048" in reply.error["message"], reply.body)
    equal(run_costd(*MODEL, "--body-bytes", "9")[0], 2)


def special_tokens_on_request():
    """Off by default, for every route that takes text, streamed or not, each prompt of several."""
    end, text = 2047, "<|endoftext|>Once<|endoftext|>"

    def ids(**flag):
        return server.post("/tokenize", {"content": text, **flag}).json["tokens"]

    plain, special = ids(), ids(parse_special=True)
    equal((special[0], special[-1], special.count(end), plain.count(end)), (end, end, 2, 0))
    check(len(plain) > len(special) + 4, plain)
    for flag, wanted in (({}, plain), ({"parse_special": False}, plain), ({"parse_special": None}, plain),
                         ({"parse_special": True}, special)):
        fields = {"max_tokens": 3, "seed": 1, "temperature": 0, **flag}
        reply = server.generate("small", prompt=text, **fields).json
        equal((reply["input_tokens"], reply["text"][:len(text)]), (len(wanted), text), flag)
        stream = server.generate("small", prompt=text, stream=True, **fields).events
        equal(next(e["input_tokens"] for e in stream if "input_tokens" in e), len(wanted), flag)
        reply = server.complete(prompt=[text, "a", text], logprobs=1, echo=True, **fields).json
        equal(reply["usage"]["prompt_tokens"], 2 * len(wanted) + 1, flag)
        equal(len(reply["choices"][2]["logprobs"]["tokens"]), len(wanted) + 3, flag)
        # The same tokens as ids, so the same text.
        equal(server.complete(prompt=wanted, **fields).json["choices"][0]["text"],
              server.complete(prompt=text, **fields).json["choices"][0]["text"], flag)
        usage = server.complete(prompt=text, stream=True, stream_options={"include_usage": True}, **fields).events[-2]
        equal(usage["usage"]["prompt_tokens"], len(wanted), flag)
    for route in (*ROUTES, "/tokenize"):
        reply = server.post(route, {"prompt": "a", "content": "a", "parse_special": "yes"})
        equal((reply.status, reply.error["param"]), (400, "parse_special"), route)
    # What is too long is counted in the same tokens.
    long = "<|endoftext|>" * 300
    for flag in (True, False):
        n = len(server.post("/tokenize", {"content": long, "parse_special": flag}).json["tokens"])
        reply = server.post("/v1/completions", {"prompt": long, "max_tokens": 1, "parse_special": flag})
        check("has %d tokens" % n in reply.error["message"], n, reply.error)
    bodies = [item["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
              for path, item in server.get("/openapi.json").json["paths"].items()
              if path in ("/v1/completions", "/v1/generate/{model}", "/tokenize")]
    equal([body["parse_special"]["type"] for body in bodies], [["boolean", "null"]] * 3)


def what_is_not_there_says_what_is():
    for path, word in (("/v1/chat/completions", "/v1/completions"), ("/v1/responses", "/v1/completions"),
                       ("/v1/embeddings", "/v1/completions"), ("/v1/embedings", "/openapi.json"),
                       ("/x", "/openapi.json")):
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            reply = server.ask(method, path, b"" if method in ("POST", "PUT") else None)
            equal((reply.status, reply.error["code"]), (404, "not_found"), (method, path))
            check(word in reply.error["message"], method, path, reply.body)
        equal(server.ask("HEAD", path).status, 404)


def ids_are_taken_over():
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = json.dumps({"prompt": "a", "max_tokens": 1})
    for path, sent in (("/v1/completions", body), ("/v1/generate/small", body), ("/v1/models", None),
                       ("/nothing", None)):
        reply = plain(path, sent, {"X-Request-Id": "abc-DEF_1.2:3", "Traceparent": trace})
        equal((reply["x-request-id"], reply["traceparent"]), ("abc-DEF_1.2:3", trace), path)
        line = server.await_log(lambda l: l.get("request_id") == "abc-DEF_1.2:3" and l["path"] == path)
        equal(line["traceparent"], trace)
        check(line["id"].startswith("req-"), line)
    for bad in ("x" * 129, "a b", "a\"b", "a\x7f", "", "é".encode().decode("latin-1"), "req-1,2;3"):
        check(plain("/health", None, {"X-Request-Id": bad})["x-request-id"].startswith("req-"), repr(bad))
    for bad in (trace[:-1], trace.upper(), "ff" + trace[2:],
                trace.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
                trace.replace("00f067aa0ba902b7", "0" * 16), trace + "-00", "01" + trace[2:] + "x", "x"):
        check("traceparent" not in plain("/health", None, {"Traceparent": bad}), bad)
    # A later version may have more to say, after another dash.
    check(plain("/health", None, {"Traceparent": "01" + trace[2:] + "-more"})["traceparent"].startswith("01-4bf9"))
    ours = plain("/health", None, {})
    check(ours["x-request-id"].startswith("req-") and "traceparent" not in ours, ours)


def plain(path, body, headers):
    """The answer's headers, without the checks of ask()."""
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    if body:
        headers = {**headers, "Content-Type": "application/json"}
    connection.request("POST" if body else "GET", path, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return {k.lower(): v for k, v in response.getheaders()}


def metrics_are_compressed_when_asked():
    text = server.get("/metrics").body
    zipped = server.get("/metrics", **{"Accept-Encoding": "gzip"})
    equal((zipped.headers["content-encoding"], zipped.headers["vary"]), ("gzip", "Accept-Encoding"))
    names = lambda b: [l.split(b" ")[0] for l in b.splitlines()]
    equal(names(gzip.decompress(zipped.body)), names(text))
    check(len(zipped.body) * 4 < len(text), len(zipped.body), len(text))
    for accept in ("identity", "gzip;q=0", "br"):
        reply = server.get("/metrics", **{"Accept-Encoding": accept})
        check("content-encoding" not in reply.headers and reply.body.startswith(b"#"), accept)
    history = server.get("/api/history", **{"Accept-Encoding": "gzip"})
    equal(json.loads(gzip.decompress(history.body))["range"], "1h")


if __name__ == "__main__":
    with Costd(*MODEL) as server:
        run(fields_that_would_change_the_answer_are_refused,
            tokens_end_the_text_no_sooner_than_wished,
            the_last_tokens_of_a_prompt_are_kept, prompts_are_scored_in_vllms_shape, unknown_fields_are_told,
            parameters_of_the_query_are_judged_too, strict_refuses_them,
            a_misspelt_prompt_is_an_error, overflow_is_told_in_the_words_that_clients_look_for, integers_are_exact,
            limits_agree, special_tokens_on_request, what_is_not_there_says_what_is, ids_are_taken_over,
            metrics_are_compressed_when_asked)
