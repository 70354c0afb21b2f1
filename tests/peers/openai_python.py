#!/usr/bin/env python3
"""OpenAI's own Python client against costd: what its users do, unchanged but for the address.

    tests/peers/openai_python.py

The client's version is pinned in openai-requirements.txt; without CINF_BUILD costd is taken from build/."""
import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(os.path.dirname(HERE)))
BUILD = os.environ.setdefault("CINF_BUILD", os.path.join(SOURCE, "build"))
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
from costd_support import CANARY, TWO, Costd, check, equal, run, run_costd, temp_folder, total  # noqa: E402

VENV = os.path.join(BUILD, "openai-venv")
if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
    made = subprocess.run([os.path.join(SOURCE, "scripts", "peers_venv.sh"), VENV, "openai"], check=False)
    if made.returncode != 0:
        sys.exit(made.returncode)
    python = os.path.join(VENV, "bin", "python")
    os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])

import openai  # noqa: E402
from openai import AsyncOpenAI, OpenAI  # noqa: E402

PRICES = ["--cpu-cost-per-hour", "0.10"]
PROMPT = "Once upon a time"
LONG = {"max_tokens": 240, "temperature": 0, "extra_body": {"ignore_eos": True}}

server = None
client = None


def client_of(port, **options):
    return OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key=options.pop("api_key", "unused"),
                  **{"max_retries": 0, "timeout": 60, **options})


def complete(model="small", prompt=PROMPT, **options):
    return client.completions.create(model=model, prompt=prompt, **{"max_tokens": 12, "temperature": 0, **options})


def text_of(**options):
    return complete(**options).choices[0].text


def fails(kind, call):
    try:
        call()
    except openai.APIError as error:
        check(type(error) is kind, "wanted", kind.__name__, "saw", repr(error))
        return error
    raise AssertionError("no " + kind.__name__)


def models_are_listed():
    equal([(m.id, m.object, m.owned_by) for m in client.models.list()],
          [("small", "model", "costinfer"), ("large", "model", "costinfer")])


def a_model_is_retrieved():
    model = client.models.retrieve("large")
    equal((model.id, model.object), ("large", "model"))
    check(abs(model.created - time.time()) < 600, model.created)


def unknown_models_are_not_found():
    for call in (lambda: client.models.retrieve("none"), lambda: complete(model="none")):
        error = fails(openai.NotFoundError, call)
        equal((error.code, error.param, error.type), ("model_not_found", "model", "invalid_request_error"))
        check(error.request_id.startswith("req-"), error.request_id)


def a_completion():
    reply = complete()
    equal((reply.object, reply.model, len(reply.choices)), ("text_completion", "small", 1))
    check(reply.id.startswith("cmpl-") and abs(reply.created - time.time()) < 600, reply.id, reply.created)
    choice = reply.choices[0]
    equal((choice.index, choice.finish_reason, choice.logprobs), (0, "length", None))
    check(choice.text, "no text")
    check(reply.usage.prompt_tokens > 0, reply.usage)
    equal(reply.usage.completion_tokens, 12)
    equal(reply.usage.total_tokens, reply.usage.prompt_tokens + 12)
    raw = client.completions.with_raw_response.create(model="small", prompt=PROMPT, max_tokens=1)
    check(raw.request_id.startswith("req-"), raw.request_id)


def the_cost_is_told():
    cost = complete(max_tokens=40).cost
    check(cost["dollars"] > 0, cost)
    # Ten cents an hour, of the seconds on the device; the client reads both as floats.
    check(abs(cost["dollars"] - cost["device_seconds"] * 0.10 / 3600) < 1e-12, cost)


def a_stream_is_the_same_text():
    chunks = list(complete(max_tokens=40, stream=True))
    equal("".join(c.choices[0].text for c in chunks), text_of(max_tokens=40))
    equal({(c.object, c.model, c.id) for c in chunks}, {("text_completion", "small", chunks[0].id)})
    equal([c.choices[0].finish_reason for c in chunks], [None] * (len(chunks) - 1) + ["length"])
    check(all(c.usage is None for c in chunks), "usage without being asked")
    check(len(chunks) > 10, "not streamed:", len(chunks))


