"""EleutherAI's evaluation harness against costd, by its model local-completions on small tasks of our own.

Its figures are held against those of costinfer, which has no HTTP: sums of log-probabilities against the log
softmax over `costinfer logits`, texts against what costd gives without the harness."""
import json
import math
import os
import tempfile

from clients_support import PRICES, TWO, Costd, check, counted, enter, equal, plain, version

enter("lm-eval")

import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from costd_support import SMALL, run  # noqa: E402
from test_costd_scoring import expected  # noqa: E402

QUESTIONS = [
    ("Once upon a time, there was a little",
     [" girl who loved to play.", " zqx of amendments.", " girl named Lily."], 2),
    ("The cat sat on the", [" mat and purred.", " 1789 quantum.", " bed."], 0),
    ("Tom had a red ball. He liked to", [" play with it.", " amend the constitution of it.", " the a of."], 0),
    ("“Où est”", [" the café?", " Tom.", " \U0001f600 end"], 1),
]
STORY = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she "
         "saw a big dog. The dog was sad. ") * 12
TASKS = {
    "choices": """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: %(folder)s/choices.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{answers}}"
doc_to_target: "{{right}}"
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "rolling": """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: %(folder)s/story.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{story}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
""",
    "continued": """
task: continued
dataset_path: json
dataset_kwargs: {data_files: {test: %(folder)s/choices.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{greedy}}"
target_delimiter: ""
generation_kwargs: {until: ["."], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}
CONTEXT = 256  # of stories-small
BOUND = 2e-3   # of a sum of log-probabilities
server = folder = None


def write_tasks():
    with open(os.path.join(folder, "choices.jsonl"), "w") as f:
        for question, answers, right in QUESTIONS:
            greedy = plain(server, prompt=question, max_tokens=24, stop=["."])["choices"][0]["text"]
            f.write(json.dumps({"question": question, "answers": answers, "right": right, "greedy": greedy}) + "\n")
    with open(os.path.join(folder, "story.jsonl"), "w") as f:
        f.write(json.dumps({"story": STORY}) + "\n")
    for name, text in TASKS.items():
        with open(os.path.join(folder, name + ".yaml"), "w") as f:
            f.write(text % {"folder": folder})


def evaluate(tasks, **options):
    """{task: (results, samples in order)}"""
    arguments = {"model": "small", "base_url": "http://127.0.0.1:%d/v1/completions" % server.port, "tokenizer": SMALL,
                 "tokenizer_backend": "huggingface", "max_length": CONTEXT + 1}
    told = lm_eval.simple_evaluate(model="local-completions", model_args=arguments, tasks=tasks, log_samples=True,
                                   bootstrap_iters=0, task_manager=TaskManager(include_path=folder), **options)
    return {task: (told["results"][task], sorted(told["samples"][task], key=lambda sample: sample["doc_id"]))
            for task in tasks}


def tokens(text, **options):
    return server.post("/tokenize", {"model": "small", "content": text, **options}).json["tokens"]


def likelihoods_are_the_models():
    before = counted(server)
    results, samples = evaluate(["choices"])["choices"]
    after = counted(server)
    n_right, n_tokens, n_asked = 0, 0, 0
    for sample, (question, answers, right) in zip(samples, QUESTIONS):
        wanted = [expected(SMALL, tokens(question + answer), len(tokens(question))) for answer in answers]
        for (logprob, greedy), (wanted_sum, wanted_greedy) in zip(sample["filtered_resps"], wanted):
            check(abs(float(logprob) - wanted_sum) < BOUND, question, logprob, wanted_sum)
            equal(str(greedy), str(wanted_greedy), question)
        sums = [s for s, _ in wanted]
        n_right += sums.index(max(sums)) == right
        n_tokens += sum(len(tokens(question + answer)) for answer in answers)
        n_asked += len(answers)
    equal(results["acc,none"], n_right / len(QUESTIONS))
    equal((after[0] - before[0], after[1] - before[1]), (n_tokens, n_asked))
    _, again = evaluate(["choices"], batch_size=3)["choices"]
    for one, two in zip(samples, again):
        for (a, _), (b, _) in zip(one["filtered_resps"], two["filtered_resps"]):
            check(abs(float(a) - float(b)) < BOUND, a, b)


def perplexities_and_texts_are_the_models():
    told = evaluate(["rolling", "continued"])
    results, _ = told["rolling"]
    ids, end = tokens(STORY), tokens("<|endoftext|>", parse_special=True)
    check(len(ids) > CONTEXT, "one window")
    # Windows as the harness cuts them: <|endoftext|> stands before the first, and the others, the last one too, have
    # as much before what they score as there is room for.
    at = CONTEXT - 1
    wanted = expected(SMALL, end + ids[:at], 1)[0]
    while at < len(ids):
        n = min(len(ids) - at, CONTEXT - 1)
        wanted += expected(SMALL, ids[at + n - CONTEXT:at + n], CONTEXT - n)[0]
        at += n
    seen = -math.log(results["byte_perplexity,none"]) * len(STORY.encode())
    check(abs(seen / wanted - 1) < 1e-4, seen, wanted)
    results, samples = told["continued"]
    equal((len(samples), results["exact_match,none"]), (len(QUESTIONS), 1.0))


version("lm_eval")
with Costd(*TWO, *PRICES, "--weights", "f32") as server, tempfile.TemporaryDirectory() as folder:
    write_tasks()
    run(likelihoods_are_the_models, perplexities_and_texts_are_the_models)
