#!/usr/bin/env python3
"""costinfer on files that are not what they say: exit status 1 and one line that names file and fault."""

import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile

from cli_support import MODELS, good, main, parsed, refused, run

SMALL = MODELS[0]


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def zipped(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FILES = {
    # name: (content, words of the fault)
    "empty.safetensors": (b"", []),
    "short.safetensors": (b"\x08\0\0", []),
    "huge-header.safetensors": (safetensors({}, length=2**62), []),
    "header-past-end.safetensors": (safetensors({"a": ONE}, b"", length=5000), []),
    "over-limit.safetensors": (safetensors({}, length=100_000_001), []),
    "not-json.safetensors": (safetensors(b"{]"), []),
    "duplicate.safetensors": (safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2), b"\0" * 8), ["a"]),
    "past-end.safetensors": (safetensors({"a": ONE}, b"\0" * 7), ["a"]),
    "hole.safetensors": (safetensors({"a": ONE | {"data_offsets": [8, 16]}}, b"\0" * 16), ["a"]),
    "overlap.safetensors": (safetensors({"a": ONE, "b": ONE}, b"\0" * 8), []),
    "backwards.safetensors": (safetensors({"a": ONE | {"data_offsets": [8, 0]}}, b"\0" * 8), ["a"]),
    "wrong-size.safetensors": (safetensors({"a": ONE | {"shape": [3]}}, b"\0" * 8), ["a"]),
    "wrapping.safetensors": (safetensors({"a": ONE | {"shape": [2**62, 2**62]}}, b"\0" * 8), ["a"]),
    "negative.safetensors": (safetensors({"a": ONE | {"shape": [-2]}}, b"\0" * 8), ["a"]),
    "strange-type.safetensors": (safetensors({"a": ONE | {"dtype": "F31"}}, b"\0" * 8), ["a", "F31"]),
    "trailing.safetensors": (safetensors({"a": ONE}, b"\0" * 9), []),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n", ["LFS"]),
    "page.safetensors": (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", ["HTML"]),
    "zip.safetensors": (zipped({"archive/data.pkl": b"", "archive/version": b"3\n"}), ["zip"]),
    "empty.bin": (b"", []),
    "text.bin": (b"hello, world\n" * 20, []),
    "lfs.bin": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n", ["LFS"]),
    "evil-zip.bin": (zipped({"archive/data.pkl": pickle.dumps(Evil(), 2), "archive/version": b"3\n"}), ["system"]),
    "evil.bin": (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
                 + pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
                 + pickle.dumps(Evil(), 2), ["system"]),
    "no-pickle.bin": (zipped({"archive/version": b"3\n"}), []),
    "cut.bin": (zipped({"archive/data.pkl": pickle.dumps({}, 2)})[:-9], []),
    "notes.txt": (b"not a model", []),
}


def in_folder(test):
    def wrapped():
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            os.chdir(folder)
            try:
                test(folder)
            finally:
                os.chdir(before)

    wrapped.__name__ = test.__name__
    return wrapped


@in_folder
def test_single_files(folder):
    for name, (content, words) in FILES.items():
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(content)
        error = refused(1, [name, *words], "inspect", path)
        assert len(error) < 1200 and error[:-1].isprintable(), error
        assert not os.path.exists("pwned"), f"{name} was executed"
        refused(1, [name], "inspect", path, "--json")
    refused(1, ["nothing-here"], "inspect", os.path.join(folder, "nothing-here"))
    os.mkdir("void")
    refused(1, ["void"], "inspect", os.path.join(folder, "void"))
    os.mkfifo("pipe.safetensors")
    refused(1, ["pipe.safetensors"], "inspect", os.path.join(folder, "pipe.safetensors"))


@in_folder
def test_every_cut_of_a_model(folder):
    """A file that is truncated anywhere is refused, and never read past its end."""
    with open(os.path.join(SMALL, "model.safetensors"), "rb") as file:
        whole = file.read()
    path = os.path.join(folder, "model.safetensors")
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for size in (1, 7, 8, 9, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        with open(path, "wb") as file:
            file.write(whole[:size])
        refused(1, ["model.safetensors"], "inspect", path)


@in_folder
def test_hostile_names_reach_no_terminal(folder):
    name = "a\x1b[2J\u202e\u0085b"
    with open("x.safetensors", "wb") as file:
        file.write(safetensors({name: ONE}, b"\0" * 8))
    status, output, _ = run("inspect", "x.safetensors")
    if status == 0:
        assert output.decode().replace("\n", "").isprintable(), output
        assert parsed("inspect", "x.safetensors", "--json")["tensors"][0]["name"] == name


@in_folder
def test_folders(folder):
    def copy(name, **changes):
        model = os.path.join(folder, name)
        shutil.copytree(SMALL, model, copy_function=lambda a, b: (shutil.copyfile(a, b)))
        with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.update(changes)
        with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as file:
            json.dump({k: v for k, v in config.items() if v != "absent"}, file)
        return model

    def replace(model, name, content):
        with open(os.path.join(model, name), "wb") as file:
            file.write(content)
        return model

    for words, model in [
        (["n_head"], copy("heads", n_head=5)),
        (["n_embd"], copy("negative", n_embd=-1)),
        (["activation_function"], copy("activation", activation_function="maybe")),
        (["config.json"], replace(copy("comma"), "config.json", b'{"n_embd": 128,}')),
        (["vocab.json"], replace(copy("vocab"), "vocab.json", b'{"a": 0, "a": 1}')),
        (["merges.txt"], replace(copy("merges"), "merges.txt", b"#version: 0.2\nonly-one-part\n")),
        (["model.safetensors"], replace(copy("cut"), "model.safetensors", b"\0" * 20)),
    ]:
        refused(1, words, "inspect", model)
        refused(1, words, "run", "--model", model, "--prompt", "x")
    # Well-formed, but not the configuration of these tensors.
    for words, model in [
        (["n_layer", "h.4."], copy("layers", n_layer=5)),
        (["wpe"], copy("positions", n_positions=300)),
        (["wte"], copy("words", vocab_size=4096)),
        (["h.0.mlp.c_fc"], copy("inner", n_inner=500)),
    ]:
        good("inspect", model)
        error = refused(1, ["costinfer"], "run", "--model", model, "--prompt", "x")
        assert any(word in error for word in words), (words, error)
    bare = copy("bare")
    for name in ("config.json", "generation_config.json", "vocab.json", "merges.txt"):
        os.remove(os.path.join(bare, name))
    seen = parsed("inspect", bare, "--json")
    assert seen["config"] is None and seen["tokenizer_size"] is None and len(seen["tensors"]) == 52
    refused(1, ["config.json"], "run", "--model", bare, "--prompt", "x")
    refused(1, ["bare"], "tokenize", "--model", bare, given=b"x")


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
