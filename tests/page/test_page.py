"""The built-in page in a headless Chromium: check_page.mjs, with its two packages installed below the build folder.

Screenshots of every width, theme and state are left in build/page/shots, to be looked at."""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.get("CINF_SOURCE", os.path.join(HERE, "..", ".."))
BUILD = os.environ.get("CINF_BUILD", os.path.join(SOURCE, "build"))
WORK = os.path.join(BUILD, "page")


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


browser = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
if not browser:
    skip("no chromium is installed")
if not shutil.which("node") or not shutil.which("npm"):
    skip("node and npm are not installed")
os.makedirs(os.path.join(WORK, "shots"), exist_ok=True)
for name in ("package.json", "check_page.mjs", "harness.mjs", "synthetic_day.mjs"):
    shutil.copy(os.path.join(HERE, name), WORK)
if not os.path.isdir(os.path.join(WORK, "node_modules", "axe-core")):
    install = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=WORK,
                             capture_output=True, text=True, timeout=300)
    if install.returncode:
        skip("npm cannot install playwright-core and axe-core: " + install.stderr.strip()[-200:])
sys.exit(subprocess.run(["node", "check_page.mjs", os.path.join(BUILD, "bin", "costd"),
                         os.path.join(SOURCE, "examples", "models"), browser], cwd=WORK, timeout=540).returncode)
