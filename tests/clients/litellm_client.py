"""LiteLLM against costd: its SDK, and its proxy between OpenAI's client and costd."""
import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from clients_support import (OVERLONG, PRICES, PROMPT, TWO, Costd, Full, check, counted, enter, equal, plain, program,
                             raises, raises_soon, version)

enter("litellm")

import litellm  # noqa: E402
import openai  # noqa: E402

from costd_support import run  # noqa: E402

litellm.telemetry = False
server = None
OPTIONS = {"max_tokens": 12, "temperature": 0}


def base(port):
    return "http://127.0.0.1:%d/v1" % port


def ask(prompt=PROMPT, port=None, model="small", **options):
    return litellm.text_completion(model="text-completion-openai/" + model, prompt=prompt, api_key="unused",
                                   api_base=base(port or server.port), **{**OPTIONS, "max_retries": 0, **options})


def the_sdk_gives_text_and_usage():
    wanted = plain(server)
    before = counted(server)
    reply = ask()
    equal(reply.choices[0].text, wanted["choices"][0]["text"])
    equal(reply.choices[0].finish_reason, "length")
    equal((reply.usage.prompt_tokens, reply.usage.completion_tokens),
          tuple(b - a for a, b in zip(before, counted(server))))
    equal(reply.usage.total_tokens, wanted["usage"]["total_tokens"])

    async def one():
        return await litellm.atext_completion(model="text-completion-openai/small", prompt=PROMPT, api_key="unused",
                                              api_base=base(server.port), **OPTIONS)

    equal(asyncio.run(one()).choices[0].text, wanted["choices"][0]["text"])


def the_sdk_streams():
    wanted = plain(server, max_tokens=40)
    chunks = list(ask(max_tokens=40, stream=True, stream_options={"include_usage": True}))
    equal("".join(c.choices[0].text or "" for c in chunks if c.choices), wanted["choices"][0]["text"])
    check(len(chunks) > 10, "not streamed:", len(chunks))
    usage = [c.usage for c in chunks if getattr(c, "usage", None)]
    equal((usage[-1].prompt_tokens, usage[-1].completion_tokens),
          (wanted["usage"]["prompt_tokens"], wanted["usage"]["completion_tokens"]))


def the_sdk_sends_several_prompts():
    equal([c.text for c in ask(prompt=[PROMPT, "The cat"]).choices],
          [plain(server)["choices"][0]["text"], plain(server, prompt="The cat")["choices"][0]["text"]])
    equal(ask(extra_body={"truncate_prompt_tokens": 2}).usage.prompt_tokens, 2)


def the_sdk_knows_an_overflow():
    error = raises(litellm.ContextWindowExceededError, lambda: ask(prompt=OVERLONG))
    equal(error.status_code, 400)
    check("maximum context length is" in str(error), error)
    raises(litellm.NotFoundError, lambda: ask(model="none"))
    raises(litellm.BadRequestError, lambda: ask(temperature=-1))


def the_sdk_knows_a_full_queue():
    with Full.server() as full:
        def call(**options):
            return ask(port=full.server.port, model="large", **{"max_tokens": 2, **options})

        error = raises_soon(litellm.RateLimitError, call)
        equal(error.status_code, 429)
        check("waiting" in str(error), error)
        threading.Timer(0.5, full.release).start()
        equal(call(max_retries=20).usage.completion_tokens, 2)


# ---- The proxy

CONFIG = """
model_list:
  - model_name: stories
    litellm_params:
      model: text-completion-openai/small
      api_base: %(base)s
      api_key: unused
  - model_name: priced
    litellm_params:
      model: text-completion-openai/small
      api_base: %(base)s
      api_key: unused
      input_cost_per_token: 0.000001
      output_cost_per_token: 0.000002
router_settings:
  num_retries: 0
litellm_settings:
  telemetry: false
"""


def started_proxy(folder):
    path = os.path.join(folder, "config.yaml")
    with open(path, "w") as f:
        f.write(CONFIG % {"base": base(server.port)})
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    process = subprocess.Popen([program("litellm", "litellm"), "--config", path, "--port", str(port), "--host",
                                "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, text=True)
    log = []
    threading.Thread(target=lambda: log.extend(process.stdout), daemon=True).start()
    end = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/health/liveliness" % port, timeout=5):
                return process, port, log
        except OSError:
            check(process.poll() is None and time.monotonic() < end, "the proxy does not start:", "".join(log)[-3000:])
            time.sleep(0.5)


def the_proxy_passes_everything_on():
    with tempfile.TemporaryDirectory() as folder:
        process, port, log = started_proxy(folder)
        try:
            with openai.OpenAI(base_url=base(port), api_key="unused", max_retries=0, timeout=60) as client:
                through_the_proxy(client)
        except AssertionError:
            print("".join(log)[-5000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def through_the_proxy(client):
    def complete(**options):
        return client.completions.create(**{"model": "stories", "prompt": PROMPT, **OPTIONS, **options})

    wanted = plain(server)
    before = counted(server)
    reply = complete()
    equal(reply.choices[0].text, wanted["choices"][0]["text"])
    equal((reply.usage.prompt_tokens, reply.usage.completion_tokens),
          tuple(b - a for a, b in zip(before, counted(server))))
    chunks = list(complete(stream=True, max_tokens=40))
    equal("".join(c.choices[0].text or "" for c in chunks if c.choices),
          plain(server, max_tokens=40)["choices"][0]["text"])
    check(len(chunks) > 10, "not streamed:", len(chunks))
    # A price that the operator tells the proxy is charged for the tokens that we count.
    raw = client.completions.with_raw_response.create(model="priced", prompt=PROMPT, **OPTIONS)
    cost = float(raw.headers["x-litellm-response-cost"])
    check(abs(cost - (reply.usage.prompt_tokens * 1e-6 + 12 * 2e-6)) < 1e-12, cost, reply.usage)
    error = raises(openai.BadRequestError, lambda: complete(prompt=OVERLONG))
    check("ContextWindowExceededError" in str(error) and "maximum context length is" in str(error), error)


version("litellm")
with Costd(*TWO, *PRICES) as server:
    run(the_sdk_gives_text_and_usage, the_sdk_streams, the_sdk_sends_several_prompts,
        the_sdk_knows_an_overflow, the_sdk_knows_a_full_queue, the_proxy_passes_everything_on)