def a_stream_ends_with_usage():
    *chunks, last = complete(max_tokens=20, stream=True, stream_options={"include_usage": True})
    equal((last.choices, last.usage), ([], complete(max_tokens=20).usage.model_copy(
        update={"prompt_tokens_details": last.usage.prompt_tokens_details})))
    check(all(c.usage is None and c.choices for c in chunks), "usage before the end")
    check(last.cost["dollars"] > 0, last)


def async_streams_go_side_by_side():
    async def one(asynchronous):
        stream = await asynchronous.completions.create(model="small", prompt=PROMPT, max_tokens=30, temperature=0,
                                                       stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them():
        async with AsyncOpenAI(base_url=client.base_url, api_key="unused", max_retries=0) as asynchronous:
            return await asyncio.gather(*[one(asynchronous) for _ in range(8)])

    equal(asyncio.run(all_of_them()), [text_of(max_tokens=30)] * 8)


def stop_strings_are_not_emitted():
    whole = text_of(max_tokens=60)
    word = whole.split()[6]
    for stop in (" " + word, [" " + word, "never said"]):
        choice = complete(max_tokens=60, stop=stop).choices[0]
        equal((choice.text, choice.finish_reason), (whole[:whole.index(" " + word)], "stop"))
        chunks = list(complete(max_tokens=60, stop=stop, stream=True))
        equal("".join(c.choices[0].text for c in chunks), choice.text)
        equal(chunks[-1].choices[0].finish_reason, "stop")


def several_choices():
    reply = complete(n=3, temperature=1, seed=5, max_tokens=20)
    equal([c.index for c in reply.choices], [0, 1, 2])
    check(len({c.text for c in reply.choices}) == 3, "the same three times")
    check(20 < reply.usage.completion_tokens <= 60, reply.usage)
    parts = ["", "", ""]
    for chunk in complete(n=3, temperature=1, seed=5, max_tokens=20, stream=True):
        parts[chunk.choices[0].index] += chunk.choices[0].text
    equal(parts, [c.text for c in reply.choices])
    several = complete(prompt=[PROMPT, "The cat"], n=2)
    equal([c.index for c in several.choices], [0, 1, 2, 3])
    equal(several.choices[0].text, several.choices[1].text)


def logprobs_of_prompt_and_completion():
    choice = complete(prompt=PROMPT, echo=True, logprobs=3, max_tokens=4).choices[0]
    l = choice.logprobs
    check(choice.text.startswith(PROMPT), choice.text)
    equal("".join(l.tokens), choice.text)
    equal((l.token_logprobs[0], l.top_logprobs[0]), (None, None))
    equal(l.text_offset, [len("".join(l.tokens[:i])) for i in range(len(l.tokens))])
    for token, logprob, top in list(zip(l.tokens, l.token_logprobs, l.top_logprobs))[1:]:
        check(logprob < 0 and 3 <= len(top) <= 4 and top[token] == logprob, token, logprob, top)
    scored = complete(prompt=choice.text, echo=True, logprobs=3, max_tokens=0).choices[0].logprobs
    for one, two in zip(l.token_logprobs[1:], scored.token_logprobs[1:]):
        check(abs(one - two) < 1e-3, "scores differ:", one, two)


def bad_requests_name_their_field():
    for field, value in (("temperature", -1), ("max_tokens", -5), ("n", 0), ("logprobs", 1000), ("top_p", 7),
                         ("stop", ["a"] * 17), ("logit_bias", {"x": 1}), ("presence_penalty", 3),
                         ("prompt", {"a": 1}), ("prompt", [10**6]), ("suffix", "the end")):
        error = fails(openai.BadRequestError, lambda: complete(**{field: value}))
        equal((error.param, error.type, error.status_code), (field, "invalid_request_error", 400), field)
        check(field in error.message and error.code and error.request_id, error.message)
    error = fails(openai.BadRequestError, lambda: complete(prompt="word " * 2000))
    equal(error.code, "context_length_exceeded")


def keys_are_asked_for():
    with temp_folder() as folder:
        path = os.path.join(folder, "keys")
        with open(path, "w") as f:
            f.write("tester %s\n" % hashlib.sha256(b"secret-key").hexdigest())
        os.chmod(path, 0o600)
        with Costd(*TWO, "--keys", path) as other:
            wrong, right = client_of(other.port, api_key="wrong"), client_of(other.port, api_key="secret-key")
            for call in (wrong.models.list, lambda: wrong.completions.create(model="small", prompt="a")):
                error = fails(openai.AuthenticationError, call)
                check(error.status_code == 401 and error.code and error.request_id, repr(error))
            equal([m.id for m in right.models.list()], ["small", "large"])
            equal(right.completions.create(model="small", prompt="a", max_tokens=3).usage.completion_tokens, 3)


def unknown_routes_say_why():
    error = fails(openai.NotFoundError, lambda: client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "hello"}]))
    check("chat" in error.message, error.message)
    fails(openai.NotFoundError, lambda: client.embeddings.create(model="small", input="hello"))


