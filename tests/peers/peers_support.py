"""What the tests against other people's programs share: where the tree is, and how those programs come into the
build folder, where they stay."""
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.setdefault("CINF_BUILD", os.path.join(SOURCE, "build"))
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
sys.path.insert(0, os.path.join(SOURCE, "tests"))


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def enter_venv(needed, **environment):
    """Goes on only in the Python that has the peers, which is made first if need be; elsewhere this script is run
    again with it.  Skips where `needed`, a file of the build, is not there."""
    venv = os.path.join(BUILD, "peers-venv")
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return
    if not os.path.exists(needed):
        skip(f"{needed} was not built")
    made = subprocess.run([os.path.join(SOURCE, "scripts", "peers_venv.sh"), venv], check=False)
    if made.returncode != 0:
        sys.exit(made.returncode)
    with tempfile.TemporaryDirectory() as home:
        # Nothing is looked up on the net, and nothing is left in the user's cache.
        offline = {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
                   "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
        again = [os.path.join(venv, "bin", "python"), os.path.abspath(sys.argv[0]), *sys.argv[1:]]
        sys.exit(subprocess.run(again, env={**os.environ, **offline, **environment}, check=False).returncode)


def from_npm(name, package):
    """The folder `name` of the build with a package in it, which is installed once; skips where it cannot be."""
    if not shutil.which("node") or not shutil.which("npm"):
        skip("node and npm are not installed")
    folder = os.path.join(BUILD, name)
    stamp = os.path.join(folder, package.replace("/", "-"))
    if not os.path.exists(stamp):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        made = subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts",
                               "--loglevel", "error", package], check=False)
        if made.returncode != 0:
            skip("npm cannot install " + package)
        open(stamp, "w").close()
    return folder
