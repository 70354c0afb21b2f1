"""The Python wheel in a clean venv, without a compiler: from the sdist, and by the README's commands, pure and with the
library inside; pytest on what is installed; mypy --strict on the package and its tests; struct layouts against a C
compiler."""
import os
import re
import shutil
import sys

from packaging_support import SOURCE, Installed, run, skip

LAYOUT = """
import ctypes, costinfer._ffi as f
for name, struct in sorted(vars(f).items()):
    if isinstance(struct, type) and issubclass(struct, ctypes.Structure) and hasattr(struct, "_fields_"):
        c = "cinf_" + "".join("_" + x.lower() if x.isupper() else x for x in name).lstrip("_")
        print(f'{c} {ctypes.sizeof(struct)}', *(f'{n}@{getattr(struct, n).offset}' for n, _ in struct._fields_))
"""


def layout_in_c(lines, here):
    """Returns the same lines as `lines` by the C compiler; Python's lines name the fields."""
    body = []
    for line in lines:
        name, _, *fields = line.split()
        body.append(f'printf("{name} %zu", sizeof(struct {name}));')
        for field in (f.split("@")[0] for f in fields):
            body.append(f'printf(" {field}@%zu", offsetof(struct {name}, {field}));')
        body.append('puts("");')
    source = here.work / "layout.c"
    source.write_text("#include <stddef.h>\n#include <stdio.h>\n#include <costinfer/costinfer.h>\n"
                      "int main(void) {\n" + "\n".join(body) + "\n}\n")
    run("gcc", f"-I{here.prefix / 'include'}", source, "-o", here.work / "layout")
    return run(here.work / "layout").splitlines()


python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
with Installed() as here:
    try:
        run(python, "-m", "venv", here.root / "venv")
        pip = [here.root / "venv/bin/pip", "-q", "--disable-pip-version-check"]
        run(*pip, "install", "setuptools>=66", "wheel", "build", "pytest", "numpy", "mypy")
    except AssertionError as error:
        skip(f"a venv with pytest and mypy cannot be made: {str(error).splitlines()[-1]}")
    venv = here.root / "venv/bin/python"
    tree = here.root / "python"
    shutil.copytree(SOURCE / "bindings/python", tree,
                    ignore=shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", ".*_cache"))
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COSTINFER_LIBRARY", "COSTINFER_BUNDLE")}

    def build(*arguments, **env):
        run(venv, "-m", "build", "--no-isolation", *arguments, tree, env={**clean, **env})

    build("--outdir", here.root / "dist")  # the sdist, and the wheel from it
    assert [p.name for p in (here.root / "dist").glob("*.whl")] == ["costinfer-0.1.0-py3-none-any.whl"]
    assert (here.root / "dist/costinfer-0.1.0.tar.gz").exists()

    # The README's two commands, in a clone's top folder; the requirements of the build are in the venv already.
    (printed,) = re.findall(r"```sh\n(.*?)```", (SOURCE / "bindings/python/README.md").read_text(), re.S)
    clone = here.root / "clone"
    shutil.copytree(tree, clone / "bindings/python")
    (clone / "build").mkdir()
    (clone / "build/lib").symlink_to(here.lib)
    run("bash", "-euc", printed.replace("pip wheel ", "pip wheel --no-build-isolation "), cwd=clone,
        env={**clean, "PATH": f"{here.root / 'venv/bin'}:{os.environ['PATH']}"})
    wheels = sorted(p.name for p in clone.glob("*.whl"))
    assert len(wheels) == 2 and wheels[1] == "costinfer-0.1.0-py3-none-any.whl" and "linux" in wheels[0], wheels
    bundled = clone / wheels[0]
    refused = run(*pip, "wheel", "--no-build-isolation", "bindings/python", cwd=clone, ok=(1,), stderr=True,
                  env={**clean, "COSTINFER_BUNDLE": "build/lib/libcostinfer.so.0"})
    assert "is not the absolute path of a file" in refused, refused

    tests = here.work / "tests"
    shutil.copytree(SOURCE / "bindings/python/tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
    env = {**clean, "COSTINFER_MODELS": str(here.models), "PATH": str(here.root / "venv/bin"),
           "COSTINFER_SCENARIO": str(SOURCE / "tests/conformance/scenario.json")}
    pytest = [venv, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]

    run(*pip, "install", here.root / "dist/costinfer-0.1.0-py3-none-any.whl")
    out = run(*pytest, cwd=here.work, env={**env, "LD_LIBRARY_PATH": str(here.lib)})
    print("pure wheel:", out.strip().splitlines()[-1])
    # Without the library, the import fails with one clear sentence.
    missing = run(venv, "-c", "try: import costinfer\nexcept ImportError as e: print(e)", cwd=here.work,
                  env={**env, "COSTINFER_LIBRARY": "/no/lib.so"})
    assert "COSTINFER_LIBRARY" in missing, missing
    lines = run(venv, "-c", LAYOUT, env={**env, "LD_LIBRARY_PATH": str(here.lib)}).splitlines()
    assert len(lines) >= 15
    for seen, wanted in zip(lines, layout_in_c(lines, here)):
        assert seen == wanted, f"\n{seen}\n{wanted}"
    print(len(lines), "structs are laid out as in C")
    run(venv, "-m", "mypy", "--strict", "--cache-dir", here.root / "mypy", *sorted(tests.glob("*.py")), cwd=here.work)
    run(venv, "-m", "mypy", "--strict", "--cache-dir", here.root / "mypy", tree / "src", cwd=here.work)
    print("mypy --strict: the package, and the tests against the installed one")

    run(*pip, "install", "--force-reinstall", bundled)
    out = run(*pytest, cwd=here.work, env=env)
    print("bundled wheel:", out.strip().splitlines()[-1])
    run(*pip, "uninstall", "-y", "costinfer")
    assert not list((here.root / "venv").rglob("libcostinfer*"))
