"""The library's tokenizer by ctypes, and comparing it with another one."""
import ctypes
import json
import os

from peers_support import BUILD, skip

LIBRARY = os.path.join(BUILD, "lib", "libcostinfer.so.0")
SPECIAL, BARE = 1, 2

try:
    LIB = ctypes.CDLL(LIBRARY)
except OSError as error:  # with sanitizers, or not built
    skip(error)
LIB.cinf_last_error.restype = ctypes.c_char_p


class Ours:
    """The library's tokenizer of a folder."""

    def __init__(self, folder):
        self.pointer = ctypes.c_void_p()
        self.check(LIB.cinf_tokenizer_open(ctypes.byref(self.pointer), folder.encode()))

    @staticmethod
    def check(status):
        if status:
            raise RuntimeError(LIB.cinf_last_error().decode())

    def encode(self, text, flags=0):
        data, ids, n = text.encode(), ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        self.check(LIB.cinf_tokenizer_encode(self.pointer, data, ctypes.c_size_t(len(data)), flags, ctypes.byref(ids),
                                             ctypes.byref(n)))
        got = ids[:n.value]
        LIB.cinf_ids_free(ids)
        return got

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        LIB.cinf_tokenizer_free(self.pointer)


def write(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(value if isinstance(value, str) else json.dumps(value))


def compare(what, ours, texts, faults):
    """Each text with its ids: special tokens as text, as tokens, and, where given, without what is added."""
    for text, *wanted in texts:
        for flags, ids in zip((0, SPECIAL, BARE), wanted):
            got = ours.encode(text, flags)
            if got != ids:
                faults.append(f"{what}, flags={flags}: {text!r}\n    tokenizers {ids}\n    costinfer  {got}")
