#!/usr/bin/env python3
"""Writes tests/golden/<variant>/: tiny GPT-2 checkpoints and what they must answer.

An oracle: GPT-2's forward pass in float64, one sequence, no cache, written from the architecture's description
and sharing nothing with the C.  Each variant changes one thing that a configuration or a file can change.

    /usr/bin/python3 tests/golden/make_golden.py [variant ...]     needs numpy

A folder holds what a Hugging Face folder holds (config.json, model.safetensors), and

    logits.f32      float32, little-endian, [prompt length, V]: after each token of the prompt
    expected.json   prompt_ids, greedy_ids (until the context is full) and for each of these the margin: how far
                    the best logit was above the second.  Below 1e-3 an argmax proves nothing.
"""
import json, math, pathlib, sys
import numpy as np

HERE = pathlib.Path(__file__).parent

# ---- The model -----------------------------------------------------------------------------

erf = np.vectorize(math.erf)


def gelu_new(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATIONS = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


def norm(x, gain, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + epsilon) * gain + bias


def forward(c, w, ids):
    """Logits [T, V] of token ids [T]."""
    T, D, H = len(ids), c["n_embd"], c["n_head"]
    act, epsilon = ACTIVATIONS[c["activation_function"]], c["layer_norm_epsilon"]
    future = np.triu(np.ones((T, T), dtype=bool), 1)
    x = w["wte.weight"][ids] + w["wpe.weight"][:T]
    for n in range(c["n_layer"]):
        p = {k[len(f"h.{n}."):]: v for k, v in w.items() if k.startswith(f"h.{n}.")}
        h = norm(x, p["ln_1.weight"], p["ln_1.bias"], epsilon)
        qkv = h @ p["attn.c_attn.weight"] + p["attn.c_attn.bias"]
        q, k, v = (part.reshape(T, H, D // H).swapaxes(0, 1) for part in np.split(qkv, 3, axis=1))
        scores = q @ k.swapaxes(1, 2)
        if c["scale_attn_weights"]:
            scores = scores / math.sqrt(D // H)
        if c["scale_attn_by_inverse_layer_idx"]:
            scores = scores / (n + 1)
        scores = np.where(future, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        x = x + (weights @ v).swapaxes(0, 1).reshape(T, D) @ p["attn.c_proj.weight"] + p["attn.c_proj.bias"]
        h = norm(x, p["ln_2.weight"], p["ln_2.bias"], epsilon)
        x = x + act(h @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"]) @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"]
    x = norm(x, w["ln_f.weight"], w["ln_f.bias"], epsilon)
    return x @ (w["wte.weight"] if c["tie_word_embeddings"] else w["lm_head.weight"]).T


# ---- Checkpoints ---------------------------------------------------------------------------

CONFIG = {
    "model_type": "gpt2", "vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3,
    "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True, "bos_token_id": 60, "eos_token_id": 60,
}
DTYPES = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<f8"): "F64", np.dtype("u1"): "U8",
          np.dtype("?"): "BOOL", np.dtype("<u2"): "BF16"}


def make_weights(c, rows, spread):
    """Large enough that every non-linearity is far from linear; logits have a deviation of about 2.  `spread`
    is the size of what enters the residual stream: when it is small, a norm's epsilon matters."""
    rng = np.random.default_rng(20260)
    D, I = c["n_embd"], c["n_inner"] or 4 * c["n_embd"]
    w = {"wte.weight": rng.normal(0, 0.4, (rows, D)), "wpe.weight": rng.normal(0, 0.2, (c["n_positions"], D))}
    for n in range(c["n_layer"]):
        for ln in ("ln_1", "ln_2"):
            w[f"h.{n}.{ln}.weight"] = rng.normal(1, 0.1, D)
            w[f"h.{n}.{ln}.bias"] = rng.normal(0, 0.1, D)
        for name, shape in (("attn.c_attn", (D, 3 * D)), ("attn.c_proj", (D, D)), ("mlp.c_fc", (D, I)),
                            ("mlp.c_proj", (I, D))):
            w[f"h.{n}.{name}.weight"] = rng.normal(0, 1.2 / math.sqrt(shape[0]), shape)
            w[f"h.{n}.{name}.bias"] = rng.normal(0, 0.1, shape[1])
    w["ln_f.weight"], w["ln_f.bias"] = rng.normal(1, 0.1, D), rng.normal(0, 0.1, D)
    w["lm_head.weight"] = rng.normal(0, 0.4, (rows, D))
    for name in w:
        if name.startswith("w") or "c_proj" in name:
            w[name] *= spread
    return w


def bf16_of(x):
    """The upper half of a float32, rounded to nearest, ties to even."""
    bits = x.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def stored(w, dtype):
    """As the file holds it, and the same numbers in float64."""
    if dtype == "BF16":
        raw = {k: bf16_of(v) for k, v in w.items()}
        return raw, {k: (v.astype("<u4") << 16).view("<f4").astype("f8") for k, v in raw.items()}
    raw = {k: v.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]) for k, v in w.items()}
    return raw, {k: v.astype("f8") for k, v in raw.items()}


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.tobytes() for t in tensors.values()))


