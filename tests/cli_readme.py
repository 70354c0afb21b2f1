#!/usr/bin/env python3
"""Compiles the samples of README.md and costinfer.h with their printed commands, without a warning, and runs them."""

import os
import re
import subprocess
import sys
import tempfile

from cli_support import SOURCE

BUILD = os.environ["CINF_BUILD"]


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def check(name, code):
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "sample.c"), os.path.join(folder, "sample")
        with open(source, "w", encoding="utf-8") as file:
            file.write(code)
        libraries = os.path.join(BUILD, "lib")
        subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I",
                        os.path.join(SOURCE, "include"), source, "-L", libraries, "-lcostinfer",
                        f"-Wl,-rpath,{libraries}", "-o", program], check=True)
        done = subprocess.run([program], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert re.search(r"there was a .*\n40 tokens, \$0\.\d{12}\n$", done.stdout, re.S), (name, done)
    print("ok", name)


if not os.path.exists(os.path.join(BUILD, "lib", "libcostinfer.so")):
    print("skipped: the shared library was not built")
    sys.exit(77)
if re.search(r"^CINF_SANITIZE:\w+=.+$", read(BUILD, "CMakeCache.txt"), re.M):
    print("skipped: a library with sanitizers wants programs with them")
    sys.exit(77)
check("README.md", re.search(r"```c\n(.*?)```", read(SOURCE, "README.md"), re.S)[1])
header = read(SOURCE, "include", "costinfer", "costinfer.h")
check("costinfer.h", re.sub(r"^ \*(     )?", "", re.search(r" \*     #include.* \*     }\n", header, re.S)[0],
                            flags=re.M))
