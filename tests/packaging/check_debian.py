"""Runs dpkg-buildpackage in a clean copy: four packages, without a lintian error.  As root on a machine that has none
of them, it then installs them, uses them (C with pkg-config, costd, Python) and purges them without a trace."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from packaging_support import SOURCE, copy_sources, need, run

NAMES = ["libcostinfer0", "libcostinfer-dev", "costd", "python3-costinfer"]


def use(work):
    run("gcc", SOURCE / "examples/01_hello.c", "-o", work / "hello",
        *run("pkg-config", "--cflags", "--libs", "libcostinfer").split())
    models = pathlib.Path("/usr/share/costinfer/models")
    assert "girl named Clara" in run(work / "hello", models / "stories-small")
    assert "2 models" in run("/usr/bin/costd", "--config", "/etc/costd.json", "--check-config")
    out = run("/usr/bin/python3", "-c", "import costinfer as c\nwith c.Engine() as e: print(e.load("
              f"'{models}/stories-small').generate('Once upon a time', max_tokens=6).text)", cwd=work)
    assert out == " there was a little girl named\n", out
    process = subprocess.Popen(["/usr/bin/costd", "--listen", "127.0.0.1:0", "--model",
                                f"small={models / 'stories-small'}"], stderr=subprocess.PIPE, text=True)
    try:
        assert any(json.loads(line)["event"] == "ready" for line in process.stderr)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
    run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/costd.service")


def left_behind():
    found = []
    for folder in ("/usr/bin", "/usr/include", "/usr/lib", "/usr/share", "/etc", "/lib/systemd/system"):
        for base, folders, files in os.walk(folder):
            found += [os.path.join(base, n) for n in folders + files if n.startswith(("costinfer", "libcostinfer",
                                                                                      "costd"))]
    return found


# A test that a time limit ends still purges what it has installed.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))

need("dpkg-buildpackage", "dh", "lintian", "fakeroot", "pkg-config")
with tempfile.TemporaryDirectory(prefix="costinfer-deb-") as name:
    root = pathlib.Path(name)
    tree = root / "costinfer-0.1.0"
    copy_sources(tree)
    # The build sees only the system's tools, not the tester's own.
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(root), "LC_ALL": "C.UTF-8",
           "DEB_BUILD_OPTIONS": f"noautodbgsym parallel={os.cpu_count()}"}
    run("dpkg-buildpackage", "-us", "-uc", cwd=tree, env=env)
    debs = {p.name.split("_")[0]: p for p in root.glob("*.deb")}
    assert sorted(debs) == sorted(NAMES), sorted(debs)
    (changes,) = root.glob("*.changes")
    report = run("lintian", "--fail-on", "error", "--allow-root", changes, ok=(0,))
    print("lintian:", sum(line.startswith("W:") for line in report.splitlines()), "warnings, no error")
    print("\n".join(line for line in report.splitlines() if line.startswith("W:")))

    installed = subprocess.run(["dpkg-query", "-W", *NAMES], capture_output=True, text=True).stdout
    if os.geteuid() != 0 or installed.strip() or left_behind():
        print("not installed: that takes root, and a machine without these packages")
    else:
        try:
            run("dpkg", "-i", *(debs[n] for n in NAMES))
            use(root)
        finally:
            run("dpkg", "--purge", *reversed(NAMES))
        assert left_behind() == [], left_behind()
        print("installed, used and purged")