def variant(name, config=None, dtype="F32", prefix="", head=False, rows=None, masks=None, shards=1, spread=1.0):
    c = {**CONFIG, **(config or {})}
    raw, w = stored(make_weights(c, rows or c["vocab_size"], spread), dtype)
    if head and c["tie_word_embeddings"] and head != "first":
        w["wte.weight"] = w["lm_head.weight"]  # what is read last stays for both
    names = [n for n in raw if n != "lm_head.weight" and (n != "wte.weight" or head != "alone")]
    tensors = {prefix + n: raw[n] for n in names}
    P = c["n_positions"]
    for n in range(c["n_layer"] if masks else 0):
        tensors[f"{prefix}h.{n}.attn.bias"] = np.tril(np.ones((P, P))).reshape(1, 1, P, P).astype(masks)
        tensors[f"{prefix}h.{n}.attn.masked_bias"] = np.array(-1e4, dtype="<f4")
    if head:
        tensors = ({"lm_head.weight": raw["lm_head.weight"]} | tensors if head == "first"
                   else tensors | {"lm_head.weight": raw["lm_head.weight"]})

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
    else:
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        where = {t: files[i % shards] for i, t in enumerate(tensors)}
        for f in files:
            write_safetensors(folder / f, {t: v for t, v in tensors.items() if where[t] == f})
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")

    ids = [int(i) for i in np.random.default_rng(7).integers(0, c["vocab_size"], 12)]
    prompt, margins = list(ids), []
    logits = forward(c, w, prompt)
    logits.astype("<f4").tofile(folder / "logits.f32")
    while True:
        last = forward(c, w, ids)[-1]
        second, best = np.sort(last)[-2:]
        margins.append(round(float(best - second), 6))
        ids.append(int(last.argmax()))
        if len(ids) > P:
            break
    expected = {"prompt_ids": prompt, "greedy_ids": ids[len(prompt):], "margins": margins}
    lines = ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in expected.items())
    (folder / "expected.json").write_text("{\n" + lines + "\n}\n")
    same = ("activation_function", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx")
    default = forward({**c, **{k: CONFIG[k] for k in same}}, w, prompt)
    print(f"{name:18} logits' deviation {logits.std():.2f}, moved {abs(logits - default).max():.1e} by its settings, "
          f"smallest margin {min(margins)}")


VARIANTS = {
    "plain": {},
    "prefix": dict(prefix="transformer.", masks="<f4"),
    "other_prefix": dict(prefix="_orig_mod.", masks="?"),
    "untied": dict(config={"tie_word_embeddings": False}, head=True, prefix="transformer."),
    "head_for_both": dict(head=True, prefix="transformer."),
    "head_alone": dict(head="alone", prefix="transformer."),
    "head_in_first_shard": dict(head="first", prefix="transformer.", shards=2),
    "mish": dict(config={"activation_function": "mish"}),
    "inner": dict(config={"n_inner": 37}),
    "one_head": dict(config={"n_head": 1, "n_layer": 3, "n_embd": 20}),
    "gelu": dict(config={"activation_function": "gelu"}),
    "gelu_pytorch_tanh": dict(config={"activation_function": "gelu_pytorch_tanh"}),
    "relu": dict(config={"activation_function": "relu"}),
    "silu": dict(config={"activation_function": "silu"}),
    "tanh": dict(config={"activation_function": "tanh"}),
    "epsilon": dict(config={"layer_norm_epsilon": 1e-6, "tie_word_embeddings": False}, head=True, spread=0.05),
    "no_scale": dict(config={"scale_attn_weights": False}),
    "inverse_layer": dict(config={"scale_attn_by_inverse_layer_idx": True}),
    "padded": dict(config={"vocab_size": 57, "bos_token_id": 56, "eos_token_id": 56}, rows=61),
    "f16": dict(dtype="F16"),
    "bf16": dict(dtype="BF16", prefix="transformer."),
    "f64": dict(dtype="F64", masks="u1"),
    "sharded": dict(shards=3, prefix="transformer.", masks="u1"),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or VARIANTS:
        variant(name, **VARIANTS[name])
