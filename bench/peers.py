#!/usr/bin/env python3
"""Runs costinfer bench and the installed peers alternately, and prints their speeds and the ratios.

    bench/peers.py run RAW.json --model FOLDER [--costinfer BIN] [--llama-bench BIN] [--llama-batched-bench BIN]
                   [--python PYTHON] [--types f32,f16,int8] [--kv auto|f32|f16] [--only PROGRAMS] [--threads N]
                   [--rounds N] [--runs N] [--tokens N]
    bench/peers.py report [--foreign PERCENT] RAW.json ...      Markdown, from one or several of them

bench/peers_model.py writes FOLDER.  A missing peer is left out: llama.cpp if either of its programs is not given, the
Python packages (onnxruntime, ctranslate2, transformers) if PYTHON is not given or does not have them.

Decoding is greedy.  If possible, costinfer finds the most likely token without computing all logits.  A second run asks
for log-probabilities, which need them all ("all logits"), as every peer computes them.  With f16 weights a third run
stores keys and values in f16, as llama.cpp always does ("f16 cache").

A round runs costinfer and then each peer of a weights type; every second round reverses the order, so that a ratio
compares runs that are close in time.  A report has the median, the least and the greatest value over the rounds.  Each
run records the share of the processors that other processes (foreign) and other virtual machines (steal) used; a report
leaves out runs that were disturbed by more than PERCENT (20), and their ratios.  Speeds are in the time that the caller
waits.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FIGURES = ["prefill_128", "prefill_512", "decode_0", "decode_512", "streams_8", "streams_32"]
TITLES = {
    "prefill_128": "prompt of 128",
    "prefill_512": "prompt of 512",
    "decode_0": "decode",
    "decode_512": "decode, 512 before",
    "streams_8": "8 streams",
    "streams_32": "32 streams",
}
PEERS = {
    "f32": ["llama.cpp f32", "onnxruntime f32", "ctranslate2 float32", "transformers f32"],
    "f16": ["llama.cpp f16"],
    "bf16": [],
    "int8": ["llama.cpp q8_0", "ctranslate2 int8"],
    "int4": ["llama.cpp q4_0"],
}


def output_of(command, environment=None):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}))
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def run_costinfer(args, kind, kv, options):
    seen = json.loads(
        output_of(
            [
                args.costinfer,
                "bench",
                "--model",
                os.path.join(args.model, "gpt2"),
                "--json",
                "--weights",
                kind,
                "--kv",
                kv,
                "--threads",
                str(args.threads),
                "--runs",
                str(args.runs),
                "--tokens",
                str(args.tokens),
                *options,
            ]
        )
    )
    rates = {f"prefill_{p['tokens']}": p["tokens_per_second"] for p in seen["prefill"]}
    rates |= {f"decode_{d['depth']}": d["tokens_per_second"] for d in seen["decode"]}
    rates |= {f"streams_{s['streams']}": s["tokens_per_second"] for s in seen["parallel"]}
    return {"figures": rates, "bench": seen}


def run_llama(args, kind):
    """Runs llama.cpp with the settings that were fastest here; PERFORMANCE.md lists those that were tried."""
    path = os.path.join(args.model, "gguf", f"gpt2-{kind}.gguf")
    common = ["-m", path, "-t", str(args.threads), "-fa", args.flash_attention]
    bench = [args.llama_bench, *common, "-lm", "none", "-r", str(args.runs), "-o", "json"]
    rates = {}
    for extra in (["-p", "128,512", "-n", "0"], ["-p", "0", "-n", str(args.tokens), "-d", "0,512"]):
        for row in json.loads(output_of(bench + extra)):
            name = f"prefill_{row['n_prompt']}" if row["n_prompt"] else f"decode_{row['n_depth']}"
            rates[name] = statistics.median(row["samples_ts"])
            version = row["build_commit"]
    batched = output_of(
        [
            args.llama_batched_bench,
            *common,
            "-no-kvu",
            "-c",
            "2048",
            "-npp",
            "1",
            "-ntg",
            str(args.tokens),
            "-npl",
            ",".join(["8"] * args.runs + ["32"] * args.runs),
            "--output-format",
            "jsonl",
        ]
    )
    rows = [json.loads(line) for line in batched.splitlines() if line.startswith("{")]
    for streams in (8, 32):
        rates[f"streams_{streams}"] = statistics.median(r["speed_tg"] for r in rows if r["pl"] == streams)
    return {"figures": rates, "version": version}


def run_python(args, peer, kind):
    model = {"onnxruntime": "gpt2.onnx", "ctranslate2": "ct2-float32", "transformers": "gpt2"}[peer]
    name = f"{peer}-{kind}" if peer == "ctranslate2" else peer
    return json.loads(
        output_of(
            [
                args.python,
                os.path.join(HERE, "peers_python.py"),
                name,
                os.path.join(args.model, model),
                "--threads",
                str(args.threads),
                "--runs",
                str(args.runs),
                "--tokens",
                str(args.tokens),
            ],
            {"OMP_NUM_THREADS": str(args.threads)},
        )
    )


def available(args, peer):
    program, _, _ = peer.partition(" ")
    if program == "llama.cpp":
        return bool(args.llama_bench and args.llama_batched_bench)
    return (
        bool(args.python)
        and subprocess.run([args.python, "-c", f"import {program}"], capture_output=True).returncode == 0
    )


def cpu_seconds():
    """Returns seconds since the start of the machine, all processors busy and stolen, and those of our children."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    hertz = os.sysconf("SC_CLK_TCK")
    busy = sum(ticks) - ticks[3] - ticks[4] - ticks[7]
    return busy / hertz, ticks[7] / hertz, own.ru_utime + own.ru_stime


