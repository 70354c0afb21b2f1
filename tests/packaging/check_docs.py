"""The code blocks of the documentation, extracted and run as printed, with the installed programs in a folder
that has examples/models.

A shell block that begins with "# needs the internet" or "# not run: why" is listed and left out."""
import re
import shutil
import socket
import subprocess
import sys

from packaging_support import SOURCE, Installed, run

FILES = ["docs/quickstart.md", "docs/cost-model.md", "docs/tuning.md", "docs/faq.md", "docs/tutorial-server.md",
         "bindings/python/README.md", "bindings/go/README.md", "examples/README.md"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def shell(code, here, env):
    script = "set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -m\n" + code
    script = script.replace("127.0.0.1:8000", "127.0.0.1:" + free_port())
    script = script.replace("/usr/local/share/costinfer", str(here.prefix / "share/costinfer"))
    subprocess.run(["bash", "-c", script], cwd=here.work, env=env, check=True, timeout=120, capture_output=True,
                   text=True)


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


RUNNERS = {"sh": shell, "python": python, "cpp": cpp, "go": go}
TAG = re.compile(r"# (needs the internet|not run: .*)\n")

ran = 0
with Installed() as here:
    env = here.env()
    (here.work / "examples").mkdir()
    (here.work / "examples/models").symlink_to(here.models)
    shutil.copy(SOURCE / "examples/01_hello.c", here.work)
    for name in FILES:
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", (SOURCE / name).read_text(), re.M | re.S):
            tag = TAG.match(code)
            if tag:
                print(f"{name}: left out: {tag[1]}")
                continue
            try:
                RUNNERS[language](code, here, env)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}:\n{code}\n{error}\n{error.stdout}\n{error.stderr}")
            ran += 1
print(ran, "blocks ran")
