#!/usr/bin/env python3
"""OpenAI's client for Node against costd: installs it, starts the daemons, runs openai_node.mjs.

    tests/peers/openai_node.py

Without CINF_BUILD costd is taken from build/."""
import hashlib
import os
import shutil
import subprocess

from peers_support import SOURCE, from_npm

from costd_support import TWO, Costd, equal

CLIENT = "openai@6.49.0"  # the last major version for Node 20; it needs no other package
PRICES = ["--cpu-cost-per-hour", "0.10"]

folder = from_npm("openai-node", CLIENT)
# A module finds its packages beside itself.
shutil.copy(os.path.join(SOURCE, "tests", "peers", "openai_node.mjs"), folder)
keys = os.path.join(folder, "keys")
with open(keys, "w") as file:
    file.write("tester %s\n" % hashlib.sha256(b"secret-key").hexdigest())
os.chmod(keys, 0o600)
with Costd(*TWO, *PRICES) as main, Costd(*TWO, "--keys", keys) as keyed, Costd(*TWO, "--drain-seconds", "60") as drained, \
        Costd("--model", TWO[3], "--queue", "1", "--kv-memory", "7M") as narrow:
    equal(narrow.get("/v1/models/large").json["meta"]["slots"], 1)
    names = {name: "http://127.0.0.1:%d" % costd.port
             for name, costd in (("MAIN", main), ("KEYED", keyed), ("NARROW", narrow), ("DRAINED", drained))}
    ran = subprocess.run(["node", "openai_node.mjs"], cwd=folder, timeout=300, check=False,
                         env={**os.environ, **names, "DRAINED_PID": str(drained.process.pid)})
    equal(ran.returncode, 0, "node's exit status")
    drained.ended(0)