def await_metrics(of, wanted, what):
    end = time.monotonic() + 20
    while not wanted(of.metrics()):
        check(time.monotonic() < end, what)


def a_full_queue_is_retried():
    """One slot, one place in the queue: a third request is refused, and the client comes again until it fits."""
    with Costd("--model", TWO[3], "--queue", "1", "--kv-memory", "7M") as other:
        equal(other.get("/v1/models/large").json["meta"]["slots"], 1)
        impatient, patient = client_of(other.port), client_of(other.port, max_retries=20)
        stop = threading.Event()
        taken = []

        def occupy():
            while not stop.is_set():
                try:
                    impatient.completions.create(model="large", prompt=PROMPT, **LONG)
                except openai.RateLimitError as error:
                    taken.append(error)

        threads = [threading.Thread(target=occupy) for _ in range(4)]
        for thread in threads:
            thread.start()
        await_metrics(other, lambda m: taken, "the queue is never full")
        threading.Timer(0.5, stop.set).start()
        raw = patient.completions.with_raw_response.create(model="large", prompt=PROMPT, max_tokens=2)
        equal(raw.parse().usage.completion_tokens, 2)
        for thread in threads:
            thread.join()
        error = taken[0]
        equal((error.status_code, error.code, error.type), (429, "queue_full", "rate_limit_error"))
        check(float(error.response.headers["retry-after"]) > 0, dict(error.response.headers))
        check(total(other.settle(), "model_request_errors_total", code="queue_full") > 0)


def loading_and_draining_are_503():
    with Costd(*TWO, "--drain-seconds", "60") as other:
        there = client_of(other.port)
        stream = there.completions.create(model="large", prompt=PROMPT, n=16, stream=True, **LONG)
        first = next(iter(stream))
        check(first.choices, first)
        other.signal(signal.SIGTERM)
        other.await_log(lambda l: l["event"] == "draining")
        error = fails(openai.InternalServerError, lambda: there.completions.create(model="small", prompt="a"))
        equal((error.status_code, error.code), (503, "shutting_down"))
        check(float(error.response.headers["retry-after"]) > 0)
        # The stream that runs may end.
        equal(sum(1 for c in stream if c.choices[0].finish_reason == "length"), 16)
        stream.close()
        there.close()
        other.ended(0)
    many = [a for i in range(24) for a in ("--model", "m%d=%s" % (i, TWO[3].partition("=")[2]))]
    with Costd(*many, "--kv-memory", "1G", wait=False) as other:
        error = fails(openai.InternalServerError,
                      lambda: client_of(other.port).completions.create(model="m23", prompt="a"))
        equal((error.status_code, error.code), (503, "loading"))
        other.await_log(lambda l: l["event"] == "ready")
        equal(client_of(other.port).completions.create(model="m23", prompt="a", max_tokens=2)
              .usage.completion_tokens, 2)


