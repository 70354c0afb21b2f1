#!/usr/bin/env python3
"""Every setting of tokenizer.json and tokenizer_config.json as Hugging Face's tokenizers and transformers obey it,
beside the library, on more cases than the committed ones.

    tests/peers/tokenizers_agreement.py [TOKENIZERS [FIRST_SEED]]

Random tokenizer.json files and texts (tests/golden/make_tokenizers.py makes both); every character of Unicode through
every normalizer and every class of a pattern; and folders as transformers reads them, with tokenizer_config.json.
Without CINF_BUILD it takes the library in build/.
"""
import itertools
import json
import os
import sys
import tempfile
import unicodedata

from peers_support import SOURCE, enter_venv
from tokenizer_library import LIBRARY, Ours, compare, write

enter_venv(LIBRARY)

sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
import tokenizers  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

import make_added_tokens  # noqa: E402
import make_tokenizers as golden  # noqa: E402

TEXTS = 12
# How many characters are of another kind in Unicode 14 than in the older tables that tokenizers 0.20.3 has for these.
OTHER_UNICODE = {"NFC": 51, "NFD": 52, "NFKC": 123, "NFKD": 124, "StripAccents": 315, "Punctuation": 106, "BertPreTokenizer": 106}
CLASSES = [r"\p{%s}" % name for name in
           "L LC Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Co".split()]
CLASSES += [r"\s", r"\d", r"\w", ".", r"(?i:s)", r"(?i:K)", r"(?i:[a-z])", r"[^\x00-\x{7F}]"]


def random_tokenizers(count, first, folder, faults):
    n = n_refused = 0
    for seed in range(first, first + count):
        made = golden.cases(seed, TEXTS)
        if not made:
            n_refused += 1
            continue
        settings, texts = made
        write(folder, "tokenizer.json", settings)
        try:
            with Ours(folder) as ours:
                compare(f"seed {seed}", ours, texts, faults)
        except RuntimeError as error:
            faults.append(f"seed {seed}: {error}")
        n += len(texts)
    print(f"{count} tokenizers ({n_refused} that tokenizers cannot make), {n} texts, each in three ways")


def settings_with(**changes):
    vocabulary = make_added_tokens.vocabulary()
    settings = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                "post_processor": None, "decoder": None,
                "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    return settings | changes


def characters():
    """What is assigned in this Python's Unicode; the newer ones of other tools are not compared."""
    for code in range(1, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) not in ("Cn", "Cs") and code < 0xF0000:
            yield chr(code)


def compare_characters(what, folder, settings, text_of, faults):
    peer = Tokenizer.from_str(json.dumps(settings))
    write(folder, "tokenizer.json", settings)
    wrong = []
    with Ours(folder) as ours:
        block = []

        def flush():
            for c in block:
                if peer.encode(text_of(c)).ids != ours.encode(text_of(c)):
                    wrong.append(c)

        for c in characters():
            block.append(c)
            if len(block) == 256:
                joined = "\n".join(text_of(c) for c in block)
                if peer.encode(joined).ids != ours.encode(joined):
                    flush()
                block.clear()
        flush()
    if len(wrong) != OTHER_UNICODE.get(what, 0):
        faults.append(f"{what}: {len(wrong)} characters: " + " ".join(f"U+{ord(c):04X}" for c in wrong[:12]))


def every_character(folder, faults):
    for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"):
        compare_characters(kind, folder, settings_with(normalizer={"type": kind}), lambda c: f"a{c}e\u0323{c}\u0301{c}\u1100\u1161\u11a8",
                           faults)
    strip = {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True}]}
    compare_characters("Strip", folder, settings_with(normalizer=strip), lambda c: f"{c}a{c}", faults)
    for expression in CLASSES:
        replace = {"type": "Replace", "pattern": {"Regex": expression}, "content": "_"}
        compare_characters(expression, folder, settings_with(normalizer=replace), lambda c: f"-{c}-", faults)
    for kind in ({"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Removed"}, {"type": "Whitespace"},
                 {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}):
        stages = [kind, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}]
        compare_characters(kind["type"], folder, settings_with(pre_tokenizer={"type": "Sequence", "pretokenizers": stages}),
                           lambda c: f"a{c}{c}b", faults)
    print(f"every character through {6 + 1 + len(CLASSES) + 5} settings")


def write_single(folder, prefix, digits, template):
    """A tokenizer.json with a space in front or not, digits cut off or not, <|endoftext|> before every text or not."""
    vocabulary = make_added_tokens.vocabulary()
    end = "<|endoftext|>"
    stages = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    if digits:
        stages = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, stages]}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    processor = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": end, "type_id": 0}}, first],
                 "pair": [first, second], "special_tokens": {end: {"id": end, "ids": [vocabulary[end]], "tokens": [end]}}}
    settings = settings_with(pre_tokenizer=stages, post_processor=processor if template else None, added_tokens=[
        {"id": vocabulary[end], "content": end, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}])
    settings["model"]["merges"] = make_added_tokens.MERGES
    write(folder, "tokenizer.json", settings)


def folders(temporary, faults):
    """vocab.json and merges.txt, or tokenizer.json, or both, with what tokenizer_config.json may say."""
    classes = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "CodeGenTokenizer")
    singles = ((False, False, False), (True, False, True), (True, True, False))
    n = 0
    for class_name, prefix, bos, files in itertools.product(classes, (None, False, True), (None, True), ("pair", "json", "both")):
        if (files, class_name) == ("pair", "PreTrainedTokenizerFast") or (class_name, bos) == ("CodeGenTokenizer", True):
            continue  # transformers makes none of these
        config = {"tokenizer_class": class_name, "add_prefix_space": prefix, "add_bos_token": bos, "model_max_length": 1024}
        config = {key: value for key, value in config.items() if value is not None}
        for single in singles[:1] if files == "pair" else singles:
            with tempfile.TemporaryDirectory(dir=temporary) as folder:
                write(folder, "config.json", {"model_type": "gpt2"})
                write(folder, "tokenizer_config.json", config)
                if files != "json":
                    write(folder, "vocab.json", make_added_tokens.vocabulary())
                    write(folder, "merges.txt", "#version: 0.2\n" + "\n".join(make_added_tokens.MERGES) + "\n")
                if files != "pair":
                    write_single(folder, *single)
                peer = AutoTokenizer.from_pretrained(folder)
                texts = [(text, peer(text, split_special_tokens=True).input_ids, peer(text).input_ids)
                         for text in ("", "hello world", " the in", "a1 22", "x<|endoftext|>the")]
                with Ours(folder) as ours:
                    compare(f"folder {files} {config} tokenizer.json {single}", ours, texts, faults)
                n += 1
    print(f"{n} folders as transformers reads them")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 10000
    faults = []
    transformers.logging.set_verbosity_error()
    print(f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}")
    with tempfile.TemporaryDirectory(prefix="cinf-tokenizers-") as temporary:
        for make in (lambda work: random_tokenizers(count, first, work, faults), lambda work: every_character(work, faults),
                     lambda work: folders(work, faults)):
            with tempfile.TemporaryDirectory(dir=temporary) as work:
                make(work)
    for fault in faults[:20]:
        print(fault)
    print(f"{len(faults)} disagreements")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
