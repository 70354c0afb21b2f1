"""Programs that are already built know where the fields of the public structs lie: those places never move.

tests/abi/layout.txt has the offset, size and type of every field.  A struct that begins with `struct_size`, and
cinf_result, which only the library allocates, may grow at the end; all others are elements of arrays or lie within
other structs, and change only with the soname.

After a field was appended, or a struct was added:   tests/abi/check_layout.py --write
It extends the file, and refuses to if anything in it has moved.  A new soname begins with an empty file."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
INCLUDE = SOURCE / "include"
FILE = SOURCE / "tests/abi/layout.txt"
GROWING = {"cinf_result"}  # beside those that begin with struct_size


def declared():
    """{struct: [(field, type)]} in the order of the headers."""
    structs = {}
    for header in sorted((INCLUDE / "costinfer").glob("*.h")):
        text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
        for name, body in re.findall(r"^struct (cinf_\w+) \{(.*?)^\};", text, re.S | re.M):
            fields = structs.setdefault(name, [])
            for declaration in filter(None, (" ".join(d.split()) for d in body.split(";"))):
                match = re.fullmatch(r"(.*?\(\*)(\w+)(\)\(.*\))|([^,()]*?)\b(\w+)((?:\[[^\]]+\])*)", declaration)
                assert match, f"{header.name}: struct {name}: one field a declaration, please: {declaration}"
                parts = [part or "" for part in match.groups()]
                fields.append((parts[1] or parts[4], (parts[0] + parts[2] + parts[3].strip() + parts[5])))
    return structs


def measured(structs):
    """{struct: (size, [(field, offset, size, type)])}, by a C compiler."""
    lines = []
    for name, fields in structs.items():
        lines.append(f'printf("%zu\\n", sizeof(struct {name}));')
        lines += [f'printf("%zu %zu\\n", offsetof(struct {name}, {field}), sizeof((struct {name} *)0)->{field}'
                  ");" for field, _ in fields]
    text = "#include <costinfer/costinfer.h>\n#include <stddef.h>\n#include <stdio.h>\n" \
           "int main(void) {\n" + "\n".join(lines) + "\n}\n"
    compiler = next(c for c in (os.environ.get("CC"), "gcc", "clang-14", "cc") if c and shutil.which(c))
    with tempfile.TemporaryDirectory(prefix="costinfer-layout-") as folder:
        program = pathlib.Path(folder) / "layout"
        subprocess.run([compiler, "-std=c11", "-w", f"-I{INCLUDE}", "-x", "c", "-", "-o", program], input=text,
                       text=True, check=True)
        out = iter(subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines())
    return {name: (int(next(out)), [(field, *map(int, next(out).split()), kind) for field, kind in fields])
            for name, fields in structs.items()}


def write(layouts):
    blocks = []
    for name, (size, fields) in layouts.items():
        rows = "".join(f"{offset:8} {n:4} {field}: {kind}\n" for field, offset, n, kind in fields)
        blocks.append(f"struct {name} {size}\n{rows}")
    FILE.write_text("\n".join(blocks))


def read():
    layouts = {}
    for block in FILE.read_text().split("\n\n") if FILE.exists() else []:
        lines = block.strip().splitlines()
        if not lines:
            continue
        _, name, size = lines[0].split()
        rows = [re.fullmatch(r" *(\d+) +(\d+) (\w+): (.*)", line).groups() for line in lines[1:]]
        layouts[name] = (int(size), [(field, int(offset), int(n), kind) for offset, n, field, kind in rows])
    return layouts


def compare(seen, kept):
    """What has moved, and what is new."""
    moved, new = [], []
    grows = {name for name, (_, fields) in seen.items() if name in GROWING or fields[0][0] == "struct_size"}
    for name, (size, fields) in kept.items():
        if name not in seen:
            moved.append(f"struct {name} is gone")
            continue
        now_size, now = seen[name]
        for i, (field, offset, n, kind) in enumerate(fields):
            at = now[i] if i < len(now) else ("nothing", 0, 0, "nothing")
            # A growing struct is the last within another, so its own size may differ there.
            inner = kind.removeprefix("struct ") in grows and i == len(fields) - 1 and name in grows
            if at[:2] + at[3:] != (field, offset, kind) or (at[2] != n and not inner):
                moved.append(f"struct {name}: {field} was {kind} of {n} bytes at offset {offset}; that place now has "
                             f"{at[0]}, {at[3]} of {at[2]} bytes at offset {at[1]}")
                break
        else:
            appended = [field for field, *_ in now[len(fields):]]
            if name in grows:
                # struct_size does not tell an older caller's padding from a field, and padding may hold anything.
                new += [f"struct {name}: {field} was appended" + (" within what was padding" if offset < size else "")
                        for field, offset, *_ in now[len(fields):]]
            elif appended or now_size != size:
                moved.append(f"struct {name} had {size} bytes and now has {now_size}: it may not grow "
                             f"({', '.join(appended) or 'its fields are the same'})")
    new += [f"struct {name} is new" for name in seen if name not in kept]
    return moved, new


def main():
    if sys.maxsize < 2**32:
        print("skipped: the file is for machines with 64-bit pointers")
        return 77
    seen = measured(declared())
    kept = read()
    moved, new = compare(seen, kept)
    for line in moved:
        print(line, file=sys.stderr)
    if moved:
        print("Programs that are already built would misread this.  Append new fields at the end of a struct that "
              "begins with struct_size.", file=sys.stderr)
        return 1
    if sys.argv[1:] == ["--write"]:
        write(seen)
    else:
        for line in new:
            print(f"{line}: extend the file with  tests/abi/check_layout.py --write", file=sys.stderr)
        if new:
            return 1
    print(f"{len(seen)} structs, {sum(len(fields) for _, fields in seen.values())} fields")
    return 0


if __name__ == "__main__":
    sys.exit(main())
