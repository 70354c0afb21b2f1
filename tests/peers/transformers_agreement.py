#!/usr/bin/env python3
"""Hugging Face's own GPT-2 and tokenizers beside costinfer, on checkpoints that they wrote themselves.

    tests/peers/transformers_agreement.py [--record]

transformers saves a model in one way after another; costinfer and transformers then read that folder, and
their logits, greedy tokens and perplexities are compared.  Both compute in float32 from the stored values,
whatever type these have.  Tokenizers are saved and compared in the same way, and with tiktoken besides.

--record writes the figures to bench/results/transformers-agreement.md.  Without CINF_BUILD it takes the
programs in build/.  Everything is seeded: the same versions give the same checkpoints and texts.
"""

import contextlib
import functools
import json
import math
import os
import random
import re
import shutil
import string
import sys
import tempfile
import time
import unicodedata

from peers_support import SOURCE, enter_venv

SHARED = os.environ.get("CINF_SHARED", os.path.join(SOURCE, "..", "shared"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
from cli_support import MODELS, PROGRAM, expected, good, parsed  # noqa: E402

BOUND = 5e-4             # absolute, on logits
PERPLEXITY_BOUND = 1e-4  # relative
GREEDY = 32              # tokens generated from each checkpoint

# torch's threads sleep while they wait: on busy cores they otherwise spin for most of the time.
enter_venv(PROGRAM, OMP_WAIT_POLICY="passive")

import numpy  # noqa: E402
import tiktoken  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, GPT2TokenizerFast  # noqa: E402
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode  # noqa: E402

END = "<|endoftext|>"


# --- models ---------------------------------------------------------------------------------------------

def random_model(seed, stored=torch.float32, **settings):
    """A GPT-2 whose weights, biases and norms are all random, and large enough to matter in the logits."""
    settings = {"n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": 128, "vocab_size": 1000, **settings}
    last = settings["vocab_size"] - 1
    config = GPT2Config(bos_token_id=last, eos_token_id=last,
                        initializer_range=1.5 / settings["n_embd"] ** 0.5, **settings)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(stored)


SMALL_SHARDS = {"max_shard_size": "400KB"}
BIN = {"safe_serialization": False}
LEGACY = BIN | {"save_function": functools.partial(torch.save, _use_new_zipfile_serialization=False)}
GELU = {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"}
UNTIED = {"tie_word_embeddings": False}
DISTIL = {"n_layer": 6, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}

# What it varies, the model's settings, the type stored, the arguments of save_pretrained.
CHECKPOINTS = [
    ("plain", {}, torch.float32, {}),
    ("plain", {}, torch.float32, BIN),
    ("plain, torch's legacy format", {}, torch.float32, LEGACY),
    ("sharded", {}, torch.float32, SMALL_SHARDS),
    ("sharded", {}, torch.float32, BIN | SMALL_SHARDS),
    ("half precision", {}, torch.float16, {}),
    ("half precision", {}, torch.float16, BIN),
    ("half precision, sharded", {}, torch.float16, SMALL_SHARDS),
    ("bfloat16", {}, torch.bfloat16, {}),
    ("bfloat16", {}, torch.bfloat16, BIN),
    ("double precision", {}, torch.float64, {}),
    ("double precision", {}, torch.float64, BIN),
    ("untied head", UNTIED, torch.float32, {}),
    ("untied head", UNTIED, torch.float32, BIN),
    ("untied head, sharded, half precision", UNTIED, torch.float16, SMALL_SHARDS),
    ("inverse layer scale, gelu", GELU, torch.float32, {}),
    ("inverse layer scale, gelu, upcast", GELU | {"reorder_and_upcast_attn": True}, torch.float32, BIN),
    ("no attention scale, silu", {"scale_attn_weights": False, "activation_function": "silu"},
     torch.float32, {}),
    ("relu, n_inner 100, epsilon 1e-2", {"activation_function": "relu", "n_inner": 100,
                                         "layer_norm_epsilon": 1e-2}, torch.float32, {}),
    ("tanh, 3 heads, 192 wide, vocabulary 2048", {"activation_function": "tanh", "n_head": 3, "n_embd": 192,
                                                  "vocab_size": 2048}, torch.float32, {}),
    ("gelu_pytorch_tanh, 1 head, 64 wide, vocabulary 500",
     {"activation_function": "gelu_pytorch_tanh", "n_head": 1, "n_embd": 64, "vocab_size": 500},
     torch.float32, {}),
]


def list_of(ids):
    return ",".join(str(int(i)) for i in ids)


def save_tokenizer(folder, size):
    """Beside the model, as users have it: of `size` tokens, the bytes, pairs of them and <|endoftext|>."""
    alphabet = list(bytes_to_unicode().values())
    pairs = [(a, b) for a in alphabet for b in alphabet][:size - 257]
    vocabulary = {token: i for i, token in enumerate(alphabet + [a + b for a, b in pairs] + [END])}
    assert len(vocabulary) == size
    with tempfile.TemporaryDirectory() as files:
        names = os.path.join(files, "vocab.json"), os.path.join(files, "merges.txt")
        with open(names[0], "w", encoding="utf-8") as file:
            json.dump(vocabulary, file)
        with open(names[1], "w", encoding="utf-8") as file:
            file.write("".join(f"{a} {b}\n" for a, b in [("#version:", "0.2"), *pairs]))
        GPT2Tokenizer(*names).save_pretrained(folder)


@torch.no_grad()
def greedy_of(peer, prompt, n, n_known=None):
    """transformers' generate(): the tokens after the prompt, and how far ahead of the next best each was.
    Rows of the embeddings from n_known on are no tokens."""
    unknown = list(range(n_known or peer.config.vocab_size, peer.config.vocab_size))
    # do_sample=False warns of a temperature and top_k in generation_config.json, which mean nothing to it.
    out = peer.generate(prompt[None], attention_mask=torch.ones_like(prompt[None]), do_sample=False,
                        temperature=1.0, top_k=50, max_new_tokens=n, pad_token_id=0,
                        suppress_tokens=unknown or None, return_dict_in_generate=True, output_scores=True)
    best = [torch.topk(scores[0], 2).values for scores in out.scores]
    return out.sequences[0, len(prompt):].tolist(), [float(first - second) for first, second in best]


def logits_of(folder, ids, device):
    raw = good("logits", "--model", folder, "--tokens", list_of(ids), "--out", "-", "--device", device)
    return numpy.frombuffer(raw, "<f4").reshape(len(ids), -1).astype(numpy.float64)


@torch.no_grad()
def compare_model(folder, n_tokens, n_prompt, devices, with_eos=False, n_known=None):
    """(standard deviation of the logits, and on each device: weights in memory, greatest difference of a logit,
    greedy tokens equal, greedy tokens compared)."""
    peer = GPT2LMHeadModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    end = peer.config.vocab_size - 1
    ids = torch.randint(0, end, (n_tokens,), generator=torch.Generator().manual_seed(1))
    theirs = peer(ids[None]).logits[0].numpy()
    if not with_eos:
        peer.generation_config.eos_token_id = None
    wanted, margins = greedy_of(peer, ids[:n_prompt], GREEDY, n_known)
    # Where two tokens are as good as level the choice is nobody's, and what follows depends on it.
    n = next((i for i, margin in enumerate(margins) if margin < 2 * BOUND), len(wanted))

    seen = []
    for device in devices:
        # A single row takes another path than many.
        difference = max(numpy.abs(logits_of(folder, ids, device) - theirs).max(),
                         numpy.abs(logits_of(folder, ids[:1], device) - theirs[0]).max())
        ran = parsed("run", "--model", folder, "--prompt-tokens", list_of(ids[:n_prompt]), "--max-tokens",
                     str(GREEDY), "--device", device, "--json", *([] if with_eos else ["--ignore-eos"]))
        same = [a == b for a, b in zip(wanted[:n], ran["ids"])] + [False]
        seen.append((ran["weights"], float(difference), same.index(False), n))
    return float(theirs.std()), seen


def files_of(folder):
    names = sorted(name for name in os.listdir(folder) if name.endswith((".safetensors", ".bin")))
    if len(names) == 1:
        return names[0]
    kind = names[0].rsplit(".", 1)[1]
    assert os.path.exists(os.path.join(folder, ("model" if kind == "safetensors" else "pytorch_model")
                                       + f".{kind}.index.json"))
    return f"{len(names)} {kind} files and an index"


class Table:
    """Rows for a person, printed as they come; Markdown at the end."""

    def __init__(self, *head):
        self.head, self.rows = head, []

    def add(self, *row):
        self.rows.append([str(cell) for cell in row])
        print("  " + " | ".join(self.rows[-1]), flush=True)

    def markdown(self):
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def models(temporary, faults):
    named = re.findall(r"^[a-z-]+", good("devices").decode(), re.M)
    devices = ["auto", *(["cpu-blas"] if "cpu-blas" in named else [])]
    table = Table("checkpoint", "stored as", "files", "tokens", "std of the logits",
                  *(f"{device}: {figure}" for device in devices
                    for figure in ("weights", "difference", "greedy tokens equal")))

    def row(name, stored, folder, n_tokens, n_prompt, **more):
        spread, seen = compare_model(folder, n_tokens, n_prompt, devices, **more)
        cells = [cell for weights, difference, equal, n in seen
                 for cell in (weights, f"{difference:.1e}", f"{equal} of {n}")]
        table.add(name, stored, files_of(folder), n_tokens, f"{spread:.2f}", *cells)
        for device, (_, difference, equal, n) in zip(devices, seen):
            # Level tokens may end the comparison early, but not make it empty.
            if not difference <= BOUND or equal != n or n < 8:
                faults.append(f"{name}, {stored}, {files_of(folder)} on {device}: difference {difference:.2e}, "
                              f"greedy {equal} of {n}")

    @contextlib.contextmanager
    def saved(model, arguments, n_known=None):
        folder = os.path.join(temporary, "checkpoint")
        model.save_pretrained(folder, **arguments)
        save_tokenizer(folder, n_known or model.config.vocab_size)
        yield folder
        shutil.rmtree(folder)

    for number, (name, settings, stored, arguments) in enumerate(CHECKPOINTS):
        model = random_model(number, stored, **settings)
        with saved(model, arguments) as folder:
            assert ("shard" in name) == ("index" in files_of(folder)), files_of(folder)
            row(name, str(stored)[6:], folder, 128, 16)
    # Without a head the names have no prefix.
    with saved(random_model(100).transformer, {}) as folder:
        row("GPT2Model, no head", "float32", folder, 128, 16)
    with saved(random_model(101).transformer, BIN) as folder:
        row("GPT2Model, no head", "float32", folder, 128, 16)
    resized = random_model(102)
    resized.resize_token_embeddings(1010, pad_to_multiple_of=64)
    with saved(resized, {}, n_known=1000) as folder:
        assert resized.config.vocab_size == 1024
        row("embeddings resized from 1000 to 1024", "float32", folder, 128, 16, n_known=1000)
    for path in MODELS:
        row(os.path.basename(path), "float16", path, 200, 16, with_eos=True)
    big = random_model(103, **DISTIL)
    for arguments in ({}, BIN):
        with saved(big, arguments) as folder:
            row("distilgpt2's shape, 82 M parameters", "float32", folder, 256, 32)
    return table


def texts_of_demo_models(faults):
    """From a prompt's text to the generated text, tokenizer and all."""
    for path in MODELS:
        peer = GPT2LMHeadModel.from_pretrained(path, torch_dtype=torch.float32).eval()
        tokenizer = GPT2Tokenizer.from_pretrained(path)
        for prompt in ("Once upon a time", "The little dog", "\"Where is my ball?\" asked Tom."):
            ids = torch.tensor(tokenizer.encode(prompt))
            wanted, margins = greedy_of(peer, ids, GREEDY)
            ran = parsed("run", "--model", path, "--prompt", prompt, "--max-tokens", str(GREEDY), "--json")
            text = tokenizer.decode(wanted, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if min(margins) > 2 * BOUND and ran["text"] != text:
                faults.append(f"{os.path.basename(path)}: {ran['text']!r}, not {text!r}")


@torch.no_grad()
def perplexity_of(peer, ids, window, stride):
    """exp of transformers' own loss, each token scored in the first window that holds it."""
    nats = scored = done = 0
    for first in range(0, len(ids), stride):
        part = ids[first:first + window]
        if len(part) < 2 or done == len(ids):
            break
        labels = part.clone()
        labels[:done - first] = -100  # already scored; the first label of a window is never used
        n = int((labels[1:] != -100).sum())
        nats += float(peer(part[None], labels=labels[None]).loss) * n
        scored += n
        done = first + len(part)
    return math.exp(nats / scored), scored


def perplexities(temporary, faults):
    table = Table("model", "text", "window", "stride", "tokens scored", "transformers", "costinfer",
                  "relative difference")
    cases = [case for path in MODELS for case in expected(path)["cases"]]
    stories = "\n\n".join(case["prompt"] + case["text"] for case in cases)
    with open(os.path.join(SOURCE, "LICENSE"), encoding="utf-8") as file:
        licence = file.read()
    for path in MODELS:
        peer = GPT2LMHeadModel.from_pretrained(path, torch_dtype=torch.float32).eval()
        tokenizer = GPT2Tokenizer.from_pretrained(path)
        context = peer.config.n_positions
        for title, text in (("stories", stories), ("LICENSE", licence)):
            file = os.path.join(temporary, "text.txt")
            with open(file, "w", encoding="utf-8") as out:
                out.write(text)
            ids = torch.tensor(tokenizer.encode(text))
            for window, stride, flags in ((context, context, ()),
                                          (100, 30, ("--window", "100", "--stride", "30"))):
                theirs, scored = perplexity_of(peer, ids, window, stride)
                ours = parsed("perplexity", "--model", path, file, *flags, "--json")
                relative = abs(ours["perplexity"] / theirs - 1)
                table.add(os.path.basename(path), title, window, stride, scored, f"{theirs:.6g}",
                          f"{ours['perplexity']:.6g}", f"{relative:.1e}")
                if not relative <= PERPLEXITY_BOUND or ours["scored"] != scored:
                    faults.append(f"perplexity of {os.path.basename(path)} on {title}: {ours}, not {theirs} "
                                  f"of {scored}")
    return table


# --- tokenizers -----------------------------------------------------------------------------------------

PIECES = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
BY_HAND = [
    "", " ", "  ", "a", "Hello world", "Once upon a time, there was a bear.", "   leading", "trailing   ",
    "I'll they've we're he'd I'm it's don't", "I'LL THEY'VE 'S'T", "3.14159 and 1,000,000", "tab\t\tend",
    "x = f(y);\n\tif (x) {\n\t\treturn 0;\n\t}\n", "a\r\nb\r\n\r\n", "a \u00a0b", "naïve café Ünïcödé",
    "e\u0301e\u0301", "日本語のテキスト", "Привет, мир", "नमस्ते दुनिया", "สวัสดี", "مرحبا بالعالم", "½ Ⅷ ² ٣",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd",
    "\u0085 \u2028\u2029 \ufeff \u200b", "\x00\x01\x7f", "\U00010400\U0001d49c\U0002000b\U0010ffff",
    "a" * 1000, " " * 300 + "x", "ab" * 400, "!?" * 300, f"hello {END}", f"{END}{END}", f" {END} x",
    "<|endoftext", "<|endoftext|", f"<|{END}|>",
]


def random_texts(n, seed):
    """Texts of every kind of character, but of no code point that this Unicode has not: its class, and so the
    pieces, would depend on the version that each implementation has tables of."""
    rng = random.Random(seed)
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    common = [c for c in known if c < "\u3000"]
    marks = [c for c in known if unicodedata.category(c).startswith("M")]
    spaces = [c for c in known if c.isspace()]
    numbers = [c for c in known if unicodedata.category(c).startswith("N")]
    pools = [(string.ascii_letters, 6), (string.digits, 2), (string.punctuation, 3), (" ", 5),
             (["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S"], 2), (["\n", "\t", "\r\n", "  ", "   "], 2),
             (spaces, 2), (numbers, 1), (marks, 1), (common, 2), (known, 3)]
    weights = [weight for _, weight in pools]
    return ["".join(rng.choice(rng.choices(pools, weights)[0][0]) for _ in range(rng.randrange(1, 60)))
            for _ in range(n)]


def case_texts():
    path = os.path.join(SHARED, "data", "tokenizer-cases", "cases.jsonl")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    return [case["text"] for case in cases if case["kind"] == "encode"]


def costinfer_ids(folder, texts, end):
    """Many texts in one process: <|endoftext|> as a token parts them, and each side is a text of its own."""
    ids = parsed("tokenize", "--model", folder, "--special", "--json", given=END.join(texts).encode())
    parts, part = [], []
    for i in ids + [end]:
        if i == end:
            parts.append(part)
            part = []
        else:
            part.append(i)
    return parts


def tiktoken_of(folder):
    """tiktoken's encoder on this vocabulary, if its ids are ranks as tiktoken takes them."""
    with open(os.path.join(folder, "vocab.json"), encoding="utf-8") as file:
        vocabulary = json.load(file)
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    special = {END: vocabulary.pop(END)}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in vocabulary.items()}
    return tiktoken.Encoding(os.path.basename(folder), pat_str=PIECES, mergeable_ranks=ranks,
                             special_tokens=special)


def compare_tokenizers(name, vocabulary, texts, temporary, table, faults):
    """`vocabulary` is a folder with vocab.json and merges.txt; the peers save it anew, each in its way."""
    folders = {kind: os.path.join(temporary, name, kind) for kind in ("slow", "fast", "json")}
    slow = GPT2Tokenizer(os.path.join(vocabulary, "vocab.json"), os.path.join(vocabulary, "merges.txt"))
    slow.save_pretrained(folders["slow"])
    fast = GPT2TokenizerFast.from_pretrained(folders["slow"])
    fast.save_pretrained(folders["fast"])
    fast.save_pretrained(folders["json"], legacy_format=False)
    third = tiktoken_of(vocabulary)
    end = slow.eos_token_id
    texts = [text for text in texts if END not in text] + [text for text in texts if END in text]
    n_plain = sum(END not in text for text in texts)
    rng = random.Random(7)
    decoded = [rng.randrange(end + 1) for _ in range(3000)]

    # Each gives the ids of all texts with <|endoftext|> as plain characters, of the last ones with it as a
    # token, and the text of `decoded`.
    def of_transformers(peer):
        return ([peer.encode(text, split_special_tokens=True) for text in texts]
                + [peer.encode(text) for text in texts[n_plain:]],
                peer.decode(decoded, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False))

    def of_tiktoken(peer):
        return ([peer.encode_ordinary(text) for text in texts]
                + [peer.encode(text, allowed_special="all") for text in texts[n_plain:]],
                peer.decode(decoded))

    def of_costinfer(folder):
        def one(text, *flags):
            return parsed("tokenize", "--model", folder, *flags, "--json", given=text.encode())

        ids = costinfer_ids(folder, texts[:n_plain], end)
        # The shortcut of costinfer_ids() is none.
        for i in rng.sample(range(n_plain), 10):
            assert one(texts[i]) == ids[i], texts[i]
        return (ids + [one(text) for text in texts[n_plain:]]
                + [one(text, "--special") for text in texts[n_plain:]],
                one(json.dumps(decoded), "--detokenize"))

    peers = {"GPT2Tokenizer": of_transformers(slow), "GPT2TokenizerFast": of_transformers(fast),
             "tiktoken": of_tiktoken(third)}
    for kind, folder in folders.items():
        files = sorted({"vocab.json", "merges.txt", "tokenizer.json"} & set(os.listdir(folder)))
        assert ("tokenizer.json" in files, "vocab.json" in files) == (kind != "slow", kind != "json"), files
        ids, text = of_costinfer(folder)
        for peer, (wanted, wanted_text) in peers.items():
            assert len(ids) == len(wanted)
            different = [t for t, a, b in zip(texts + texts[n_plain:], ids, wanted) if a != b]
            table.add(name, ", ".join(files), peer, len(ids), sum(map(len, ids)), len(different),
                      "equal" if text == wanted_text else "DIFFERENT")
            faults += [f"{name}, {kind}: {peer} encodes {t!r} otherwise" for t in different[:5]]
            if text != wanted_text:
                faults.append(f"{name}, {kind}: {peer} decodes otherwise, from character "
                              f"{len(os.path.commonprefix([text, wanted_text]))} on")


def tokens(temporary, faults):
    table = Table("vocabulary", "saved as", "compared with", "texts", "tokens", "texts with other tokens",
                  "3000 random ids decoded")
    texts = BY_HAND + random_texts(400, 11) + case_texts()
    compare_tokenizers("stories-small", MODELS[0], texts, temporary, table, faults)
    real = os.path.join(SHARED, "data", "gpt2-tokenizer")
    if os.path.exists(os.path.join(real, "vocab.json")):
        compare_tokenizers("gpt2", real, texts, temporary, table, faults)
    else:
        print("  not compared: gpt2's own vocabulary, which is not here")
    return table


# --- the whole ------------------------------------------------------------------------------------------

def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*: (.*)$", file.read(), re.M)
    return found.group(1) if found else os.uname().machine


def versions():
    table = Table("what", "version")
    device = re.search(r"^auto\s+(.*)$", good("devices").decode(), re.M).group(1)
    table.add("processor", processor())
    table.add("costinfer's device", device)
    for module in (transformers, tokenizers, tiktoken, torch, numpy):
        table.add(module.__name__, module.__version__)
    table.add("Python", sys.version.split()[0])
    return table


def record(parts, seconds):
    path = os.path.join(SOURCE, "bench", "results", "transformers-agreement.md")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"""# Agreement with transformers

Run in {time.strftime("%Y-%m")}, in {seconds:.0f} seconds, by

    make && tests/peers/transformers_agreement.py --record

transformers wrote every checkpoint itself with `save_pretrained` (the demo models excepted: they are the
files of `examples/models/`), and both sides read that folder. transformers computes in float32, whatever type
is stored. The test fails when a logit differs by more than {BOUND}, when one of {GREEDY} greedy tokens
differs, when a perplexity differs by more than {PERPLEXITY_BOUND} of itself, or when a text gets other
tokens. Differences are the greatest over all logits; `auto` is the device named under Versions. Greedy tokens
are compared up to the first whose logit is less than {2 * BOUND} ahead of the next best. `make test-all` runs it.
""")
        for title, table in parts:
            out.write(f"\n## {title}\n\n{table.markdown()}")
    print(f"-> {os.path.relpath(path)}")


def main():
    started = time.monotonic()
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    faults, parts = [], [("Versions", versions())]
    with tempfile.TemporaryDirectory(prefix="cinf-peers-") as temporary:
        for title, make in (("Logits and greedy tokens", models), ("Perplexity", perplexities),
                            ("Tokens", tokens)):
            print(f"{title} ({time.monotonic() - started:.0f} s)", flush=True)
            parts.append((title, make(temporary, faults)))
        texts_of_demo_models(faults)
    seconds = time.monotonic() - started
    print(f"{len(faults)} disagreements, {seconds:.0f} s")
    for fault in faults:
        print("  " + fault)
    if not faults and "--record" in sys.argv[1:]:
        record(parts, seconds)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