def an_abandoned_stream_stops_the_engine():
    before = total(server.settle(), "model_requests_finished_total", finish_reason="client_gone")
    with client.completions.create(model="large", prompt=PROMPT, stream=True, n=8, **LONG) as stream:
        for i, _ in enumerate(stream):
            if i == 5:
                break
    after = server.settle()
    equal(total(after, "model_requests_finished_total", finish_reason="client_gone"), before + 1)
    line = server.await_log(lambda l: l.get("finish") == "client_gone")
    check(0 < line["output_tokens"] < 8 * 240, line)
    # So does a call that is given up.
    fails(openai.APITimeoutError, lambda: client.with_options(timeout=0.05).completions.create(
        model="large", prompt=[PROMPT] * 4, n=16, **LONG))
    end = time.monotonic() + 20
    while total(server.settle(), "model_requests_finished_total", finish_reason="client_gone") < before + 2:
        check(time.monotonic() < end, "the call that timed out went on")


def seeds_repeat():
    def drawn(seed, **more):
        return text_of(temperature=1, seed=seed, max_tokens=30, **more)

    equal(drawn(7), drawn(7))
    equal("".join(c.choices[0].text for c in complete(temperature=1, seed=7, max_tokens=30, stream=True)), drawn(7))
    check(len({drawn(s) for s in range(5)}) > 1, "every seed says the same")


def tokens_are_biased():
    first = complete(max_tokens=1).choices[0].text
    token = server.post("/tokenize", {"model": "small", "content": first}).json["tokens"][0]
    check(complete(max_tokens=1, logit_bias={str(token): -100}).choices[0].text != first, "it was said all the same")
    other = server.post("/tokenize", {"model": "small", "content": " cat"}).json["tokens"]
    check(" cat".startswith(text_of(max_tokens=1, logit_bias={str(other[0]): 100})), "the bias was not heard")


def prompts_may_be_tokens():
    ids = server.post("/tokenize", {"model": "small", "content": PROMPT}).json["tokens"]
    equal(text_of(prompt=ids), text_of())
    equal([c.text for c in complete(prompt=[ids, ids[:2]]).choices], [text_of(), text_of(prompt=ids[:2])])


def extensions_go_in_the_extra_body():
    equal(text_of(temperature=1, extra_body={"top_k": 1}), text_of(temperature=0))
    error = fails(openai.BadRequestError, lambda: complete(extra_body={"top_k": -7}))
    equal(error.param, "top_k")


def text_of_all_kinds_survives():
    prompt = "“Où?” \u20ac \U0001f600 \\ \" \n\t " + CANARY
    reply = complete(prompt=prompt, echo=True, max_tokens=0)
    equal(reply.choices[0].text, prompt)


def a_connection_is_kept():
    """The client keeps connections alive: many calls, no more descriptors."""
    before = total(server.settle(), "process_open_fds")
    for _ in range(50):
        complete(max_tokens=1)
    check(total(server.settle(), "process_open_fds") <= before + 2, "connections pile up")


def refused_connections_are_errors():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    fails(openai.APIConnectionError, lambda: client_of(port).models.list())


print("openai", openai.__version__, flush=True)
with Costd(*TWO, *PRICES) as server:
    client = client_of(server.port)
    run(models_are_listed, a_model_is_retrieved, unknown_models_are_not_found, a_completion, the_cost_is_told,
        a_stream_is_the_same_text, a_stream_ends_with_usage, async_streams_go_side_by_side,
        stop_strings_are_not_emitted, several_choices, logprobs_of_prompt_and_completion,
        bad_requests_name_their_field, keys_are_asked_for, unknown_routes_say_why, a_full_queue_is_retried,
        loading_and_draining_are_503, an_abandoned_stream_stops_the_engine, seeds_repeat, tokens_are_biased,
        prompts_may_be_tokens, extensions_go_in_the_extra_body, text_of_all_kinds_survives, a_connection_is_kept,
        refused_connections_are_errors)
    client.close()
