"""langchain-openai's completion class against costd."""
from clients_support import (OVERLONG, PRICES, PROMPT, TWO, Costd, Full, check, counted, enter, equal, plain, raises,
                             raises_soon, version)

enter("langchain")

import asyncio  # noqa: E402
import threading  # noqa: E402

import openai  # noqa: E402
from langchain_core.prompts import PromptTemplate  # noqa: E402
from langchain_openai import OpenAI  # noqa: E402

from costd_support import run  # noqa: E402

server = None


def llm(port=None, **options):
    return OpenAI(base_url="http://127.0.0.1:%d/v1" % (port or server.port), api_key="unused",
                  **{"model": "small", "temperature": 0, "max_tokens": 12, "max_retries": 0, **options})


def a_text_and_its_tokens():
    wanted = plain(server)
    equal(llm().invoke(PROMPT), wanted["choices"][0]["text"])
    before = counted(server)
    result = llm().generate([PROMPT, "The cat"])
    after = counted(server)
    usage = result.llm_output["token_usage"]
    equal((usage["prompt_tokens"], usage["completion_tokens"]), tuple(b - a for a, b in zip(before, after)))
    equal(usage["completion_tokens"], 24)
    equal([g[0].text for g in result.generations],
          [wanted["choices"][0]["text"], plain(server, prompt="The cat")["choices"][0]["text"]])
    equal(result.generations[0][0].generation_info["finish_reason"], "length")


def a_stream():
    wanted = plain(server, max_tokens=40)["choices"][0]["text"]
    chunks = list(llm(max_tokens=40).stream(PROMPT))
    equal("".join(chunks), wanted)
    check(len(chunks) > 10, "not streamed:", len(chunks))

    async def parts():
        return [chunk async for chunk in llm(max_tokens=40).astream(PROMPT)]

    equal("".join(asyncio.run(parts())), wanted)


def chains_and_batches():
    chain = PromptTemplate.from_template("{who} went to the") | llm()
    names = ["Tom", "Lily", "The dog", "Mum", "A bird"]
    equal(chain.batch([{"who": who} for who in names]),
          [plain(server, prompt=who + " went to the")["choices"][0]["text"] for who in names])


def several_choices_and_stops():
    equal(len(llm(n=3, best_of=3, temperature=1, seed=3).generate([PROMPT]).generations[0]), 3)
    whole = plain(server, max_tokens=60)["choices"][0]["text"]
    word = whole.split()[6]
    equal(llm(max_tokens=60).invoke(PROMPT, stop=[" " + word]), whole[:whole.index(" " + word)])


def logprobs():
    info = llm(logprobs=2).generate([PROMPT]).generations[0][0].generation_info["logprobs"]
    wanted = plain(server, logprobs=2)["choices"][0]["logprobs"]
    equal(info["tokens"], wanted["tokens"])
    for one, two in zip(info["token_logprobs"], wanted["token_logprobs"]):
        check(abs(one - float(two)) < 1e-4, one, two)


def overflow():
    error = raises(openai.BadRequestError, lambda: llm().invoke(OVERLONG))
    equal((error.code, error.param), ("context_length_exceeded", "prompt"))
    check("maximum context length is" in str(error), error)
    cut = llm(extra_body={"truncate_prompt_tokens": 20}).generate([OVERLONG])
    equal(cut.llm_output["token_usage"]["prompt_tokens"], 20)


def a_full_queue():
    with Full.server() as full:
        def ask(**options):
            return llm(full.server.port, model="large", max_tokens=2, **options).generate([PROMPT])

        error = raises_soon(openai.RateLimitError, ask)
        equal((error.status_code, error.code), (429, "queue_full"))
        threading.Timer(0.5, full.release).start()
        equal(ask(max_retries=20).llm_output["token_usage"]["completion_tokens"], 2)


version("langchain-openai")
with Costd(*TWO, *PRICES) as server:
    run(a_text_and_its_tokens, a_stream, chains_and_batches, several_choices_and_stops, logprobs, overflow,
        a_full_queue)
