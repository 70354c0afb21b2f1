#!/usr/bin/env python3
"""Writes one synthetic GPT-2 (124M) checkpoint in every format that the peers of bench/peers.py read.

    bench/peers_model.py FOLDER --tokenizer DIR [--llama-cpp SOURCE] [--llama-quantize BIN]

DIR has GPT-2's vocab.json and merges.txt, SOURCE is a clone of llama.cpp (for its converter), and BIN is its program.
Weights are N(0, 0.02) with a fixed seed, because speed does not depend on their values.  The script needs numpy, and
for the peers ctranslate2 and transformers, onnx, torch and gguf.  It writes into FOLDER:

    gpt2/            config.json, model.safetensors (float32), vocab.json, merges.txt
    gguf/            gpt2-f32.gguf, gpt2-f16.gguf, gpt2-q8_0.gguf; with BIN gpt2-q4_0.gguf
    ct2-float32/     CTranslate2's format; the other types are converted when it loads them
    gpt2.onnx        one graph for prompts and steps, with com.microsoft's fused operators
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy

LAYERS, HEADS, WIDTH, CONTEXT, VOCAB = 12, 12, 768, 1024, 50257
CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": WIDTH,
    "n_positions": CONTEXT,
    "n_ctx": CONTEXT,
    "vocab_size": VOCAB,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "tie_word_embeddings": True,
    "dtype": "float32",
    "torch_dtype": "float32",
}


def tensors():
    random = numpy.random.default_rng(2026)

    def normal(*shape):
        return (0.02 * random.standard_normal(shape, dtype=numpy.float32)).astype(numpy.float32)

    def norm(name):
        return {name + ".weight": 1 + normal(WIDTH), name + ".bias": normal(WIDTH)}

    def linear(name, rows, columns):
        return {name + ".weight": normal(rows, columns), name + ".bias": normal(columns)}

    out = {"wte.weight": normal(VOCAB, WIDTH), "wpe.weight": normal(CONTEXT, WIDTH)}
    for layer in range(LAYERS):
        h = f"h.{layer}."
        out |= (
            norm(h + "ln_1") | linear(h + "attn.c_attn", WIDTH, 3 * WIDTH) | linear(h + "attn.c_proj", WIDTH, WIDTH)
        )
        out |= (
            norm(h + "ln_2") | linear(h + "mlp.c_fc", WIDTH, 4 * WIDTH) | linear(h + "mlp.c_proj", 4 * WIDTH, WIDTH)
        )
    return out | norm("ln_f")


def write_checkpoint(folder, tokenizer, weights):
    os.makedirs(folder, exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(os.path.join(tokenizer, name), os.path.join(folder, name))
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(CONFIG, file, indent=1)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "GPT2Tokenizer", "model_max_length": CONTEXT}, file)
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in weights.items():
        head["transformer." + name] = {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    head = json.dumps(head).encode()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor in weights.values():
            file.write(tensor.tobytes())


def write_onnx(path, weights):
    """Writes the graph.  GroupQueryAttention keeps keys and values in place (past and present are one buffer), so a
    step does not copy the past.  Logits are computed for the last row of each sequence."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], [numpy_helper.from_array(t, n) for n, t in weights.items()]

    def node(kind, inputs, outputs, domain="", **attributes):
        nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))

    def constant(name, values, kind=numpy.int64):
        constants.append(numpy_helper.from_array(numpy.array(values, kind), name))

    def linear(x, name, out):
        node("MatMul", [x, name + ".weight"], [out + "_product"])
        node("Add", [out + "_product", name + ".bias"], [out])

    microsoft = {"domain": "com.microsoft"}
    constant("last", [-1])
    constant("row_axis", [1])
    constant("end", [numpy.iinfo(numpy.int64).max])
    constants.append(numpy_helper.from_array(numpy.ascontiguousarray(weights["wte.weight"].T), "head"))
    node("Gather", ["wte.weight", "ids"], ["tokens"])
    node("Gather", ["wpe.weight", "positions"], ["places"])
    node("Add", ["tokens", "places"], ["x0"])
    node("LayerNormalization", ["x0", "h.0.ln_1.weight", "h.0.ln_1.bias"], ["n0"], epsilon=1e-5, axis=-1)
    x, normed = "x0", "n0"
    inputs, outputs = [], []
    for layer in range(LAYERS):
        h, p = f"h.{layer}.", f"l{layer}_"
        linear(normed, h + "attn.c_attn", p + "qkv")
        past = [f"past_key_{layer}", f"past_value_{layer}"]
        present = [f"present_key_{layer}", f"present_value_{layer}"]
        node(
            "GroupQueryAttention",
            [p + "qkv", "", "", *past, "lengths", "total"],
            [p + "mixed", *present],
            num_heads=HEADS,
            kv_num_heads=HEADS,
            **microsoft,
        )
        shape = ["batch", HEADS, "room", WIDTH // HEADS]
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in past]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in present]
        node("MatMul", [p + "mixed", h + "attn.c_proj.weight"], [p + "a"])
        node(
            "SkipLayerNormalization",
            [x, p + "a", h + "ln_2.weight", h + "ln_2.bias", h + "attn.c_proj.bias"],
            [p + "n2", "", "", p + "x2"],
            epsilon=1e-5,
            **microsoft,
        )
        node("MatMul", [p + "n2", h + "mlp.c_fc.weight"], [p + "up"])
        node("FastGelu", [p + "up", h + "mlp.c_fc.bias"], [p + "gelu"], **microsoft)
        node("MatMul", [p + "gelu", h + "mlp.c_proj.weight"], [p + "b"])
        after = "ln_f" if layer == LAYERS - 1 else f"h.{layer + 1}.ln_1"
        x, normed = p + "x3", p + "n3"
        node(
            "SkipLayerNormalization",
            [p + "x2", p + "b", after + ".weight", after + ".bias", h + "mlp.c_proj.bias"],
            [normed, "", "", x],
            epsilon=1e-5,
            **microsoft,
        )
    node("Slice", [normed, "last", "end", "row_axis"], ["last_row"])
    node("MatMul", ["last_row", "head"], ["logits"])
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "rows"]),
        helper.make_tensor_value_info("positions", TensorProto.INT64, ["batch", "rows"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
    ] + inputs
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, VOCAB])] + outputs
    graph = helper.make_graph(nodes, "gpt2", inputs, outputs, constants)
    model = helper.make_model(
        graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    )
    onnx.save(model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--llama-cpp")
    parser.add_argument("--llama-quantize")
    args = parser.parse_args()
    weights = tensors()
    checkpoint = os.path.join(args.folder, "gpt2")
    write_checkpoint(checkpoint, args.tokenizer, weights)
    print(checkpoint)

    def attempt(path, make):
        try:
            make()
            print(path)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            print(f"{path}: not written: {error}", file=sys.stderr)

    onnx_path = os.path.join(args.folder, "gpt2.onnx")
    attempt(onnx_path, lambda: write_onnx(onnx_path, weights))
    del weights
    if args.llama_cpp:
        os.makedirs(os.path.join(args.folder, "gguf"), exist_ok=True)
        for kind in ("f32", "f16", "q8_0"):
            path = os.path.join(args.folder, "gguf", f"gpt2-{kind}.gguf")
            attempt(
                path,
                lambda path=path, kind=kind: subprocess.run(
                    [
                        sys.executable,
                        os.path.join(args.llama_cpp, "convert_hf_to_gguf.py"),
                        checkpoint,
                        "--outtype",
                        kind,
                        "--outfile",
                        path,
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                ),
            )
    if args.llama_quantize:
        path = os.path.join(args.folder, "gguf", "gpt2-q4_0.gguf")
        attempt(
            path,
            lambda: subprocess.run(
                [args.llama_quantize, os.path.join(args.folder, "gguf", "gpt2-f32.gguf"), path, "q4_0"],
                check=True,
                stdout=subprocess.DEVNULL,
            ),
        )
    ct2 = os.path.join(args.folder, "ct2-float32")
    attempt(
        ct2,
        lambda: subprocess.run(
            [
                os.path.join(os.path.dirname(sys.executable), "ct2-transformers-converter"),
                "--model",
                checkpoint,
                "--output_dir",
                ct2,
                "--force",
            ],
            check=True,
        ),
    )


if __name__ == "__main__":
    main()
