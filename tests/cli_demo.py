#!/usr/bin/env python3
"""Runs the demonstration for a short time; the program itself checks that everything adds up."""

import os
import re
import subprocess
import sys

from cli_support import SOURCE

COSTD = os.path.join(os.environ["CINF_BUILD"], "bin", "costd")
if not os.path.exists(COSTD):
    print(f"skipped: {COSTD} was not built")
    sys.exit(77)
done = subprocess.run([sys.executable, os.path.join(SOURCE, "scripts", "demo_traffic.py"), "--seconds", "2",
                       "--costd", COSTD], capture_output=True, text=True, timeout=300)
print(done.stdout, done.stderr)
assert done.returncode == 0
assert max(map(len, done.stdout.splitlines())) <= 100
shares = re.findall(r"^stories-\w+ .* ([\d.]+)%$", done.stdout, re.M)
assert len(shares) == 2 and abs(sum(map(float, shares)) - 100) < 0.2 and float(shares[0]) > 50, shares
both = re.findall(r"(?:serve \+ load \+ idle|= uptime x rate) +(\S+) s  (\S+)", done.stdout)
assert len(both) == 2 and both[0] == both[1], both
assert "= serve" in done.stdout and "IS NOT" not in done.stdout
