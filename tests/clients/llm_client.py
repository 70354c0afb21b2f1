"""The command line `llm` against costd, as a model of its extra-openai-models.yaml."""
import json
import os
import subprocess
import tempfile

from clients_support import OVERLONG, PRICES, PROMPT, TWO, Costd, Full, check, enter, equal, plain, program, version

enter("llm")

from costd_support import run  # noqa: E402

MODELS = """
- model_id: stories
  model_name: small
  api_base: "http://127.0.0.1:%(port)d/v1"
  completion: true
- model_id: slow
  model_name: large
  api_base: "http://127.0.0.1:%(port)d/v1"
  completion: true
"""
server = None


def llm(*arguments, port=None, good=True):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "extra-openai-models.yaml"), "w") as f:
            f.write(MODELS % {"port": port or server.port})
        environment = {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "unused"}

        def call(*words):
            return subprocess.run([program("llm", "llm"), *words], capture_output=True, text=True, timeout=120,
                                  check=False, stdin=subprocess.DEVNULL, env=environment)

        done = call(*arguments)
        check(good is None or good == (done.returncode == 0), done.stdout + done.stderr)
        logged = call("logs", "--json", "-n", "1") if arguments[0] == "prompt" and good else None
        return done, json.loads(logged.stdout)[0] if logged else None


def the_models_are_listed():
    done, _ = llm("models")
    check("OpenAI Completion: stories" in done.stdout and "slow" in done.stdout, done.stdout)


def a_text_streamed_and_whole():
    wanted = plain(server)
    for more in ((), ("--no-stream",)):
        done, log = llm("prompt", PROMPT, "-m", "stories", *more, "-o", "temperature", "0", "-o", "max_tokens", "12")
        equal(done.stdout.rstrip("\n"), wanted["choices"][0]["text"].rstrip("\n"), more)
        equal(log["response"], wanted["choices"][0]["text"])
        if more:
            equal({k: log["response_json"]["usage"][k] for k in ("prompt_tokens", "completion_tokens")},
                  {k: wanted["usage"][k] for k in ("prompt_tokens", "completion_tokens")})


def options_are_taken():
    done, _ = llm("prompt", PROMPT, "-m", "stories", "--no-stream", "-o", "temperature", "1", "-o", "seed", "7", "-o",
                  "max_tokens", "30", "-o", "top_p", "0.9", "-o", "presence_penalty", "0.5", "-o", "logit_bias",
                  '{"5": -100}', "-o", "stop", "Lily")
    wanted = plain(server, temperature=1, seed=7, max_tokens=30, top_p=0.9, presence_penalty=0.5,
                   logit_bias={"5": -100}, stop="Lily")
    equal(done.stdout.rstrip("\n"), wanted["choices"][0]["text"].rstrip("\n"))


def an_overflow_is_told():
    done, _ = llm("prompt", OVERLONG, "-m", "stories", good=False)
    check("This model's maximum context length is 256 tokens" in done.stderr, done.stderr)


def a_full_queue_is_told():
    """The library inside comes again twice, and is then refused or not."""
    with Full.server() as full:
        for _ in range(20):
            done, _ = llm("prompt", PROMPT, "-m", "slow", "-o", "max_tokens", "2", "--no-log", port=full.server.port,
                          good=None)
            if done.returncode != 0:
                break
        check("Error code: 429" in done.stderr and "requests are waiting" in done.stderr, done.stderr)


version("llm")
with Costd(*TWO, *PRICES) as server:
    run(the_models_are_listed, a_text_streamed_and_whole, options_are_taken, an_overflow_is_told,
        a_full_queue_is_told)