def wait_for_quiet(patience):
    """Waits until other processes leave the processors idle for a second, or `patience` seconds have passed."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        busy, steal, _ = cpu_seconds()
        time.sleep(1)
        after = cpu_seconds()
        if after[0] - busy + after[1] - steal < 0.05 * os.cpu_count():
            return


def measured(what, call, patience):
    wait_for_quiet(patience)
    before, start = cpu_seconds(), time.monotonic()
    seen = call()
    seconds, after = time.monotonic() - start, cpu_seconds()
    busy, steal, own = (b - a for a, b in zip(before, after))
    room = seconds * os.cpu_count()
    seen |= {
        "what": what,
        "seconds": seconds,
        "foreign": max(0, (busy - own) / room),
        "steal": steal / room,
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    rates = "  ".join(f"{seen['figures'].get(name, 0):8.1f}" for name in FIGURES)
    print(
        f"{what:<22} {rates}   foreign {100 * seen['foreign']:.0f} %, steal {100 * seen['steal']:.0f} %", flush=True
    )
    return seen


def run(args):
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")
    raw = {
        "commit": args.commit or commit.stdout.strip(),
        "processor": processor,
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "threads": args.threads,
        "runs": args.runs,
        "tokens": args.tokens,
        "rounds": [],
    }
    types = args.types.split(",")
    peers = {peer: available(args, peer) for kind in types for peer in PEERS[kind]}
    print("left out:", ", ".join(peer for peer, there in peers.items() if not there) or "none")
    print(f"{'':<22} " + "  ".join(f"{name:>8}"[-11:] for name in FIGURES))
    for number in range(args.rounds):
        for kind in types:
            ours = f"costinfer {kind}" + (f", kv {args.kv}" if args.kv != "auto" else "")
            jobs = [(ours, lambda k=kind: run_costinfer(args, k, args.kv, []))]
            if kind in ("f32", "f16", "bf16"):
                jobs.append(
                    (f"{ours}, all logits", lambda k=kind: run_costinfer(args, k, args.kv, ["--logprobs"]))
                )
            if kind == "f16" and args.kv == "auto":
                jobs.append((f"{ours}, f16 cache", lambda k=kind: run_costinfer(args, k, "f16", [])))
            for peer in PEERS[kind]:
                program, _, form = peer.partition(" ")
                if not peers[peer] or (args.only and program not in args.only.split(",")):
                    continue
                how = run_llama if program == "llama.cpp" else lambda a, f, p=program: run_python(a, p, f)
                jobs.append((peer, lambda how=how, form=form: how(args, form)))
            runs = [measured(what, call, args.patience) for what, call in jobs[:: -1 if number % 2 else 1]]
            raw["rounds"].append({"type": kind, "runs": runs})
            with open(args.raw, "w", encoding="utf-8") as file:
                json.dump(raw, file, indent=1)
    report([args.raw], limit=100)


def spread(values, form):
    middle, low, high = (form.format(v) for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def read_raw(path):
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    if not isinstance(raw, dict) or not raw.get("rounds"):
        sys.exit(f"{path}: the file has no rounds; expected a file that peers.py run wrote")
    return raw


def report(paths, limit=20):
    raws = [read_raw(path) for path in paths]
    rounds = [r | {"commit": raw["commit"]} for raw in raws for r in raw["rounds"]]
    all_runs = sorted((run for r in rounds for run in r["runs"]), key=lambda run: run["at"])
    quiet = [run for run in all_runs if 100 * (run["foreign"] + run["steal"]) <= limit]
    speeds, ratios, versions = {}, {}, {}
    for r in rounds:
        ours = [run for run in r["runs"] if "bench" in run and run in quiet]
        for run in r["runs"]:
            if run not in quiet:
                continue
            versions.setdefault(run["what"].split(" ")[0], {})[run.get("version", r["commit"])] = True
            for name in FIGURES:
                rate = run["figures"].get(name)
                if rate:
                    speeds.setdefault(run["what"], {}).setdefault(name, []).append(rate)
                    for our in ours if "bench" not in run else []:
                        if our["figures"].get(name):
                            ratios.setdefault((our["what"], run["what"]), {}).setdefault(name, []).append(
                                our["figures"][name] / rate
                            )
    first = raws[0]
    if not quiet:
        sys.exit(f"all of {len(all_runs)} runs were disturbed by more than {limit} %")
    print(
        f"\n{first['processor']}, {first['processors']} processors, {first['threads']} threads; {len(rounds)} rounds "
        f"from {all_runs[0]['at']} to {all_runs[-1]['at']}; "
        + ", ".join(f"{name} {' and '.join(those)}" for name, those in versions.items())
    )
    print(
        f"{len(quiet)} of {len(all_runs)} runs count: the others were disturbed by more than {limit} %.  "
        f"During those that count, foreign processes took {spread([100 * e['foreign'] for e in quiet], '{:.0f}')} % "
        f"of the processors, other virtual machines {spread([100 * e['steal'] for e in quiet], '{:.0f}')} %."
    )
    head = "| | " + " | ".join(TITLES[name] for name in FIGURES) + " |\n|---" + "|---" * len(FIGURES) + "|"
    print("\nTokens a second, medians of the rounds:\n\n" + head)
    for what, figures in speeds.items():
        print(
            f"| {what} | "
            + " | ".join(f"{statistics.median(figures[n]):.1f}" if n in figures else "" for n in FIGURES)
            + " |"
        )
    print("\nHow many times as fast costinfer is, medians of the rounds' ratios (least–greatest):\n\n" + head)
    for (ours, what), figures in ratios.items():
        print(
            f"| {ours} : {what} | "
            + " | ".join(spread(figures[n], "{:.2f}") if n in figures else "" for n in FIGURES)
            + " |"
        )
    print(
        "\nShares of the machine's best speed in the same run (reading memory; float32 multiply-adds):\n\n"
        "| | decode | decode, 512 before | prompt of 512 | machine GB/s | machine GFLOP/s |\n|---|---|---|---|---|---|"
    )
    for ours in dict.fromkeys(run["what"] for run in quiet if "bench" in run):
        seen = [run["bench"] for run in quiet if run["what"] == ours]
        decode = [
            [100 * d["bandwidth_share"] for s in seen for d in s["decode"] if d["depth"] == depth]
            for depth in (0, 512)
        ]
        prefill = [100 * p["peak_share"] for s in seen for p in s["prefill"] if p["tokens"] == 512]
        print(
            f"| {ours} | {spread(decode[0], '{:.0f}')} % | {spread(decode[1], '{:.0f}')} % | "
            f"{spread(prefill, '{:.0f}')} % | {spread([s['machine_gb_per_second'] for s in seen], '{:.1f}')} | "
            f"{spread([s['machine_gflop_per_second'] for s in seen], '{:.0f}')} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("raw")
    runner.add_argument("--model", required=True)
    runner.add_argument("--costinfer", default=os.path.join(HERE, "..", "build", "bin", "costinfer"))
    runner.add_argument("--commit", help="the commit that costinfer was built from (default: that of this tree)")
    runner.add_argument("--llama-bench")
    runner.add_argument("--llama-batched-bench")
    runner.add_argument("--flash-attention", default="on", choices=["on", "off"], help="llama.cpp's (default on)")
    runner.add_argument("--python", help="an interpreter that has onnxruntime, ctranslate2 or transformers")
    runner.add_argument("--types", default="f32,f16,int8")
    runner.add_argument(
        "--kv", default="auto", choices=["auto", "f32", "f16"], help="how costinfer stores keys and values"
    )
    runner.add_argument("--only", help="programs to compare with, separated by commas (default: all installed ones)")
    runner.add_argument("--threads", type=int, default=os.cpu_count())
    runner.add_argument("--rounds", type=int, default=3)
    runner.add_argument("--runs", type=int, default=3, help="measurements in a run, of which the median counts")
    runner.add_argument(
        "--patience", type=float, default=30, help="seconds to wait before a run for other processes to be idle (30)"
    )
    runner.add_argument("--tokens", type=int, default=32, help="decoded in a measurement")
    reporter = commands.add_parser("report")
    reporter.add_argument("raw", nargs="+")
    reporter.add_argument("--foreign", type=float, default=20, metavar="PERCENT")
    args = parser.parse_args()
    if args.command == "run":
        run(args)
    else:
        report(args.raw, args.foreign)


if __name__ == "__main__":
    main()
