#!/usr/bin/env python3
"""Measures what each weights type loses on your checkpoint and text: perplexity, logits, the most likely token.

    bench/accuracy.py --model DIR TEXT-FILE [--costinfer BIN] [--weights f16,bf16,int8] [--windows N]

Perplexity covers the whole text.  Logits are compared with those of float32 over N windows of the context (default 4):
the greatest difference, the root mean square as a share of the logits' standard deviation, and how often both have the
same most likely token.  Prints a Markdown table.
"""

import argparse
import array
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--model", required=True)
    parser.add_argument("--costinfer", default=os.path.join(HERE, "..", "build", "bin", "costinfer"))
    parser.add_argument("--weights", default="f16,bf16,int8")
    parser.add_argument("--windows", type=int, default=4)
    args = parser.parse_args()

    def said(*arguments, **options):
        """Returns what costinfer prints; if it fails, this script ends with costinfer's own message."""
        done = subprocess.run([args.costinfer, *arguments], capture_output=True, **options)
        if done.returncode != 0:
            sys.exit(done.stderr.decode().strip() or f"{args.costinfer} ended with {done.returncode}")
        return done.stdout

    config = json.loads(said("inspect", args.model, "--json"))["config"]
    if not config:
        sys.exit(f"{args.model} is not a folder with a model")
    vocabulary, context = config["vocab_size"], config["n_positions"]
    with open(args.text, "rb") as file:
        ids = json.loads(said("tokenize", "--model", args.model, "--json", stdin=file))
    if len(ids) < 2:
        sys.exit(f"{args.text} has {len(ids)} tokens; at least 2 are needed, because the first is not predicted")
    windows = [ids[i : i + context] for i in range(0, len(ids), context)][: args.windows]

    def logits(kind, window):
        with tempfile.NamedTemporaryFile() as file:
            tokens = ",".join(map(str, window))
            said("logits", "--model", args.model, "--weights", kind, "--out", file.name, "--tokens", tokens)
            out = array.array("f")
            out.frombytes(file.read())
        return [out[i : i + vocabulary] for i in range(0, len(out), vocabulary)]

    def perplexity(kind):
        seen = said("perplexity", "--model", args.model, "--weights", kind, "--json", args.text)
        return json.loads(seen)["perplexity"]

    exact = [row for window in windows for row in logits("f32", window)]
    best = [row.index(max(row)) for row in exact]
    count = len(exact) * vocabulary
    mean = sum(map(sum, exact)) / count
    deviation = math.sqrt(sum(x * x for row in exact for x in row) / count - mean * mean)
    plain = perplexity("f32")
    print(
        f"| weights | perplexity | change | greatest difference of a logit | root mean square, of {deviation:.2f} "
        f"| same most likely token, of {len(exact)} |\n|---|---|---|---|---|---|"
    )
    print(f"| f32 | {plain:.4f} | | | | |")
    for kind in args.weights.split(","):
        rows = [row for window in windows for row in logits(kind, window)]
        worst = max(max(map(abs, map(float.__sub__, a, b))) for a, b in zip(rows, exact))
        square = sum(sum((x - y) ** 2 for x, y in zip(a, b)) for a, b in zip(rows, exact)) / count
        same = sum(row.index(max(row)) == token for row, token in zip(rows, best))
        score = perplexity(kind)
        print(
            f"| {kind} | {score:.4f} | {100 * (score / plain - 1):+.3f} % | {worst:.4f} | "
            f"{100 * math.sqrt(square) / deviation:.2f} % | {100 * same / len(rows):.2f} % |"
        )


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
