"""Extracts the code blocks of the documentation and runs them as printed.

The blocks of README.md and examples/README.md run one after another in a copy of the tree, where build/ is the tested
build and `make` does nothing; a block of C becomes example.c, which the following commands compile.  The blocks of all
other documents run with the installed programs, in a folder that has examples/models; a block of C without a main() is
put into one that has an engine and a model.

A block after "<!-- not run: why -->" is listed but not run."""
import re
import shutil
import socket
import subprocess
import sys

from packaging_support import BUILD, SOURCE, Installed, copy_sources, run

MAIN = """#include <assert.h>
#include <costinfer/costinfer.h>
#include <inttypes.h>
#include <stdio.h>

int main(void)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    if (cinf_engine_open(&engine, NULL) != CINF_OK ||
        cinf_model_load(&model, engine, &(struct cinf_model_options){
            CINF_MODEL_OPTIONS, .folder = "examples/models/stories-small" }) != CINF_OK)
        return 1;
    %s
    cinf_model_release(model);
    cinf_engine_close(engine);
}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def shell(code, here, env):
    port = free_port()
    if "costd --model" in code and "--listen" not in code:
        code = code.replace("costd --model", f"costd --listen 127.0.0.1:{port} --model")
    script = "set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -m\n" + code
    script = re.sub(r"(127\.0\.0\.1|localhost):8000", rf"\1:{port}", script)
    script = script.replace("/usr/local/share/costinfer", str(here.prefix / "share/costinfer"))
    subprocess.run(["bash", "-c", script], cwd=here.work, env=env, check=True, timeout=120, capture_output=True,
                   text=True)


def c(code, here, env):
    if "int main(" not in code:
        code = MAIN % code
    (here.work / "example.c").write_text(code)
    flags = run("pkg-config", "--cflags", "--libs", "libcostinfer", env=env).split()
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "example.c", "-o", "block", *flags, cwd=here.work)
    run("./block", cwd=here.work, env=env)


def python(code, here, env):
    interpreter = "/usr/bin/python3" if shutil.which("/usr/bin/python3") else sys.executable
    run(interpreter, "-c", code, cwd=here.work, env={**env, "PYTHONPATH": str(SOURCE / "bindings/python/src"),
                                                     "PYTHONDONTWRITEBYTECODE": "1"})


def cpp(code, here, env):
    (here.work / "block.cpp").write_text(code)
    flags = run("pkg-config", "--cflags", "--libs", "libcostinfer", env=env).split()
    run("g++", "-std=c++17", "block.cpp", "-o", "block", *flags, cwd=here.work, env=env)
    run("./block", cwd=here.work, env=env)


def go(code, here, env):
    if not shutil.which("go"):
        print("left out, without go")
        return
    folder = here.work / "gomain"
    folder.mkdir(exist_ok=True)
    (folder / "main.go").write_text(code)
    (folder / "go.mod").write_text("module main\n\ngo 1.19\n\nrequire costinfer v0.0.0\n\n"
                                   f"replace costinfer => {here.go_binding()}\n")
    run("go", "build", "-o", here.work / "gohello", ".", cwd=folder,
        env={**env, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"})
    run(here.work / "gohello", cwd=here.work, env=env)


RUNNERS = {"sh": shell, "c": c, "python": python, "cpp": cpp, "go": go}
# docs/METRICS.md, which monitoring_files checks, and docs/proxies.md, whose configurations the test `proxies` runs.
NOT_CODE = {"promql", "nginx", "haproxy", "yaml"}


def check(name, here, env):
    """Runs the blocks of a document and returns their number."""
    ran = 0
    fenced = re.compile(r"^(?:<!-- not run: ([^\n]*) -->\n)?```(\w+)\n(.*?)^```", re.M | re.S)
    for why_not, language, code in fenced.findall((SOURCE / name).read_text()):
        if language in NOT_CODE:
            continue
        if why_not:
            print(f"{name}: left out: {why_not}: {code.splitlines()[0]}")
            continue
        try:
            RUNNERS[language](code, here, env)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, AssertionError) as error:
            sys.exit(f"{name}:\n{code}\n{error}\n{getattr(error, 'stdout', '')}\n{getattr(error, 'stderr', '')}")
        ran += 1
    return ran


def check_links(name):
    """Checks that the files exist to which a document links."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (SOURCE / name).read_text()):
        if "://" not in target and not (SOURCE / name).parent.joinpath(target).exists():
            sys.exit(f"{name}: links to {target}, which is not there")


def readme(here, env):
    tree = here.work = here.root / "tree"
    copy_sources(tree)
    (tree / "build").mkdir()
    for folder in ("bin", "lib"):
        (tree / "build" / folder).symlink_to(BUILD / folder)
    for lesson in (SOURCE / "examples").glob("*.c"):
        shutil.copy(lesson, tree)
    stubs = here.root / "stubs"
    stubs.mkdir()
    (stubs / "make").symlink_to("/bin/true")
    env = {**env, "PATH": f"{stubs}:{env['PATH']}"}
    return check("README.md", here, env) + check("examples/README.md", here, env)


with Installed() as here:
    env = here.env()
    (here.work / "examples").mkdir()
    (here.work / "examples/models").symlink_to(here.models)
    names = [p.relative_to(SOURCE) for folder in ("docs", "bindings/python", "bindings/go", "dashboards")
             for p in sorted((SOURCE / folder).glob("*.md"))]
    for name in run("git", "-c", f"safe.directory={SOURCE}", "-C", SOURCE, "ls-files", "*.md").split():
        check_links(name)
    ran = sum([check(str(name), here, env) for name in names])
    print(ran + readme(here, env), "blocks ran")
