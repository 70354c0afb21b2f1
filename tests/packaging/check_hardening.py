"""The defences that a release is built with, read from the ELF files: each one that is missing is named.

The linker marks a program for CET only when the system's start files carry the mark, too, and Debian's do not.
So that mark is looked for in the object files of the tree."""
import json
import re
import sys

from packaging_support import BUILD, SOURCE, need, run

SHARED = BUILD / "lib/libcostinfer.so"
ARCHIVE = BUILD / "lib/libcostinfer.a"
PROGRAMS = [path for path in (BUILD / "bin/costd", BUILD / "bin/costinfer") if path.exists()]
# Symbols of the C library that a file imports when the defence is on.
IMPORTS = {"the stack protector": r"\b__stack_chk_fail\b", "FORTIFY": r"\b__v?snprintf_chk\b"}
BRANCH_MARKS = {"Advanced Micro Devices X86-64": ("x86 feature: IBT, SHSTK",), "AArch64": ("BTI", "PAC")}
missing = []


def expect(path, what, there):
    if not there:
        missing.append(f"{path.relative_to(BUILD)}: {what} is missing")


def check_linked(path, program):
    text = run("readelf", "--wide", "--file-header", "--segments", "--dynamic", "--dyn-syms", path)
    segments = re.findall(r"^ +(\w+) +0x[0-9a-f]+ 0x\S+ 0x\S+ 0x\S+ 0x\S+ ([RWE ]{3}) ", text, re.M)
    kinds = dict(segments)
    expect(path, "a position-independent image (PIE)", re.search(r"^ +Type: +DYN\b", text, re.M))
    expect(path, "the PIE flag", not program or re.search(r"\(FLAGS_1\).*\bPIE\b", text))
    expect(path, "RELRO", "GNU_RELRO" in kinds)
    expect(path, "binding at start (full RELRO)", re.search(r"\(FLAGS_1\).*\bNOW\b", text))
    expect(path, "a stack that is not executable", kinds.get("GNU_STACK", "RWE").strip() == "RW")
    expect(path, "a separation of what is written from what is executed",
           not any("W" in flags and "E" in flags for _, flags in segments))
    expect(path, "code without relocations", "(TEXTREL)" not in text)
    for what, symbol in IMPORTS.items():
        expect(path, what, re.search(symbol, text))


def check_objects(paths, machine):
    """Every object of the tree is marked for CET (x86-64) or for BTI and PAC (arm64)."""
    for path in paths:
        notes = run("readelf", "--wide", "--notes", path)
        expect(path, "the mark of CET" if "X86" in machine else "the mark of BTI and PAC",
               all(mark in notes for mark in BRANCH_MARKS.get(machine, ())))


def check_producers(path):
    """gcc notes its options in the debug information; clang does not."""
    producers = re.findall(r"DW_AT_producer.*?: (?:\(.*?\): )?(GNU C\d.*)",
                           run("readelf", "--wide", "--debug-dump=info", "--dwarf-depth=1", path))
    for option in ("-fstack-protector-strong", "-fstack-clash-protection"):
        without = [p for p in producers if option not in p]
        expect(path, f"{option} in {len(without)} of {len(producers)} sources", not without)
    return len(producers)


def check_paths(path):
    """A file that names its build folder differs from one that was built elsewhere."""
    data = path.read_bytes()
    for folder in {SOURCE, BUILD}:
        expect(path, f"independence of its folder ({folder} in it)", str(folder).encode() not in data)


need("readelf")
machine = re.search(r"Machine: +(.*)", run("readelf", "--file-header", SHARED)).group(1)
# What the build knows: a folder that was built before may hold objects of sources that are gone.
commands = json.loads((BUILD / "compile_commands.json").read_text())
outputs = [re.search(r" -o (\S+)", command["command"])[1] for command in commands]
objects = sorted(BUILD / output for output in outputs if output.startswith(("libcostinfer/", "apps/")))
n_producers = 0
for path in [SHARED, *PROGRAMS]:
    check_linked(path, path in PROGRAMS)
for path in [SHARED, ARCHIVE, *PROGRAMS]:
    n_producers += check_producers(path)
    check_paths(path)
check_objects(objects, machine)
for line in missing:
    print(line, file=sys.stderr)
print(f"{len(PROGRAMS) + 1} ELF files, {len(objects)} objects, {n_producers} sources with gcc's record of its options")
sys.exit(1 if missing else 0)
