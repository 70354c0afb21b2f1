"""Each public header compiles alone and when included twice, as C11 and as C++17, with no warning and no
define of ours."""
import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wundef", "-Werror", "-fsyntax-only"]
COMPILERS = [(c, "c", "-std=c11") for c in ("gcc", "clang-14")] + \
            [(c, "c++", "-std=c++17") for c in ("g++", "clang++-14")]

runs = failed = 0
for compiler, language, standard in COMPILERS:
    if not shutil.which(compiler):
        print(f"without {compiler}, which is not installed")
        continue
    for header in sorted((SOURCE / "include/costinfer").iterdir()):
        if header.suffix == ".hpp" and language == "c":
            continue
        # A function and a struct may have one name in C; g++ calls that shadowing.
        warnings = STRICT if language == "c" else [w for w in STRICT if w != "-Wshadow"]
        text = f"#include <costinfer/{header.name}>\n" * 2 + "int main(void) { return 0; }\n"
        result = subprocess.run([compiler, standard, *warnings, f"-I{SOURCE / 'include'}", "-x", language, "-"],
                                input=text, text=True, stderr=subprocess.PIPE)
        runs += 1
        if result.returncode:
            failed += 1
            print(f"{header.name} with {compiler} {standard}:\n{result.stderr}", file=sys.stderr)
print(f"{runs} compilations, {failed} failed")
sys.exit(1 if failed or not runs else 0)
