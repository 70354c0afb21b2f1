"""Log-likelihoods as evaluation harnesses ask for them, compared with the logits that costinfer writes.

lm-eval's local-completions sends token ids with echo, logprobs and temperature 0: max_tokens 0 and logprobs 10
in its older versions, max_tokens 1 and logprobs 1 since (it drops the last token then).  It adds up
token_logprobs from the length of the context on, and calls a continuation greedy when each of its tokens has
the greatest of top_logprobs.  The sum must be that of log softmax over `costinfer logits`."""
import array
import math
import os
import subprocess
import tempfile

from costd_support import BUILD, LARGE, SMALL, TWO, Costd, check, equal, run, skip

PROGRAM = os.path.join(BUILD, "bin", "costinfer")
if not os.path.exists(PROGRAM):
    skip(PROGRAM + " is absent")

BOUND = 1e-4
TEXTS = [("Once upon a time", " there was a little girl who loved to play in the garden."),
         ("The cat sat", " on the mat and"), ("Tom had a red ball. He", " zqx voted against 1789 amendments!"),
         ("“Où est", " le café ?” \U0001f600 1 + 1 = 2\n\n\tend"), ("A", " " + "very " * 60 + "long story")]


def log_softmax(row):
    top = max(row)
    norm = top + math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - norm for v in row]


def expected(folder, ids, n_context):
    """The sum over the continuation, and whether each of its tokens is the likeliest."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([PROGRAM, "logits", "--weights", "f32", "--model", folder, "--tokens",
                        ",".join(map(str, ids)), "--out",
                        file.name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        logits = array.array("f", file.read())
    n_vocab = len(logits) // len(ids)
    total, greedy = [], True
    for i in range(n_context, len(ids)):
        row = logits[(i - 1) * n_vocab:i * n_vocab]
        total.append(log_softmax(row)[ids[i]])
        greedy = greedy and row[ids[i]] == max(row)
    return math.fsum(total), greedy


def lm_eval_request(server, model, prompts, old):
    """The body that lm-eval sends, and how it reads the answer: (sum, greedy) by prompt and length of context."""
    reply = server.complete(model=model, prompt=[ids for ids, _ in prompts], temperature=0, echo=True, seed=1234,
                            **({"max_tokens": 0, "logprobs": 10} if old else {"max_tokens": 1, "logprobs": 1})).json
    out = []
    for choice, (ids, n_context) in zip(sorted(reply["choices"], key=lambda c: c["index"]), prompts):
        end = len(ids) if old else -1
        equal(len(choice["logprobs"]["token_logprobs"]), len(ids) + (0 if old else 1))
        logprobs = choice["logprobs"]["token_logprobs"][n_context:end]
        top = choice["logprobs"]["top_logprobs"][n_context:end]
        out.append((float(sum(logprobs)), all(l == max(t.values()) for l, t in zip(logprobs, top))))
    equal(reply["usage"]["prompt_tokens"], sum(len(ids) for ids, _ in prompts))
    return out


def scores_are_the_models():
    worst = 0
    with Costd(*TWO, "--weights", "f32") as server:
        for model, folder in (("small", SMALL), ("large", LARGE)):
            def tokens(text, name=model):
                return server.post("/tokenize", {"model": name, "content": text}).json["tokens"]

            prompts = []
            for context, continuation in TEXTS:
                ids = tokens(context + continuation)
                prompts.append((ids, min(len(tokens(context)), len(ids) - 1)))
            # What the model itself would say is greedy, and the sampled score is not.
            said = server.complete(model=model, prompt=prompts[0][0], max_tokens=12, temperature=0, logprobs=0).json
            ids = prompts[0][0] + tokens(said["choices"][0]["text"])
            prompts.append((ids, len(prompts[0][0])))
            wanted = [expected(folder, *p) for p in prompts]
            check(wanted[-1][1] and not wanted[2][1], wanted)
            for old in (True, False):
                together = lm_eval_request(server, model, prompts, old)
                alone = [lm_eval_request(server, model, [p], old)[0] for p in prompts]
                for (logprob, greedy), (a, b), (c, d) in zip(wanted, together, alone):
                    worst = max(worst, abs(a - logprob), abs(c - logprob))
                    equal((b, d), (greedy, greedy))
    print("  largest difference of a sum: %.1e" % worst)
    check(worst <= BOUND, "sums differ by", worst)


if __name__ == "__main__":
    run(scores_are_the_models)
