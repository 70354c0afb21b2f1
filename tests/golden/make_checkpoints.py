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
    torch.save({"epoch": 3, "model": tensors}, os.path.join(OUT, "training.bin"))
    torch.save(tensors, os.path.join(OUT, "protocol4.bin"), pickle_protocol=4)
    expected = {name: {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "elements": raw(t).hex()}
                for name, t in tensors.items()}
    with open(os.path.join(OUT, "expected.json"), "w") as f:
        json.dump(expected, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
