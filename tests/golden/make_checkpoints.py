#!/usr/bin/python3
"""Writes tests/golden/checkpoints: small files in every format that libcostinfer reads, and expected.json.

Needs torch and numpy (Debian: python3-torch python3-numpy; written with torch 1.13.1).  The .bin files are
torch.save()'s own; the safetensors ones are written here, after the format's description.  expected.json has
for each tensor its dtype, shape and elements (row-major, little-endian, as hexadecimal), taken from torch, so
that the tests compare bytes and need neither.  Legacy files name storages by memory address: running this
again changes those bytes, and nothing else.
"""
import collections
import json
import os
import struct

import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints")
DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.uint8: "U8", torch.bool: "BOOL", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16",
    torch.int8: "I8",
}


def state():
    torch.manual_seed(7)
    base = torch.randn(4, 5, 6)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    tensors = collections.OrderedDict()
    tensors["wte.weight"] = weight
    tensors["lm_head.weight"] = weight
    tensors["f32"] = torch.randn(2, 3)
    tensors["f16"] = torch.randn(5).half()
    tensors["bf16"] = torch.randn(5).bfloat16()
    tensors["f64"] = torch.randn(2, 2, dtype=torch.float64)
    tensors["scalar"] = torch.tensor(-1e4)
    tensors["zero_sized"] = torch.zeros(2, 0, 3)
    tensors["transposed"] = torch.randn(7, 5).t()
    tensors["transposed_f16"] = torch.randn(3, 2).half().t()
    tensors["permuted"] = base.permute(2, 0, 1)
    tensors["slice"] = base[1:3, ::2, 1:5]
    tensors["column"] = base[:, 2, 3]
    tensors["row"] = base[3, 4]
    tensors["attn.bias"] = torch.tril(torch.ones(3, 3, dtype=torch.uint8)).view(1, 1, 3, 3)
    tensors["mask"] = torch.tensor([True, False, True])
    tensors["positions"] = torch.arange(3)
    tensors["i32"] = torch.arange(3, dtype=torch.int32)
    tensors["i16"] = torch.arange(3, dtype=torch.int16)
    tensors["i8"] = torch.arange(3, dtype=torch.int8)
    tensors._metadata = collections.OrderedDict([("", {"version": 1}), ("wte", {"version": 1})])
    return tensors


def raw(tensor):
    flat = tensor.detach().contiguous().reshape(-1)
    if tensor.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
    return flat.numpy().tobytes()


def write_safetensors(path, tensors, odd_header=False, metadata=True):
    header, blobs, at = {}, [], 0
    if metadata:
        header["__metadata__"] = {"format": "pt"}
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        data = raw(tensor)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if odd_header:
        text += b" "
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_shards(folder, stem, tail, index, tensors, write):
    os.makedirs(folder, exist_ok=True)
    names, weight_map = list(tensors), {}
    parts = [names[0::3], names[1::3], names[2::3]]
    for i, part in enumerate(parts):
        file = f"{stem}-{i + 1:05}-of-{len(parts):05}{tail}"
        write(os.path.join(folder, file), collections.OrderedDict((name, tensors[name]) for name in part))
        weight_map.update({name: file for name in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    with open(os.path.join(folder, index), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=1)
        f.write("\n")


def write_training(tensors):
    """What programs save while they train: a state dict under a key, and much beside it."""
    def save(name, value, **options):
        torch.save(value, os.path.join(OUT, name), **options)

    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}},
                 "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "amsgrad": False, "foreach": None, "params": [0]}]}
    save("training.bin", {"epoch": 3, "model": tensors})
    save("training-legacy.bin", {"epoch": 3, "model": tensors}, _use_new_zipfile_serialization=False)
    save("lightning.bin", {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "2.4.0", "state_dict": tensors, "loops": {},
                           "callbacks": {}, "optimizer_states": [optimizer], "lr_schedulers": [], "hyper_parameters": {"lr": 1e-3}})
    save("deepspeed.bin", {"module": tensors, "buffer_names": [], "optimizer": None, "skipped_steps": 0, "dp_world_size": 1,
                           "ds_config": {"zero_optimization": {"stage": 0}}})
    nanogpt = {"_orig_mod.transformer.wte.weight": torch.ones(5, 4), "_orig_mod.transformer.h.0.attn.c_attn.weight": torch.ones(12, 4)}
    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 8, "bias": False, "vocab_size": 5, "dropout": 0.0}
    save("nanogpt.bin", {"model": nanogpt, "optimizer": optimizer, "model_args": arguments, "iter_num": 9,
                         "best_val_loss": torch.tensor(1.5), "config": {"device": "cpu"}})
    save("nanogpt-bare.bin", {"model": nanogpt, "iter_num": 9})
    save("no-state.bin", {"epoch": 3, "model": {"weights": tensors}})


def main():
    os.makedirs(OUT, exist_ok=True)
    tensors = state()
    torch.save(tensors, os.path.join(OUT, "zip.bin"))
    torch.save(tensors, os.path.join(OUT, "legacy.bin"), _use_new_zipfile_serialization=False)
    write_safetensors(os.path.join(OUT, "aligned.safetensors"), tensors)
    write_safetensors(os.path.join(OUT, "odd.safetensors"), tensors, odd_header=True, metadata=False)
    write_shards(os.path.join(OUT, "sharded-safetensors"), "model", ".safetensors",
                 "model.safetensors.index.json", tensors, write_safetensors)
    write_shards(os.path.join(OUT, "sharded-bin"), "pytorch_model", ".bin",
                 "pytorch_model.bin.index.json", tensors, lambda path, part: torch.save(part, path))
    write_training(tensors)
    torch.save(tensors, os.path.join(OUT, "protocol4.bin"), pickle_protocol=4)
    expected = {name: {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "elements": raw(t).hex()}
                for name, t in tensors.items()}
    with open(os.path.join(OUT, "expected.json"), "w") as f:
        json.dump(expected, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
