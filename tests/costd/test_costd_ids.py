"""A model whose folder has no tokenizer: token ids in and out, and text routes that say what is missing."""
import os

from costd_support import SMALL, Costd, check, equal, ns, run, run_costd, temp_folder, total

TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
             "added_tokens.json")


def without_tokenizer(folder, *kept):
    for name in os.listdir(SMALL):
        if name not in TOKENIZER or name in kept:
            os.symlink(os.path.join(os.path.abspath(SMALL), name), os.path.join(folder, name))
    return folder


def ids_go_in_and_out():
    with temp_folder() as folder, Costd("--model", "ids=" + without_tokenizer(folder), "--model",
                                        "text=" + SMALL) as server:
        check(any("no tokenizer" in line.get("notes", "") for line in server.lines), "the operator is told")
        prompt = server.post("/tokenize", {"model": "text", "content": "Once upon a time"}).json["tokens"]
        ask = {"prompt": prompt, "max_tokens": 20, "temperature": 0, "ignore_eos": True, "logprobs": 2}
        text = server.complete(model="text", **ask).json["choices"][0]
        reply = server.complete(model="ids", **ask).json
        choice = reply["choices"][0]
        equal((choice["text"], choice["finish_reason"]), ("", "length"))
        check("token_ids" not in text, text)
        words = server.post("/detokenize", {"model": "text", "tokens": choice["token_ids"]}).json["content"]
        equal(words, text["text"])
        equal(choice["logprobs"]["token_logprobs"], text["logprobs"]["token_logprobs"])
        equal(choice["logprobs"]["tokens"], ["token_id:%d" % i for i in choice["token_ids"]])
        equal(reply["usage"]["completion_tokens"], 20)
        # Several prompts, several choices, streamed, ended by an id.
        stop = choice["token_ids"][9]
        cut = choice["token_ids"][:choice["token_ids"].index(stop)]
        ask = {"prompt": [prompt, prompt[:2]], "max_tokens": 20, "temperature": 0, "n": 2, "stop_token_ids": [stop]}
        whole = [c["token_ids"] for c in server.complete(model="ids", **ask).json["choices"]]
        equal(whole[:2], [cut, cut])
        streamed = [[] for _ in whole]
        for event in server.complete(model="ids", stream=True, **ask).events:
            for c in event["choices"] if event != "[DONE]" else []:
                streamed[c["index"]] += c["token_ids"]
        equal(streamed, whole)
        # Scoring.
        ask = {"prompt": prompt + choice["token_ids"], "max_tokens": 0, "echo": True, "logprobs": 1}
        scored, wanted = (server.complete(model=m, **ask).json["choices"][0] for m in ("ids", "text"))
        equal(scored["logprobs"]["token_logprobs"], wanted["logprobs"]["token_logprobs"])
        equal(scored["token_ids"], ask["prompt"])
        equal(scored["text"], "")
        m = server.settle()
        served = sum(ns(total(m, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode"))
        equal(sum(ns(line["device_seconds"]) for line in server.requests_logged() if "device_seconds" in line),
              served)


def text_routes_say_what_is_missing():
    with temp_folder() as folder, Costd("--model", "ids=" + without_tokenizer(folder)) as server:
        for path, body in (("/v1/completions", {"prompt": "Once"}), ("/v1/completions", {"prompt": ""}),
                           ("/v1/completions", {"prompt": ["a", "b"]}), ("/v1/generate/ids", {"prompt": "Once"}),
                           ("/v1/generate/ids", {}), ("/tokenize", {"content": "a"}),
                           ("/detokenize", {"tokens": [1]})):
            reply = server.post(path, body)
            equal((reply.status, reply.error["code"]), (400, "unsupported"), (path, body, reply.body))
            check("no tokenizer" in reply.error["message"] and "vocab.json" in reply.error["message"], reply.body)
        reply = server.post("/v1/completions", {"prompt": [1], "stop": "x"})
        equal(reply.status, 400)
        check("stop_token_ids" in reply.error["message"], reply.body)
        equal(server.get("/v1/models").status, 200)
        equal(server.get("/v1/models/ids").status, 200)
        equal(server.get("/props").status, 200)


def broken_is_not_absent():
    for kept in ("vocab.json", "merges.txt"):
        with temp_folder() as folder:
            code, _, err = run_costd("--model", "ids=" + without_tokenizer(folder, kept), "--listen", "127.0.0.1:0")
            equal(code, 1, err)
            check("without" in err, err)


if __name__ == "__main__":
    run(ids_go_in_and_out, text_routes_say_what_is_missing, broken_is_not_absent)
