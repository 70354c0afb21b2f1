#!/usr/bin/env python3
"""Appends the output of `costinfer bench --json`, read from standard input, to bench/results/MACHINE.csv."""

import csv
import datetime
import json
import os
import re
import subprocess
import sys

HEAD = ["date", "commit", "model", "weights", "device", "threads", "figure", "value", "unit"]


def main():
    seen = json.load(sys.stdin)
    hardware = seen["device_description"].split(",")[0]
    machine = re.sub(r"[^a-z0-9]+", "-", f"{hardware} {seen['threads']} threads".lower()).strip("-")
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, machine + ".csv")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    same = [datetime.date.today().isoformat(), commit, seen["model"], seen["weights"], seen["device"],
            seen["threads"]]
    rows = [["load", seen["load_seconds"], "s"], ["resident", seen["resident_bytes"], "bytes"],
            ["machine_read", seen["machine_gb_per_second"], "GB/s"],
            ["machine_fma", seen["machine_gflop_per_second"], "GFLOP/s"],
            ["charge_32", seen["accounting"]["charge_32_ns"], "ns"]]
    if "tokenizer" in seen:
        rows.append(["tokenizer_encode", seen["tokenizer"]["encode_mb_per_second"], "MB/s"])
    for p in seen["prefill"]:
        rows.append([f"prefill_{p['tokens']}", p["tokens_per_second"], "tokens/s"])
        rows.append([f"prefill_{p['tokens']}_compute", p["gflop_per_second"], "GFLOP/s"])
    for d in seen["decode"]:
        rows.append([f"decode_{d['depth']}", d["tokens_per_second"], "tokens/s"])
        rows.append([f"decode_{d['depth']}_read", d["gb_per_second"], "GB/s"])
    rows += [[f"streams_{s['streams']}", s["tokens_per_second"], "tokens/s"] for s in seen["parallel"]]
    new = not os.path.exists(path)
    with open(path, "a", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        if new:
            out.writerow(HEAD)
        out.writerows(same + row for row in rows)
    for figure, value, unit in rows:
        print(f"{figure:<20} {value:>16} {unit}")
    print(f"-> {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
