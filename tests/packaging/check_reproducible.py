"""Two copies of the sources, in folders of different names and lengths, install the same bytes.

ccache is off: it could give both builds the same object.  The installed debug information and the static library
are compared, too."""
import filecmp
import os
import pathlib
import subprocess
import sys
import tempfile

from packaging_support import copy_sources, need, run

TARGETS = ("costinfer", "costinfer_static", "app_costd", "app_costinfer")
ENV = {**os.environ, "CCACHE_DISABLE": "1"}


def build(sources, folder, root):
    """Installs into `root` what the sources give, for the prefix /usr."""
    copy_sources(sources)
    run("cmake", "-S", sources, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCINF_TESTS=OFF",
        "-DCMAKE_INSTALL_PREFIX=/usr", env=ENV)
    run("cmake", "--build", folder, "--target", *TARGETS, env=ENV)
    run("cmake", "--install", folder, env={**ENV, "DESTDIR": str(root)})


def files(root):
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}


need("git", "cmake", "ninja", "readelf")
with tempfile.TemporaryDirectory(prefix="costinfer-") as name:
    top = pathlib.Path(name)
    build(top / "a", top / "a/build", top / "root-a")
    # The second one is built outside its sources.
    build(top / "another/and longer", top / "elsewhere/out", top / "root-b")
    first, second = files(top / "root-a"), files(top / "root-b")
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    different = [path for path in first if not filecmp.cmp(first[path], second[path], shallow=False)]
    if different:
        for path in different:
            print(f"{path} differs between two folders", file=sys.stderr)
        sys.exit(1)
    # What is installed finds its libraries by the system's rules alone.
    for path in first.values():
        if path.read_bytes()[:4] == b"\x7fELF":
            dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True).stdout
            assert "RUNPATH" not in dynamic and "RPATH" not in dynamic, path
    size = sum(path.stat().st_size for path in first.values())
    print(f"{len(first)} files, {size / 1e6:.1f} MB, the same in both")
