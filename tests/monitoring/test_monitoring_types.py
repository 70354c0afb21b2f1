#!/usr/bin/env python3
"""The dashboard against Grafana's own types: tsc and @grafana/schema, from npm; skipped where npm reaches nobody."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from monitoring_support import BUILD, DASHBOARD, check, skip

PACKAGES = ["@grafana/schema@13.2.3", "typescript@5.9.3"]
# Enums are given as their values: the JSON has literals.
HEAD = """import type { Dashboard } from '@grafana/schema';
type L<T> = T extends string ? `${T}` : T extends number ? (number extends T ? number :
    `${T}` extends `${infer N extends number}` ? N : T) : T extends (infer U)[] ? L<U>[] :
    T extends object ? { [K in keyof T]: L<T[K]> } : T;
export const d: L<Dashboard> = """
BROKEN = [  # what the compiler must refuse
    lambda d: {"dashboard": d},
    lambda d: d["panels"][1]["gridPos"].update(w="8") or d,
    lambda d: d["panels"][1]["fieldConfig"]["defaults"]["thresholds"].update(mode="relative") or d,
    lambda d: d["panels"][1].update(colour="red") or d,
]

if not shutil.which("npm"):
    skip("npm is absent")
folder = os.path.join(BUILD, "grafana-schema")
tsc = os.path.join(folder, "node_modules", ".bin", "tsc")
if not os.path.exists(tsc):
    os.makedirs(folder, exist_ok=True)
    run = subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts",
                          "--fetch-retries=1", *PACKAGES], capture_output=True, text=True)
    if run.returncode != 0:
        skip("npm could not install " + " ".join(PACKAGES) + ": " + run.stderr[-200:])


def compiles(dashboard):
    with tempfile.NamedTemporaryFile("w", suffix=".ts", dir=folder) as f:
        f.write(HEAD + json.dumps(dashboard) + ";\n")
        f.flush()
        run = subprocess.run([tsc, "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution",
                              "bundler", "--target", "es2022", f.name], capture_output=True, text=True, cwd=folder)
        return run.returncode == 0, run.stdout


def read():
    with open(DASHBOARD, encoding="utf-8") as f:
        return json.load(f)


good, said = compiles(read())
check(good, said[:3000])
for i, damage in enumerate(BROKEN):
    good, _ = compiles(damage(read()))
    check(not good, "the compiler takes damage", i)
print(f"the dashboard has the types of {PACKAGES[0]}; {len(BROKEN)} damaged ones have not")
