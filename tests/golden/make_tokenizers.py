#!/usr/bin/env python3
"""Writes tests/golden/tokenizers.jsonl: tokenizer.json files with every setting that is obeyed, and what Hugging
Face's tokenizers makes of texts with them.

    build/peers-venv/bin/python tests/golden/make_tokenizers.py       needs tokenizers (scripts/peers_venv.sh)

A line is one tokenizer: `tokenizer`, a tokenizer.json whose vocabulary and merges are left out (they are those of
make_added_tokens.py, which tests/tiny_tokenizer.h has too), and `texts`, each with its `ids` where special tokens
are ordinary text, `ids_special` where they are tokens, and `ids_bare` without what the post-processor adds, if
these make a difference.  Settings and texts are random, but made of what is easy to get wrong.
"""
import json
import os
import random

from tokenizers import Tokenizer

import make_added_tokens as added_tokens

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZERS, TEXTS = 150, 8

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
          r"|\s+(?!\S)|\s")
PATTERNS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", LLAMA3, O200K,
    LLAMA3.replace(r"{1,3}", ""), CL100K.replace("{1,3}+", "{1,3}"), r"\d", r"\d+", r"[0-9]", r"[0-9][0-9][0-9]", r"\p{N}{1,3}",
    r" ?[^(\s|[.,!?…。，、।۔،])]+", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\s+$", r"\p{N}+",
    r"\s+", r" {2,}", r"[^\s]+|\s+", r"\S+", r"\w+", r"\W", r"(?<!a)b", r"^\s+", r"a*?b", r"(?:ab)+",
    r"(a|aa)+b?", r"(?:l{2}|x){1,3}", r"\bthe\b", r"\Athe|in\z", r"[a-cx-z]", r"[^\x00-\x{7F}]",
    r"\p{Lu}", r"\P{L}", r"\p{^N}", r"[\p{S}\p{Zs}]", r".", r".\n", r"(?i)THE", r"(?>a+)a", r"(?:a|b)*+b",
    r"\p{Punctuation}", r"\p{Uppercase Letter}", r"\u4e2d", r"(?:a(?=a)|b)+?", r"\p{M}",
]
MAYBE_EMPTY = [r"$", r"x?", r"(?<=\d)(?=\p{L})", r"^", r"\s*", r"\b"]
STRINGS = [" ", "  ", "a", "aa", "the", ".", "1", "é", "e\u0301", "中", "\n", "(", "'", "+", "[a]", "ll"]
CONTENTS = ["", " ", "_", "a", "é", "e\u0301", "▁", "中 ", "12", "\n"]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
WORDS = [
    "the", " the", "The", " THE", "in", " hello", "aaaa", "ab", "abab", "b", "'ll", "'LL", "'ſ", "'S", "don't", " 12345", "7", "²", "½",
    "Ⅷ", "٣", "１２", "é", "e\u0301", "É", "E\u0301\u0323", "ﬁ", "ﬀ", "Ａ", "ｶﾞ", "각", "각", "ꯁ", "Å", "Å", "İ", "ẞ", "Σ", "ΣΑΣ", "ǅ",
    "中文", "。", "，", "…", "—", "!", "?!", "...", "(x)", "[a]", "+", "$", "€", "^", "`", "~", "_", "x_y", "\u0301", "\u0327\u0301", "ा",
    "\u200d", "\ufeff", "😀", "👩\u200d👩", "\u1e9b\u0323", "ﷺ", "ǆ", "\u0344", "\u0958", "\U0001d15e", "x", "z",
]


def content_pattern(rng, patterns):
    return {"Regex": rng.choice(patterns)} if rng.random() < 0.6 else {"String": rng.choice(STRINGS)}


