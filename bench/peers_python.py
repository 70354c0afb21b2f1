#!/usr/bin/env python3
"""Measures a peer that is a Python package; bench/peers.py starts it once for each run.

    bench/peers_python.py PEER MODEL --threads N [--runs N] [--tokens N]

PEER is onnxruntime (MODEL: gpt2.onnx), ctranslate2-TYPE (its folder, TYPE float32, int8 …) or transformers (a
checkpoint).  Prints the medians, in tokens a second, as one JSON object.  The measurement favours onnxruntime and
transformers: their clock stops at the logits, and nothing is sampled.
"""

import argparse
import json
import os
import statistics
import sys
import time

VOCAB, LAYERS, HEADS, HEAD = 50257, 12, 12, 64
DECODE_DEPTHS, PREFILL_SIZES, STREAMS = (0, 512), (128, 512), (8, 32)


def made_up(n):
    return [(i * 7919 + 13) % VOCAB for i in range(n)]


class Onnxruntime:
    """Keys and values stay in place, because past and present are bound to the same buffer."""

    def __init__(self, model, _, threads):
        import numpy
        import onnxruntime

        self.numpy, self.ort, self.version = numpy, onnxruntime, onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.shape = None

    def start(self, batch, room):
        self.length = 0
        if self.shape == (batch, HEADS, room, HEAD):
            return
        self.shape = (batch, HEADS, room, HEAD)
        value, zeros = self.ort.OrtValue.ortvalue_from_numpy, self.numpy.zeros
        self.caches = {
            f"{what}_{i}": value(zeros(self.shape, "float32")) for what in ("key", "value") for i in range(LAYERS)
        }

    def step(self, rows):
        """Computes rows[batch][n] further tokens and returns the logits of the last one of each."""
        numpy, n = self.numpy, len(rows[0])
        ids = numpy.array(rows, "int64")
        self.length += n
        positions = numpy.broadcast_to(numpy.arange(self.length - n, self.length), ids.shape)
        binding = self.session.io_binding()
        binding.bind_cpu_input("ids", ids)
        binding.bind_cpu_input("positions", numpy.ascontiguousarray(positions))
        binding.bind_cpu_input("lengths", numpy.full(len(rows), self.length - 1, "int32"))
        binding.bind_cpu_input("total", numpy.array(self.length, "int32"))
        for name, value in self.caches.items():
            binding.bind_ortvalue_input("past_" + name, value)
            binding.bind_ortvalue_output("present_" + name, value)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()[:, 0]


class Transformers:
    def __init__(self, model, _, threads):
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.transformers = torch, transformers
        self.version = f"{transformers.__version__}, torch {torch.__version__}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa")
        self.model.eval()

    def start(self, batch, room):
        self.cache = self.transformers.DynamicCache(config=self.model.config)

    def step(self, rows):
        with self.torch.inference_mode():
            out = self.model(self.torch.tensor(rows), past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].numpy()


def stepwise(peer, runs, tokens):
    """Measures onnxruntime and transformers, whose prompts and steps are calls."""

    def timed(batch, depth, steps):
        peer.start(batch, depth + steps)
        if depth:
            peer.step([made_up(depth)] * batch)
        start = time.perf_counter()
        for i in range(steps):
            peer.step([[made_up(i + 1)[-1]]] * batch)
        return batch * steps / (time.perf_counter() - start)

    def prefill(n):
        peer.start(1, n)
        start = time.perf_counter()
        peer.step([made_up(n)])
        return n / (time.perf_counter() - start)

    return measure(runs, prefill, lambda depth: timed(1, depth, tokens), lambda n: timed(n, 0, tokens))


class Ctranslate2:
    """Times whole calls, and subtracts the time of the prompt, measured by a call for one token."""

    def __init__(self, model, kind, threads):
        import ctranslate2

        self.version = ctranslate2.__version__
        self.generator = ctranslate2.Generator(
            model, device="cpu", inter_threads=1, intra_threads=threads, compute_type=kind, flash_attention=False
        )
        with open(os.path.join(model, "vocabulary.json"), encoding="utf-8") as file:
            self.names = json.load(file)

    def seconds(self, batch, prompt, new):
        prompts = [[self.names[i] for i in made_up(prompt)]] * batch
        start = time.perf_counter()
        self.generator.generate_batch(
            prompts,
            max_length=new,
            min_length=new,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=0,
        )
        return time.perf_counter() - start

    def measure(self, runs, tokens):
        def decode(depth):
            depth = max(depth, 1)
            return tokens / (self.seconds(1, depth, tokens + 1) - self.seconds(1, depth, 1))

        return measure(
            runs, lambda n: n / self.seconds(1, n, 1), decode, lambda n: n * tokens / self.seconds(n, 1, tokens)
        )


def measure(runs, prefill, decode, streams):
    figures = {}
    for name, sizes, how in (
        ("prefill", PREFILL_SIZES, prefill),
        ("decode", DECODE_DEPTHS, decode),
        ("streams", STREAMS, streams),
    ):
        for size in sizes:
            how(size)
            figures[f"{name}_{size}"] = statistics.median(how(size) for _ in range(runs))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()
    name, _, kind = args.peer.partition("-")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    kinds = {"onnxruntime": Onnxruntime, "ctranslate2": Ctranslate2, "transformers": Transformers}
    if name not in kinds:
        sys.exit(f"unknown peer {args.peer}; expected onnxruntime, ctranslate2-TYPE, transformers")
    start = time.perf_counter()
    peer = kinds[name](args.model, kind, args.threads)
    load = time.perf_counter() - start
    if name == "ctranslate2":
        figures = peer.measure(args.runs, args.tokens)
    else:
        figures = stepwise(peer, args.runs, args.tokens)
    print(json.dumps({"version": peer.version, "load_seconds": load, "figures": figures}))


if __name__ == "__main__":
    main()
