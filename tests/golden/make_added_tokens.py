#!/usr/bin/env python3
"""Writes tests/golden/added_tokens.jsonl: texts with added tokens in them, and what Hugging Face's tokenizers
makes of them.

    build/peers-venv/bin/python tests/golden/make_added_tokens.py       needs tokenizers (scripts/peers_venv.sh)

A line is one tokenizer: `added_tokens`, as tokenizer.json has it, on the vocabulary of tests/tiny_tokenizer.h,
and `texts`, each with its `ids` where special tokens are ordinary text, and `ids_special` where they are
tokens, if that makes a difference.  Vocabularies and texts are random, but made of what is easy to get wrong: tokens that begin, end or contain others, tokens of
spaces, spaces of every kind around those that take them, and characters at the edge of what a word is.
"""
import json
import os
import random

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
VOCABULARIES, TEXTS = 120, 12
END = "<|endoftext|>"
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "a a", "aa aa", "l l", "Ġ Ġ", "â Ĥ", "âĤ ¬"]

TOKENS = [
    "<|user|>", "<|user", "<|user|>a", "user", "|>", "<|", "<|pad|>", "[PAD]", "<|im_start|>", "<|im_end|>", "<s>",
    "</s>", "covfefe", "cov", "fefe", "ovf", " n", " the", "the", "a", "aa", "aaa", "ab", "aba", "ba", "'ll", "x_y",
    " ", "  ", "\n", "\n\n", "\t", " a", "a ", " a ", "\u00a0", "\u3000", "中", "中文", "文", "né", "é", "²", "Ġthe", "😀",
    "😀😀", "\u0301", "_", "-", "1", "12", "Ⓐ", "\u200d",
]
SPACES = [" ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u0085", "\u2003", "\u2028", "\u3000", "\u200b", "\x1c"]
AROUND = ["a", "b", "Z", "é", "ß", "中", "_", "1", "²", "½", "٣", "Ⅷ", "Ⓐ", "\u0301", "\u200c", "\u200d", "‿", "-", ".", "'",
          "(", "😀", "№", "ª", "̈", "ा", "", "\ufeff", "𝟘", "𐐀", "🄰"]
WORDS = ["the", " the", " in", "hello", " world", "'ll", "aaaa", "<|", "|>", "user", "\n", "."]


def bytes_to_unicode():
    """The character that spells each byte, in order of the bytes."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def vocabulary():
    tokens = bytes_to_unicode() + [merge.replace(" ", "") for merge in MERGES] + [END]
    return {token: i for i, token in enumerate(tokens)}


def make_tokenizer(rng):
    tokenizer = Tokenizer(models.BPE(vocabulary(), [tuple(merge.split(" ")) for merge in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain = rng.random() < 0.2  # no token moves its bounds

    def flag(chance):
        return not plain and rng.random() < chance

    def added(content):
        return AddedToken(content, single_word=flag(0.3), lstrip=flag(0.3), rstrip=flag(0.3),
                          normalized=rng.random() < 0.4, special=rng.random() < 0.5)

    tokenizer.add_tokens([AddedToken(END, normalized=False, special=True)])
    for content in rng.sample(TOKENS, rng.randint(1, 9)):
        tokenizer.add_tokens([added(content)])
    return tokenizer


def make_text(rng, contents):
    parts = []
    for _ in range(rng.randint(1, 9)):
        kind = rng.random()
        content = rng.choice(contents)
        if kind < 0.4:
            parts.append(content)
        elif kind < 0.5:
            cut = rng.randint(0, len(content))
            parts.append(rng.choice([content[:cut], content[cut:], content[:cut] + content, content * 2]))
        elif kind < 0.7:
            parts.append(rng.choice(SPACES))
        elif kind < 0.85:
            parts.append(rng.choice(AROUND))
        else:
            parts.append(rng.choice(WORDS))
    return "".join(parts)


def ids_of(tokenizer, text):
    """Without special tokens and with them, or None where a token of spaces makes tokenizers itself fail."""
    both = []
    for ordinary in (True, False):
        tokenizer.encode_special_tokens = ordinary
        try:
            both.append(tokenizer.encode(text).ids)
        except BaseException as error:  # a panic is no Exception
            if type(error).__name__ != "PanicException":
                raise
            return None
    return both


def cases(seed, n_texts):
    """One tokenizer: its added tokens, and texts with both kinds of ids."""
    rng = random.Random(seed)
    tokenizer = make_tokenizer(rng)
    added = json.loads(tokenizer.to_str())["added_tokens"]
    contents = [token["content"] for token in added]
    texts = []
    while len(texts) < n_texts:
        text = make_text(rng, contents)
        both = ids_of(tokenizer, text)
        if both:
            texts.append((text, *both))
    return added, texts


def main():
    with open(os.path.join(HERE, "added_tokens.jsonl"), "w", encoding="utf-8") as file:
        for seed in range(VOCABULARIES):
            added, texts = cases(seed, TEXTS)
            records = [{"text": text, "ids": ids} | ({} if special == ids else {"ids_special": special})
                       for text, ids, special in texts]
            line = {"added_tokens": added, "texts": records}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