def normalizer(rng, depth=0):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Prepend", "Replace", "Sequence", "Replace"])
    if kind == "Strip":
        return {"type": kind, "strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}
    if kind == "Prepend":
        return {"type": kind, "prepend": rng.choice([c for c in CONTENTS if c])}
    if kind == "Replace":
        return {"type": kind, "pattern": content_pattern(rng, PATTERNS), "content": rng.choice(CONTENTS)}
    if kind == "Sequence":
        return {"type": kind, "normalizers": [normalizer(rng, depth + 1) for _ in range(rng.randint(0, 3 - depth))]}
    return {"type": kind}


def byte_level(rng):
    return {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.4, "trim_offsets": rng.random() < 0.5,
            "use_regex": rng.random() < 0.6}


def pre_tokenizer(rng):
    def other():
        kind = rng.choice(["Split", "Split", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit",
                           "CharDelimiterSplit", "BertPreTokenizer"])
        if kind == "Split":
            return {"type": kind, "pattern": content_pattern(rng, PATTERNS + MAYBE_EMPTY), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.3}
        if kind == "Digits":
            return {"type": kind, "individual_digits": rng.random() < 0.5}
        if kind == "Punctuation":
            return {"type": kind, "behavior": rng.choice(BEHAVIORS)}
        if kind == "CharDelimiterSplit":
            return {"type": kind, "delimiter": rng.choice(["a", " ", "中", "."])}
        return {"type": kind}

    if rng.random() < 0.3:
        return byte_level(rng)
    stages = [other() for _ in range(rng.randint(0, 3))]
    stages.insert(rng.choice([len(stages), len(stages), rng.randint(0, len(stages))]), byte_level(rng))
    if rng.random() < 0.2:
        stages = [{"type": "Sequence", "pretokenizers": stages}]
    return {"type": "Sequence", "pretokenizers": stages}


def post_processor(rng, vocabulary):
    tokens = rng.sample(sorted(vocabulary), 3)
    kind = rng.choice(["ByteLevel", "TemplateProcessing", "TemplateProcessing", "RobertaProcessing", "BertProcessing", "Sequence"])
    if kind == "ByteLevel":
        return {"type": kind, "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    if kind == "Sequence":
        # tokenizers takes what a first one has added for texts of their own.
        byte_level_too = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        return {"type": kind, "processors": [byte_level_too, post_processor(rng, vocabulary)][:rng.randint(1, 2)]}
    if kind == "TemplateProcessing":
        text = {"Sequence": {"id": "A", "type_id": 0}}
        single = [{"SpecialToken": {"id": rng.choice(tokens), "type_id": 0}} for _ in range(rng.randint(0, 3))]
        single.insert(rng.randint(0, len(single)), text)
        return {"type": kind, "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in tokens}}
    cls, sep = ([t, vocabulary[t]] for t in tokens[:2])
    return {"type": kind, "sep": sep, "cls": cls} | (
        {"trim_offsets": True, "add_prefix_space": True} if kind == "RobertaProcessing" else {})


def make_settings(rng):
    """A tokenizer.json, with its vocabulary and merges."""
    vocabulary = added_tokens.vocabulary()
    added = []
    for content in rng.sample(added_tokens.TOKENS, rng.choice([0, 0, 1, 3])):
        n_new = sum(token["content"] not in vocabulary for token in added)
        added.append({"id": vocabulary.get(content, len(vocabulary) + n_new), "content": content,
                      "single_word": rng.random() < 0.2, "lstrip": rng.random() < 0.2, "rstrip": rng.random() < 0.2,
                      "normalized": rng.random() < 0.6, "special": rng.random() < 0.4})
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": rng.choice([None, ""]),
             "end_of_word_suffix": rng.choice([None, ""]), "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": rng.random() < 0.3, "vocab": vocabulary, "merges": added_tokens.MERGES}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": normalizer(rng) if rng.random() < 0.6 else None, "pre_tokenizer": pre_tokenizer(rng),
            "post_processor": post_processor(rng, vocabulary) if rng.random() < 0.5 else None,
            "decoder": rng.choice([None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]),
            "model": model}


def make_text(rng, contents):
    parts = []
    for _ in range(rng.randint(0, 10)):
        kind = rng.random()
        if kind < 0.6:
            parts.append(rng.choice(WORDS))
        elif kind < 0.85 or not contents:
            parts.append(rng.choice(added_tokens.SPACES))
        else:
            parts.append(rng.choice(contents))
    return "".join(parts)


def load(settings):
    """The tokenizer, or None where tokenizers itself cannot make it, or makes an added token of nothing."""
    try:
        tokenizer = Tokenizer.from_str(json.dumps(settings))
        contents = [token["content"] for token in settings["added_tokens"] if token["normalized"]]
        if tokenizer.normalizer is not None and any(not tokenizer.normalizer.normalize_str(content) for content in contents):
            return None
        return tokenizer
    except BaseException as error:  # a panic is no Exception
        if type(error).__name__ not in ("Exception", "PanicException"):
            raise
        return None


def ids_of(tokenizer, text):
    """Special tokens as text, as tokens, and without what is added; None where tokenizers itself fails."""
    ways = []
    for ordinary, bare in ((True, False), (False, False), (True, True)):
        tokenizer.encode_special_tokens = ordinary
        try:
            ways.append(tokenizer.encode(text, add_special_tokens=not bare).ids)
        except BaseException as error:
            if type(error).__name__ not in ("Exception", "PanicException"):
                raise
            return None
    return ways


def cases(seed, n_texts):
    """A tokenizer.json and texts with the ids of each; None where tokenizers itself cannot make one."""
    rng = random.Random(seed)
    settings = make_settings(rng)
    tokenizer = load(settings)
    if tokenizer is None:
        return None
    contents = [token["content"] for token in settings["added_tokens"]]
    texts = []
    for _ in range(n_texts):
        text = make_text(rng, contents)
        ways = ids_of(tokenizer, text)
        if ways:
            texts.append((text, *ways))
    return settings, texts


def main():
    with open(os.path.join(HERE, "tokenizers.jsonl"), "w", encoding="utf-8") as file:
        n = seed = 0
        while n < TOKENIZERS:
            made = cases(seed, TEXTS)
            seed += 1
            if not made or not made[1]:
                continue
            n += 1
            settings, texts = made
            del settings["model"]["vocab"], settings["model"]["merges"]
            records = [{"text": text, "ids": ids} | ({} if special == ids else {"ids_special": special})
                       | ({} if bare == ids else {"ids_bare": bare}) for text, ids, special, bare in texts]
            file.write(json.dumps({"tokenizer": settings, "texts": records}, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
