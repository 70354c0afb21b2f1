"""The shared library exports the declared functions and nothing else, and they are those of libcostinfer.sym.

Removing a name from that list breaks programs that are already built and needs a new soname.  A new name is
added with  tests/abi/check_symbols.py --write."""
import os
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("CINF_BUILD", SOURCE / "build"))
LIST = SOURCE / "tests/abi/libcostinfer.sym"


def names(*command):
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # A sanitizer's own names begin with two underscores.
    return {line.split()[-1] for line in out.splitlines() if re.search(r" [A-Z] (?!__)", line)}


def declared():
    text = "".join(p.read_text() for p in sorted((SOURCE / "include/costinfer").glob("*.h")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"^CINF_API [^;(]*?\b(cinf_\w+)\(", text, re.M))


def compare(what, seen, wanted):
    for name in sorted(seen - wanted):
        print(f"{what}: {name} is not expected", file=sys.stderr)
    for name in sorted(wanted - seen):
        print(f"{what}: {name} is missing", file=sys.stderr)
    return seen == wanted


def main():
    if sys.argv[1:] == ["--write"]:
        LIST.write_text("".join(name + "\n" for name in sorted(declared())))
        return 0
    listed = set(LIST.read_text().split())
    good = compare("the headers", declared(), listed)
    good &= compare("libcostinfer.so", names("nm", "-D", "--defined-only", BUILD / "lib/libcostinfer.so"), listed)
    archive = BUILD / "lib/libcostinfer.a"
    if archive.exists():
        good &= compare("libcostinfer.a", names("nm", "-g", "--defined-only", archive), listed)
    dynamic = subprocess.run(["readelf", "-d", BUILD / "lib/libcostinfer.so"], check=True, capture_output=True,
                             text=True).stdout
    if "[libcostinfer.so.0]" not in dynamic:
        print("the soname is not libcostinfer.so.0", file=sys.stderr)
        good = False
    print(f"{len(listed)} names")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
