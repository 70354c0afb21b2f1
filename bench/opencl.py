#!/usr/bin/env python3
"""Tests and measures an OpenCL device, and writes everything into one file:

    bench/opencl.py [--device opencl] [--shapes gpt2,gpt2-xl] [--weights f16] [--rounds 5] [--build build]
                    [--python PYTHON] [--tests opencl] [--out FILE]

The parts are the driver's description (clinfo); our tests (ctest -R; "" for none); launches, memory and matrix
products, GPT-2's steps at 1, 8, 32 and 128 streams and a prompt of the whole context (bench_opencl); the same models
through the engine (costinfer bench); and, if PYTHON has torch and transformers, generate() of the same shapes on the
same GPU.  Weights are synthetic.  The file is bench/results/opencl-NAME-DATE.json, where NAME is the device's; a CPU
through OpenCL is marked as such.

A part that fails is in the file with its reason, and the exit status is 1.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel
width, heads, layers, vocab, positions, rounds = json.loads(sys.argv[1])
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
torch.manual_seed(1)
config = GPT2Config(n_embd=width, n_head=heads, n_layer=layers, vocab_size=vocab, n_positions=positions,
                    bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).to(device).eval()
if on_gpu:
    model = model.half()
def timed(call):
    seconds = []
    for _ in range(rounds + 1):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[rounds // 2]
out = {"torch": torch.__version__, "transformers": transformers.__version__,
       "device": torch.cuda.get_device_name() if on_gpu else "cpu", "type": "float16" if on_gpu else "float32",
       "generate_tokens_per_s": {}}
tokens = min(32, positions - 1)
with torch.no_grad():
    for streams in (1, 8, 32, 128):
        ids = torch.ones((streams, 1), dtype=torch.long, device=device)
        s = timed(lambda: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                                         min_new_tokens=tokens, do_sample=False, pad_token_id=0))
        out["generate_tokens_per_s"][str(streams)] = round(streams * tokens / s, 1)
    ids = torch.ones((1, positions), dtype=torch.long, device=device)
    out["prompt"], out["prompt_ms"] = positions, round(1e3 * timed(lambda: model(ids)), 3)
print(json.dumps(out))
"""
SHAPES = {"tiny": (64, 1, 2, 300, 64), "gpt2": (768, 12, 12, 50257, 1024), "gpt2-medium": (1024, 16, 24, 50257, 1024),
          "gpt2-large": (1280, 20, 36, 50257, 1024), "gpt2-xl": (1600, 25, 48, 50257, 1024)}


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def facts():
    """Returns the kernel's version, and the output of clinfo and nvidia-smi where they are installed."""
    found = {"kernel": os.uname().release}
    for name, command in (("clinfo", ["clinfo", "--raw"]), ("nvidia_smi", ["nvidia-smi", "-q"])):
        try:
            found[name] = output_of(*command).splitlines()
        except (OSError, RuntimeError) as failure:
            found[name] = f"not available: {failure}"
    return found


def tests(build, which):
    """Returns the result of each OpenCL test; those that only a CPU can run are skipped on a GPU."""
    done = subprocess.run(["ctest", "--test-dir", build, "-R", which], capture_output=True, text=True)
    ended = dict(re.findall(r"Test +#\d+: (\S+) \.*\W*(Passed|Skipped|Failed|Timeout|Not Run)", done.stdout))
    if done.returncode != 0 or not ended:
        raise RuntimeError(f"{ended or done.stderr.strip()[-300:]}")
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="opencl")
    parser.add_argument("--shapes", default="gpt2,gpt2-xl")
    parser.add_argument("--weights", default="f16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", default=os.environ.get("CINF_BUILD", os.path.join(HERE, "..", "build")))
    parser.add_argument("--python")
    parser.add_argument("--tests", default="opencl")
    parser.add_argument("--out")
    args = parser.parse_args()
    shapes = args.shapes.split(",")
    if any(shape not in SHAPES for shape in shapes):
        parser.error("shapes are " + ", ".join(SHAPES))

    def program(name):
        return os.path.join(args.build, "bin", name)

    seen = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "failed": []}

    def part(name, call):
        print(f"== {name}", flush=True)
        try:
            seen[name] = call()
        except (OSError, RuntimeError, ValueError) as failure:
            seen[name] = None
            seen["failed"].append(f"{name}: {failure}")
            print(f"   {failure}", flush=True)

    part("commit", lambda: output_of("git", "-C", HERE, "describe", "--always", "--dirty").strip())
    part("facts", facts)
    if args.tests:
        part("tests", lambda: tests(args.build, args.tests))
    for shape in shapes:
        part(f"steps {shape}", lambda s=shape: json.loads(
            output_of(program("bench_opencl"), args.device, s, args.weights, str(args.rounds))))
        if shape != "tiny":  # which costinfer does not have
            part(f"engine {shape}", lambda s=shape: json.loads(
                output_of(program("costinfer"), "bench", "--shape", s, "--device", args.device, "--weights",
                          args.weights, "--runs", str(args.rounds), "--json")))
        if args.python:
            part(f"transformers {shape}", lambda s=shape: json.loads(
                output_of(args.python, "-c", PEER, json.dumps([*SHAPES[s], args.rounds])).splitlines()[-1]))

    steps = seen[f"steps {shapes[0]}"]
    seen["device"] = steps["description"] if steps else None
    seen["is_gpu"] = steps["is_gpu"] if steps else None
    if steps and not steps["is_gpu"]:
        seen["note"] = "This device is a CPU through OpenCL: no figure in this file is of a GPU."
    for shape in shapes:
        ours, peer = seen[f"steps {shape}"], seen.get(f"transformers {shape}")
        if ours:
            print(f"{shape}: tokens/s {ours['decode_tokens_per_s']}, prompt of {ours['prompt']} {ours['prompt_ms']} ms")
        if peer:
            print(f"{shape}, transformers on {peer['device']}: tokens/s {peer['generate_tokens_per_s']}, "
                  f"prompt {peer['prompt_ms']} ms")
    name = re.sub(r"[^a-z0-9]+", "-", (seen["device"] or "none").split(",")[0].lower()).strip("-")
    kind = "" if seen["is_gpu"] else "cpu-"
    out = args.out or os.path.join(HERE, "results", f"opencl-{kind}{name}-{seen['date'][:10]}.json")
    with open(out, "w", encoding="utf-8") as file:
        json.dump(seen, file, indent=1)
        file.write("\n")
    print(seen.get("note", ""), "->", os.path.relpath(out), flush=True)
    return 1 if seen["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
