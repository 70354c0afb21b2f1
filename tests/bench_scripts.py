#!/usr/bin/env python3
"""Tests of bench/: the tables that peers.py makes of the committed runs, and accuracy.py on a bundled model."""

import copy
import json
import math
import os
import subprocess
import sys
import tempfile

from cli_support import MODELS, PROGRAM, SOURCE, main

BENCH = os.path.join(SOURCE, "bench")
RAW = os.path.join(BENCH, "results", "cpu-2026-11-1.json")


def script(name, *arguments):
    done = subprocess.run([sys.executable, os.path.join(BENCH, name), *arguments], capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout, done.stderr


def tables(text):
    """{name of a row: its cells}, of each table in turn."""
    out, lines = [], text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""]):
        if after.startswith("|---"):
            out.append({})
        elif line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            out[-1][cells[0]] = cells[1:]
    return out


def reported(raw, *arguments):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(raw, file)
        file.flush()
        return script("peers.py", "report", file.name, *arguments)


def ours_and_theirs():
    """One round of the committed runs, ours and one peer's, marked as undisturbed."""
    with open(RAW, encoding="utf-8") as file:
        raw = json.load(file)
    first = raw["rounds"][0]
    raw["rounds"] = [{"type": first["type"], "runs": first["runs"][:2]}]
    for run in raw["rounds"][0]["runs"]:
        run["foreign"] = run["steal"] = 0
    return raw, raw["rounds"][0]["runs"]


def test_the_committed_runs_give_tables():
    status, text, error = script("peers.py", "report", RAW)
    assert status == 0, error
    speeds, ratios, shares = tables(text)
    with open(RAW, encoding="utf-8") as file:
        runs = [run for r in json.load(file)["rounds"] for run in r["runs"]]
    assert list(speeds) == [run["what"] for run in runs]
    for run in runs:
        assert speeds[run["what"]][2] == f"{run['figures']['decode_0']:.1f}", run
    assert len(ratios) == len(runs) - len(shares) and all(" : " in name for name in ratios)


def test_a_ratio_is_of_neighbours_and_a_median_of_rounds():
    raw, (ours, theirs) = ours_and_theirs()
    ours["figures"], theirs["figures"] = {"decode_0": 300.0}, {"decode_0": 100.0}
    rounds = [copy.deepcopy(raw["rounds"][0]) for _ in range(3)]
    for factor, r in zip((1, 4, 2), rounds):  # a slow round is slow for both
        for run in r["runs"]:
            run["figures"] = {"decode_0": run["figures"]["decode_0"] * factor}
    rounds[2]["runs"][1]["figures"]["decode_0"] = 400.0
    status, text, error = reported(raw | {"rounds": rounds})
    assert status == 0, error
    speeds, ratios, _ = tables(text)
    assert speeds[ours["what"]][2] == "600.0" and speeds[theirs["what"]][2] == "400.0", text
    assert ratios[f"{ours['what']} : {theirs['what']}"] == ["", "", "3.00 (1.50–3.00)", "", "", ""], text


def test_a_disturbed_run_is_left_out():
    raw, (ours, theirs) = ours_and_theirs()
    theirs["foreign"], theirs["steal"] = 0.15, 0.07
    status, text, error = reported(raw)
    assert status == 0 and "1 of 2 runs count" in text, (text, error)
    speeds, ratios, _ = tables(text)
    assert list(speeds) == [ours["what"]] and not ratios, text
    status, text, _ = reported(raw, "--foreign", "23")
    assert status == 0 and "2 of 2 runs count" in text and len(tables(text)[1]) == 1, text
    # Without our run there is no ratio, and without any run there is no table.
    ours["foreign"], theirs["foreign"], theirs["steal"] = 1, 0, 0
    status, text, _ = reported(raw)
    assert status == 0 and list(tables(text)[0]) == [theirs["what"]] and not tables(text)[1], text
    status, text, error = reported(raw, "--foreign", "-1")
    assert status == 1 and text == "" and "all of 2 runs were disturbed" in error, (text, error)


def test_a_file_without_runs_is_refused():
    for content in ("", "{", "[]", "7", "{}", '{"rounds": []}'):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(content)
            file.flush()
            status, text, error = script("peers.py", "report", RAW, file.name)
        assert (status, text, error.count("\n")) == (1, "", 1) and error.startswith(file.name), (content, error)
    status, _, error = script("peers.py", "report", "/nowhere.json")
    assert status == 1 and error.startswith("/nowhere.json: ") and "Traceback" not in error, error


def test_accuracy():
    with open(os.path.join(MODELS[0], "expected.json"), encoding="utf-8") as file:
        text = " ".join(case["prompt"] + case["text"] for case in json.load(file)["cases"])[:400]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        common = ["--costinfer", PROGRAM, "--windows", "1", "--weights", "int8"]
        status, table, error = script("accuracy.py", "--model", MODELS[0], *common, file.name)
        assert status == 0 and not error, error
        (rows,) = tables(table)
        assert list(rows) == ["f32", "int8"], table
        exact, lossy = float(rows["f32"][0]), [float(cell.rstrip("% ")) for cell in rows["int8"]]
        assert all(map(math.isfinite, lossy)) and 1 < exact < 100, table
        perplexity, change, worst, deviation, same = lossy
        assert abs(100 * (perplexity / exact - 1) - change) < 0.01, table
        assert 0 < worst < 1 and 0 < deviation < 10 and 90 < same <= 100, table
        for model in ("/nowhere", os.path.join(MODELS[0], "model.safetensors")):
            status, table, error = script("accuracy.py", "--model", model, *common, file.name)
            assert (status, table, error.count("\n")) == (1, "", 1) and model in error, (table, error)
    status, table, error = script("accuracy.py", "--model", MODELS[0], *common, "/nowhere.txt")
    assert (status, table, error.count("\n")) == (1, "", 1) and "/nowhere.txt" in error, (table, error)
    status, table, error = script("accuracy.py", "--model", MODELS[0], *common, "/dev/null")
    assert (status, table, error.count("\n")) == (1, "", 1) and "0 tokens" in error, (table, error)


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
