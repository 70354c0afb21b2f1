"""Functions that the packaging tests share: an installed prefix, a fresh folder, and commands that must succeed.

Each test installs the library from CINF_BUILD into a separate folder; no search path contains the source tree."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2])).resolve()
BUILD = pathlib.Path(os.environ.get("CINF_BUILD", SOURCE / "build")).resolve()


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            skip(f"{program} is not installed (scripts/setup.sh --all)")


def run(*command, cwd=None, env=None, ok=(0,), quiet=True, stderr=False):
    """Runs a command, which must exit with one of `ok`; returns its standard output, with `stderr` its errors too."""
    command = [str(c) for c in command]
    result = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True)
    if result.returncode not in ok:
        said = f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{said}")
    if not quiet:
        print(result.stdout, end="")
    return result.stdout + (result.stderr if stderr else "")


def copy_sources(target):
    """Copies the files that git tracks or would add, as they are in the tree."""
    listed = run("git", "-c", f"safe.directory={SOURCE}", "-C", SOURCE, "ls-files", "-co", "--exclude-standard")
    for name in listed.splitlines():
        if (SOURCE / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SOURCE / name, target / name)


class Installed:
    """A temporary folder with `prefix` and `work`, removed at the end."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="costinfer-")
        self.root = pathlib.Path(self.folder.name)
        self.prefix, self.work = self.root / "prefix", self.root / "work"
        self.work.mkdir()
        self.install(self.prefix)
        self.models = self.prefix / "share/costinfer/models"
        return self

    def __exit__(self, *what):
        self.folder.cleanup()

    def install(self, prefix):
        run("cmake", "--install", BUILD, "--prefix", prefix)

    @property
    def lib(self):
        return next(self.prefix.rglob("libcostinfer.so")).parent

    def env(self, **more):
        """The environment of a user of the prefix."""
        return {**os.environ, "PKG_CONFIG_PATH": str(self.lib / "pkgconfig"), "LD_LIBRARY_PATH": str(self.lib),
                "CMAKE_PREFIX_PATH": str(self.prefix), "PATH": f"{self.prefix / 'bin'}:{os.environ['PATH']}",
                "OPENBLAS_NUM_THREADS": "1", **more}

    def go_binding(self):
        """A copy of the Go binding.  Go keeps what it built, with the flags that pkg-config gave for another
        prefix; a file that names this one makes it build anew."""
        tree = self.root / "go"
        shutil.copytree(SOURCE / "bindings/go", tree)
        (tree / "prefix.go").write_text(f"package costinfer\n\n// Built for {self.prefix}.\n")
        return tree
