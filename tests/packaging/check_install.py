"""Checks cmake --install: the files, the installed programs, man pages, completion and the systemd unit."""
import json
import re
import shutil
import subprocess

from packaging_support import BUILD, SOURCE, Installed, need, run

WANTED = """bin/costd bin/costinfer include/costinfer/costinfer.h include/costinfer/types.h
include/costinfer/costinfer.hpp
{lib}/libcostinfer.so {lib}/libcostinfer.so.0 {lib}/libcostinfer.a {lib}/pkgconfig/libcostinfer.pc
{lib}/cmake/costinfer/costinfer-config.cmake {lib}/cmake/costinfer/costinfer-config-version.cmake
lib/systemd/system/costd.service share/man/man1/costd.1 share/man/man1/costinfer.1
share/bash-completion/completions/costd share/bash-completion/completions/costinfer
share/costinfer/costd.json share/costinfer/models/stories-small/model.safetensors
share/costinfer/models/stories-large/model.safetensors share/costinfer/examples/README.md
share/doc/costinfer/LICENSE"""


def complete(prefix, line):
    """Returns the words that bash offers at the end of a command line."""
    words = line.split(" ")
    script = (f". {prefix}/share/bash-completion/completions/{words[0]}; COMP_WORDS=({line.rstrip()}"
              f"{' ' + repr('') if line.endswith(' ') else ''}); COMP_CWORD={len(words) - 1}; "
              f"compopt() {{ :; }}; _{words[0]}; echo ${{COMPREPLY[@]}}")
    return run("bash", "-c", script).split()


with Installed() as here:
    lib = here.lib.relative_to(here.prefix)
    for name in WANTED.format(lib=lib).split():
        assert (here.prefix / name).exists(), f"{name} is not installed"

    text = run(here.prefix / "bin/costinfer", "run", "--model", here.models / "stories-small", "--prompt",
               "Once upon a time", "--max-tokens", "8")
    assert text.startswith(" there"), text
    settings = json.loads((here.prefix / "share/costinfer/costd.json").read_text())
    assert settings["models"]["stories-small"] == str(here.models / "stories-small")
    out = run(here.prefix / "bin/costd", "--config", here.prefix / "share/costinfer/costd.json", "--check-config")
    assert "2 models" in out, out

    # The installed tree can be moved as a whole.
    moved = here.root / "moved"
    shutil.copytree(here.prefix, moved, symlinks=True)
    env = here.env(PKG_CONFIG_PATH=str(moved / lib / "pkgconfig"))
    assert str(moved) in run("pkg-config", "--variable=prefix", "libcostinfer", env=env)

    # Installed files must not contain paths of this machine's source tree.
    for path in here.prefix.rglob("*"):
        if path.suffix in (".pc", ".cmake", ".service", ".json", ".h", ".hpp") and path.is_file():
            assert str(SOURCE) not in path.read_text(), f"{path} names the source tree"

    run(SOURCE / "scripts/make_man.py", here.prefix / "bin", "--check")
    if shutil.which("mandoc"):
        for page in (here.prefix / "share/man/man1").iterdir():
            # mandoc exits with 0 only if it has no warning.
            assert run("mandoc", "-Tlint", page) == "", page

    assert complete(here.prefix, "costinfer r") == ["run"]
    assert "--temperature" in complete(here.prefix, "costinfer run --t")
    assert "--listen" in complete(here.prefix, "costd --l")
    assert complete(here.prefix, "costd --basis ") == ["wall", "cpu"]

    unit = here.prefix / "lib/systemd/system/costd.service"
    assert f"ExecStart={here.prefix}/bin/costd --config {here.prefix}/etc/costd.json\n" in unit.read_text()
    assert "SystemCallFilter=@system-service\n" in unit.read_text()
    if shutil.which("systemd-analyze"):
        run("systemd-analyze", "verify", "--man=no", unit)
        security = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit],
                                  capture_output=True, text=True)
        if "Unknown option" not in security.stderr and "unrecognized" not in security.stderr:
            assert security.returncode == 0, security.stdout + security.stderr
            print(re.sub(r"\x1b\[[0-9;]*m", "", security.stdout.strip().splitlines()[-1]))
print("the installed tree is complete")
