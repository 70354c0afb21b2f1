#!/usr/bin/env python3
"""OpenAI's client for Node against costd: installs it, starts the daemons, runs openai_node.mjs.

    tests/peers/openai_node.py

Without CINF_BUILD costd is taken from build/."""
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(os.path.dirname(HERE)))
BUILD = os.environ.setdefault("CINF_BUILD", os.path.join(SOURCE, "build"))
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
from costd_support import TWO, Costd, equal, skip  # noqa: E402

CLIENT = "openai@6.49.0"  # the last major version for Node 20; it needs no other package
FOLDER = os.path.join(BUILD, "openai-node")
PRICES = ["--cpu-cost-per-hour", "0.10"]

if not shutil.which("node") or not shutil.which("npm"):
    skip("node and npm are not installed")
stamp = os.path.join(FOLDER, CLIENT)
if not os.path.exists(stamp):
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    made = subprocess.run(["npm", "install", "--prefix", FOLDER, "--no-audit", "--no-fund", "--ignore-scripts",
                           "--loglevel", "error", CLIENT], check=False)
    if made.returncode != 0:
        skip("npm cannot install " + CLIENT)
    open(stamp, "w").close()
# A module finds its packages beside itself.
shutil.copy(os.path.join(HERE, "openai_node.mjs"), FOLDER)
keys = os.path.join(FOLDER, "keys")
with open(keys, "w") as file:
    file.write("tester %s\n" % hashlib.sha256(b"secret-key").hexdigest())
os.chmod(keys, 0o600)
with Costd(*TWO, *PRICES) as main, Costd(*TWO, "--keys", keys) as keyed, Costd(*TWO, "--drain-seconds", "60") as drained, \
        Costd("--model", TWO[3], "--queue", "1", "--kv-memory", "7M") as narrow:
    equal(narrow.get("/v1/models/large").json["meta"]["slots"], 1)
    names = {name: "http://127.0.0.1:%d" % costd.port
             for name, costd in (("MAIN", main), ("KEYED", keyed), ("NARROW", narrow), ("DRAINED", drained))}
    ran = subprocess.run(["node", "openai_node.mjs"], cwd=FOLDER, timeout=300, check=False,
                         env={**os.environ, **names, "DRAINED_PID": str(drained.process.pid)})
    equal(ran.returncode, 0, "node's exit status")
    drained.ended(0)
