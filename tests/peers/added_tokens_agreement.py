#!/usr/bin/env python3
"""Added tokens as Hugging Face's tokenizers find them, beside the library, on more cases than the committed ones.

    tests/peers/added_tokens_agreement.py [VOCABULARIES [FIRST_SEED]]

Random vocabularies and texts (tests/golden/make_added_tokens.py makes both) through tokenizers and through
libcostinfer; which characters a word is made of, one by one; and folders as transformers saves them, in each
way that it has had.  Without CINF_BUILD it takes the library in build/.
"""
import json
import os
import random
import sys
import tempfile
import unicodedata

from peers_support import SOURCE, enter_venv
from tokenizer_library import LIBRARY, Ours, compare, write

TEXTS = 12
FOLDERS = 40

enter_venv(LIBRARY)

sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
import tokenizers  # noqa: E402
import transformers  # noqa: E402
from tokenizers import AddedToken, Tokenizer  # noqa: E402
from transformers import GPT2Tokenizer, GPT2TokenizerFast  # noqa: E402

import make_added_tokens as golden  # noqa: E402

def random_vocabularies(count, first, folder, faults):
    n = 0
    for seed in range(first, first + count):
        added, texts = golden.cases(seed, TEXTS)
        model = {"type": "BPE", "vocab": golden.vocabulary(), "merges": golden.MERGES}
        write(folder, "tokenizer.json", {"added_tokens": added, "model": model})
        with Ours(folder) as ours:
            compare(f"seed {seed}", ours, texts, faults)
        n += len(texts)
    print(f"{count} vocabularies, {n} texts, each with special tokens as text and as tokens")


def every_character(folder, faults):
    """Behind a single word, and between a token that takes spaces and the end: is it a word's, is it a space?"""
    tokenizer = Tokenizer(golden.models.BPE(golden.vocabulary(), []))
    tokenizer.pre_tokenizer = golden.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens([AddedToken("<w>", single_word=True, normalized=False), AddedToken("<s>", rstrip=True, lstrip=True)])
    write(folder, "tokenizer.json", {"added_tokens": json.loads(tokenizer.to_str())["added_tokens"],
                                     "model": {"type": "BPE", "vocab": golden.vocabulary(), "merges": []}})
    n = 0
    with Ours(folder) as ours:
        for code in range(1, sys.maxunicode + 1):
            c = chr(code)
            if unicodedata.category(c) in ("Cn", "Cs") or 0xF0000 <= code:
                continue  # what is not assigned yet depends on whose Unicode is newer
            n += 1
            text = f"{c}<w>{c}x <w>{c}. {c}<w> {c}<s>{c}"
            if tokenizer.encode(text).ids != ours.encode(text):
                faults.append(f"U+{code:04X} {unicodedata.category(c)} at the edge of a word, or as a space")
    print(f"{n} characters at the edge of a token")


def folder_variants(tokenizer, slow, temporary):
    """The folders that transformers has written over the years, for these tokens."""
    def saved(name, peer, change=None, **options):
        folder = os.path.join(temporary, name)
        peer.save_pretrained(folder, **options)
        if change:
            change(folder)
        return folder

    def forget_list(folder):
        """Before 4.34 there was no list by id; the special tokens have names or are additional ones."""
        path = os.path.join(folder, "tokenizer_config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        del config["added_tokens_decoder"]
        write(folder, "tokenizer_config.json", config)

    yield saved("slow", slow)
    yield saved("old", slow, forget_list)
    yield saved("fast", tokenizer)
    yield saved("json", tokenizer, legacy_format=False)


def folders(count, temporary, faults):
    base = os.path.join(temporary, "base")
    os.mkdir(base)
    write(base, "vocab.json", golden.vocabulary())
    write(base, "merges.txt", "#version: 0.2\n" + "\n".join(golden.MERGES) + "\n")
    n = 0
    for seed in range(count):
        rng = random.Random(seed)
        contents = [c for c in golden.TOKENS if c.isascii() and c.strip() == c]
        special = rng.sample(contents, 4)
        ordinary = [c for c in rng.sample(contents, 4) if c not in special]

        def added(content, is_special):
            # What the oldest files cannot say is left at its default.
            return AddedToken(content, special=is_special, normalized=not is_special)

        slow = GPT2Tokenizer.from_pretrained(base)
        slow.add_tokens([added(c, False) for c in ordinary])
        slow.add_special_tokens({"pad_token": added(special[0], True),
                                 "additional_special_tokens": [added(c, True) for c in special[1:]]})
        with tempfile.TemporaryDirectory(dir=temporary) as work:
            slow.save_pretrained(os.path.join(work, "first"))
            fast = GPT2TokenizerFast.from_pretrained(os.path.join(work, "first"))
            texts = [golden.make_text(rng, special + ordinary) for _ in range(TEXTS)]
            for folder in folder_variants(fast, slow, work):
                peer = GPT2TokenizerFast.from_pretrained(folder)
                wanted = [(t, peer.encode(t, split_special_tokens=True), peer.encode(t, split_special_tokens=False)) for t in texts]
                with Ours(folder) as ours:
                    compare(f"folder {seed} {os.path.basename(folder)} {sorted(os.listdir(folder))}", ours, wanted, faults)
                n += 1
    print(f"{n} folders that transformers saved, {TEXTS} texts each")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    first = int(sys.argv[2]) if len(sys.argv) > 2 else golden.VOCABULARIES
    faults = []
    transformers.logging.set_verbosity_error()
    print(f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}")
    with tempfile.TemporaryDirectory(prefix="cinf-added-") as temporary:
        for make in (lambda work: random_vocabularies(count, first, work, faults),
                     lambda work: every_character(work, faults), lambda work: folders(FOLDERS, work, faults)):
            with tempfile.TemporaryDirectory(dir=temporary) as work:
                make(work)
    for fault in faults[:10]:
        print(fault)
    print(f"{len(faults)} disagreements")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
