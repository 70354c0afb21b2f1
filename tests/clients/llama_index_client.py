"""llama-index against costd: OpenAILike as a completion model."""
from clients_support import (OVERLONG, PRICES, PROMPT, TWO, Costd, Full, check, counted, enter, equal, plain, raises,
                             raises_soon, version)

enter("llama-index")

import asyncio  # noqa: E402

import openai  # noqa: E402
from llama_index.llms.openai_like import OpenAILike  # noqa: E402

from costd_support import run  # noqa: E402

server = None


def llm(port=None, **options):
    return OpenAILike(api_base="http://127.0.0.1:%d/v1" % (port or server.port), api_key="unused",
                      **{"model": "small", "is_chat_model": False, "temperature": 0, "max_tokens": 12,
                         "max_retries": 0, "context_window": 256, **options})


def a_text_and_its_tokens():
    wanted = plain(server)
    before = counted(server)
    reply = llm().complete(PROMPT)
    equal(reply.text, wanted["choices"][0]["text"])
    usage = reply.raw.usage if hasattr(reply.raw, "usage") else reply.raw["usage"]
    equal((usage.prompt_tokens, usage.completion_tokens), tuple(b - a for a, b in zip(before, counted(server))))
    equal(asyncio.run(llm().acomplete(PROMPT)).text, reply.text)


def a_stream():
    wanted = plain(server, max_tokens=40)["choices"][0]["text"]
    parts = list(llm(max_tokens=40).stream_complete(PROMPT))
    equal(("".join(p.delta for p in parts), parts[-1].text), (wanted, wanted))
    check(len(parts) > 10, "not streamed:", len(parts))


def a_chat_becomes_a_prompt():
    from llama_index.core.llms import ChatMessage
    check(llm().chat([ChatMessage(role="user", content="Tell me a story")]).message.content, "no text")


def overflow():
    error = raises(openai.BadRequestError, lambda: llm().complete(OVERLONG, max_tokens=12))
    equal(error.code, "context_length_exceeded")
    reply = llm(additional_kwargs={"extra_body": {"truncate_prompt_tokens": 20}}).complete(OVERLONG)
    equal(reply.raw.usage.prompt_tokens, 20)


def a_full_queue():
    with Full.server() as full:
        error = raises_soon(openai.RateLimitError,
                            lambda: llm(full.server.port, model="large", max_tokens=2).complete(PROMPT))
        equal((error.status_code, error.code), (429, "queue_full"))


version("llama-index-llms-openai-like")
with Costd(*TWO, *PRICES) as server:
    run(a_text_and_its_tokens, a_stream, a_chat_becomes_a_prompt, overflow, a_full_queue)
