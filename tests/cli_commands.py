#!/usr/bin/env python3
"""Every command of costinfer on the demo models: what it prints, and its exit status."""

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
from array import array
from fractions import Fraction

from cli_support import GOLDEN, MODELS, PROGRAM, SOURCE, expected, good, main, parsed, refused, run

COMMANDS = ["inspect", "tokenize", "run", "logits", "perplexity", "bench", "devices", "costs", "ledger"]
SMALL, LARGE = MODELS
PLAIN = ["--device", "cpu-reference"]  # for tests that do not depend on the device, because it opens four times as fast


def ids_text(ids):
    return ",".join(str(i) for i in ids)


def floats(path):
    values = array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values


def test_help():
    overview = good("--help").decode()
    for command in COMMANDS:
        assert command in overview
        manual = good(command, "--help").decode()
        assert manual.startswith(f"costinfer {command} - ") and "Exit status" in manual
        assert max(map(len, manual.splitlines())) <= 100
    assert good("--version").startswith(b"costinfer 0.")


def test_usage_errors():
    assert run()[0] == 2
    refused(2, ["frobnicate"], "frobnicate")
    refused(2, ["--frob"], "inspect", "--frob", "x")
    refused(2, ["unknown flag -j"], "inspect", "-j", "x")
    refused(2, ["PATH is missing"], "inspect")
    refused(2, ["unexpected argument", "two"], "inspect", "one", "two")
    refused(2, ["--json takes no value"], "inspect", "--json=1", "x")
    for command in ("tokenize", "run", "logits"):
        refused(2, ["--model"], command)
    refused(2, ["--model needs a value"], "run", "--model")
    refused(2, ["--prompt"], "run", "--model", SMALL)
    refused(2, ["exactly one"], "run", "--model", SMALL, "--prompt", "a", "--prompt-tokens", "1")
    for flag, value in [
        ("--max-tokens", "0"), ("--max-tokens", "-1"), ("--max-tokens", "ten"), ("--max-tokens", "1e3"),
        ("--max-tokens", "18446744073709551617"), ("--temperature", "-0.1"), ("--temperature", "nan"),
        ("--temperature", "x"), ("--top-p", "1.5"), ("--typical-p", "1.5"), ("--seed", "x"),
        ("--seed", "18446744073709551616"),
        ("--prompt-tokens", "1,,2"), ("--prompt-tokens", "1,"), ("--prompt-tokens", "a"),
        ("--prompt-tokens", "-1"), ("--prompt-tokens", "4294967296"), ("--cost-per-hour", "free"),
        ("--cost-per-hour", "-1"), ("--price", "1.0000000001"), ("--weights", "f8"), ("--threads", "100000"),
    ]:
        refused(2, [flag], "run", "--model", SMALL, flag, value)
    refused(2, ["--stop"], "run", "--model", SMALL, *["--stop=x"] * 17)
    refused(2, ["--model and --shape"], "bench", "--model", SMALL, "--shape", "gpt2")


def test_failures():
    refused(1, ["/nowhere"], "run", "--model", "/nowhere", "--prompt", "x", *PLAIN)
    refused(1, ["gpt3"], "bench", "--shape", "gpt3", *PLAIN)
    refused(1, ["abacus"], "run", "--model", SMALL, "--prompt", "x", "--device", "abacus")
    refused(1, ["256"], "run", "--model", SMALL, "--prompt-tokens", ids_text(range(257)), *PLAIN)
    refused(1, ["2048"], "run", "--model", SMALL, "--prompt-tokens", "2048", *PLAIN)
    refused(1, ["256"], "logits", "--model", SMALL, "--tokens", ids_text(range(257)), "--out", "/dev/null", *PLAIN)
    refused(1, ["/nowhere/x"], "logits", "--model", SMALL, "--tokens", "1", "--out", "/nowhere/x", *PLAIN)
    refused(1, ["none to score"], "perplexity", "--model", SMALL, "/dev/null", *PLAIN)
    scoring = ["perplexity", "--model", SMALL, "-", *PLAIN]
    refused(1, ["--stride"], *scoring, "--window", "8", "--stride", "9", given=b"a b")
    refused(1, ["--window"], *scoring, "--window", "257", given=b"a b")
    refused(1, ["99999"], "tokenize", "--model", SMALL, "--detokenize", given=b"[99999]")
    refused(1, ["list of ids"], "tokenize", "--model", SMALL, "--detokenize", given=b"[1, two]")
    status, _, error = run("inspect", SMALL)
    full = subprocess.run(f"'{PROGRAM}' inspect '{SMALL}' > /dev/full", shell=True, capture_output=True)
    assert (status, full.returncode) == (0, 1) and b"standard output" in full.stderr, full.stderr


def test_inspect():
    for model, tensors, elements, width in ((SMALL, 52, 1088256, 128), (LARGE, 76, 5328896, 256)):
        seen = parsed("inspect", model, "--json")
        assert seen["format"] == "safetensors" and seen["tokenizer_size"] == 2048
        assert seen["totals"] == {"tensors": tensors, "elements": elements, "bytes": 2 * elements}
        assert seen["config"]["n_embd"] == width and seen["config"]["n_inner"] == 4 * width
        assert seen["config"]["eos_token_id"] == [2047] and seen["config"]["tie_word_embeddings"] is True
        assert seen["config"]["activation_function"] == "gelu_new"
        assert len(seen["tensors"]) == tensors
        assert [t["name"] for t in seen["tensors"]] == sorted(t["name"] for t in seen["tensors"])
        assert all(t["dtype"] == "F16" and t["bytes"] == 2 * math.prod(t["shape"]) for t in seen["tensors"])
        table = good("inspect", model).decode()
        assert all(t["name"] in table for t in seen["tensors"]) and f"{elements} elements" in table
    single = parsed("inspect", os.path.join(SMALL, "model.safetensors"), "--json")
    assert single["totals"]["tensors"] == 52 and single["config"] is None
    sharded = parsed("inspect", os.path.join(GOLDEN, "sharded"), "--json")
    assert "3 shards" in sharded["format"] and len({t["file"] for t in sharded["tensors"]}) == 3
    # What an operator should know: a file that is ignored, and merges that were lost.
    assert seen["notes"] == "" and "notes" not in table.splitlines()
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(SMALL):
            if name.endswith((".json", ".safetensors")) and name not in ("generation_config.json", "tokenizer.json"):
                os.symlink(os.path.join(SMALL, name), os.path.join(folder, name))
        for name in ("generation_config.json", "merges.txt"):
            open(os.path.join(folder, name), "w", encoding="utf-8").close()
        notes = parsed("inspect", folder, "--json")["notes"]
        assert "generation_config.json: JSON: unexpected end" in notes and "there are no merges" in notes, notes
        assert good("inspect", folder).decode().endswith("notes\n" + notes)


def test_tokenize():
    for model in MODELS:
        for case in expected(model)["cases"]:
            if not case["prompt"]:
                continue
            assert parsed("tokenize", "--model", model, given=case["prompt"].encode()) == case["prompt_ids"]
            assert parsed("tokenize", "--model", model, "--json", given=case["prompt"].encode()) == case["prompt_ids"]
    # Any bytes are restored exactly; the JSON form replaces bytes that are not UTF-8.
    wild = bytes(range(256)) + "Ünïcödé 😀\r\n\0 <|endoftext|>".encode() + b"\xf0\x9f"
    ids = good("tokenize", "--model", SMALL, given=wild)
    assert good("tokenize", "--model", SMALL, "--detokenize", given=ids) == wild
    assert parsed("tokenize", "--model", SMALL, "--detokenize", "--json", given=ids) == wild.decode(errors="replace")
    assert good("tokenize", "--model", SMALL, "--detokenize", given=b" 1 2\n3 ") == good(
        "tokenize", "--model", SMALL, "--detokenize", given=b"[1,2,3]")
    assert parsed("tokenize", "--model", SMALL) == []
    assert good("tokenize", "--model", SMALL, "--detokenize", given=b"[]") == b""
    plain = parsed("tokenize", "--model", SMALL, given=b"<|endoftext|>")
    assert len(plain) > 1 and 2047 not in plain
    assert parsed("tokenize", "--model", SMALL, "--special", given=b"<|endoftext|>") == [2047]
    # Without the flag, a fine-tuned model's special tokens are ordinary text; its other added tokens never are.
    with tempfile.TemporaryDirectory() as folder:
        for name in ("vocab.json", "merges.txt"):
            os.symlink(os.path.join(SMALL, name), os.path.join(folder, name))
        for name, value in (("added_tokens.json", {"<|user|>": 2048, "covfefe": 2049}),
                            ("special_tokens_map.json", {"additional_special_tokens": ["<|user|>"]})):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                json.dump(value, file)
        text = b"<|user|>covfefe"
        assert parsed("tokenize", "--model", folder, "--special", given=text) == [2048, 2049]
        plain = parsed("tokenize", "--model", folder, given=text)
        assert plain[-1] == 2049 and len(plain) > 2 and 2048 not in plain
        assert good("tokenize", "--model", folder, "--detokenize", given=b"[2048,2049]") == text


def check_report(report, price=None):
    """A lone request costs exactly its latency times the rate."""
    assert report["device_ns"] == report["latency_ns"] == report["prefill_ns"] + report["decode_ns"] > 0
    if price is None:
        assert report["cost_usd"] is None and report["unpriced_ns"] == report["device_ns"]


def exact_cost(ns, price):
    """ns x dollars an hour with 12 decimals, rounded half up."""
    units = Fraction(ns) * Fraction(price) * 10**12 / (3600 * 10**9)
    return f"{math.floor(units + Fraction(1, 2)) / Fraction(10**12)}"


def test_run_gives_the_expected_ids():
    for model in MODELS:
        data = expected(model)
        for i, case in enumerate(data["cases"]):
            prompt = ["--prompt", case["prompt"]] if i % 2 == 0 else [
                "--prompt-tokens", ids_text(case["prompt_ids"])]
            seen = parsed("run", "--model", model, *prompt, "--max-tokens", str(data["n_greedy"]),
                          "--ignore-eos", "--json")
            assert seen["prompt_ids"] == case["prompt_ids"]
            assert seen["ids"] == case["greedy_ids"], (model, case["prompt"])
            assert seen["text"] == case["text"] and seen["finish_reason"] == "length"
            assert seen["report"]["input_tokens"] == len(case["prompt_ids"])
            assert seen["report"]["output_tokens"] == data["n_greedy"]
            check_report(seen["report"])


def test_run_streams():
    case = expected(SMALL)["cases"][1]
    status, output, error = run("run", "--model", SMALL, "--prompt", case["prompt"], "--max-tokens", "40",
                                "--cost-per-hour", "0.10")
    assert status == 0 and output.decode() == case["text"] + "\n"
    assert f"{len(case['prompt_ids'])} + 40 tokens" in error and "$0.0000" in error and "length" in error
    with tempfile.NamedTemporaryFile() as file:
        file.write(case["prompt"].encode())
        file.flush()
        assert good("run", "--model", SMALL, "--prompt-file", file.name, "--max-tokens", "40") == output
    assert good("run", "--model", SMALL, "--prompt-file", "-", "--max-tokens", "40",
                given=case["prompt"].encode()) == output
    assert b"no price" in subprocess.run([PROGRAM, "run", "--model", SMALL, "--prompt", "A"],
                                         capture_output=True).stderr


def test_run_price():
    text = good("run", "--model", SMALL, "--prompt", "Once", "--max-tokens", "5", "--json", "--price", "2.5")
    report = json.loads(text, parse_float=str)["report"]
    check_report(report, "2.5")
    assert Fraction(report["cost_usd"]) == Fraction(exact_cost(report["device_ns"], "2.5"))


def test_run_sampling():
    common = ["run", "--model", SMALL, "--prompt", "Once upon a time", "--max-tokens", "30", "--json", *PLAIN]
    sampled = [*common, "--temperature", "1.5", "--top-k", "200", "--top-p", "0.99", "--min-p", "0.0001"]
    first = parsed(*sampled, "--seed", "7")
    assert first["seed"] == 7 and parsed(*sampled, "--seed", "7")["ids"] == first["ids"]
    assert any(parsed(*sampled, "--seed", str(seed))["ids"] != first["ids"] for seed in (8, 9, 10))
    typical = parsed(*sampled, "--seed", "7", "--typical-p", "0.2")
    assert typical["ids"] != first["ids"] and parsed(*sampled, "--seed", "7", "--typical-p", "1")["ids"] == first["ids"]
    drawn = parsed(*sampled)
    assert parsed(*sampled, "--seed", str(drawn["seed"]))["ids"] == drawn["ids"]
    stopped = parsed(*common, "--stop", "nowhere", "--stop", " little")
    assert stopped["finish_reason"] == "stop" and "little" not in stopped["text"]
    plain = parsed(*common, "--logprobs")
    assert plain["text"].startswith(stopped["text"])
    assert len(plain["logprobs"]) == len(plain["ids"]) and all(p <= 0 for p in plain["logprobs"])
    punished = parsed(*common, "--repetition-penalty", "1.8", "--presence-penalty", "0.5",
                      "--frequency-penalty", "0.5")
    assert punished["ids"] != plain["ids"]
    whole = parsed("run", "--model", SMALL, "--prompt", "Once upon a time", "--json")
    assert whole["finish_reason"] == "stop" and len(whole["ids"]) + 1 == whole["report"]["output_tokens"]
    full = parsed("run", "--model", SMALL, "--prompt", "Once upon a time", "--json", "--ignore-eos")
    assert full["finish_reason"] == "length"
    assert full["report"]["input_tokens"] + full["report"]["output_tokens"] in (256, 257)


def slow_run():
    """A request long enough to be interrupted, and its first bytes."""
    process = subprocess.Popen(
        [PROGRAM, "run", "--model", LARGE, "--prompt", "Once", "--ignore-eos", "--device", "cpu-reference",
         "--price", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1)
    return process


def test_interrupt_reports():
    process = slow_run()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, (process.returncode, error)
    assert b"finished: cancelled" in error and b"$" in error, error


def test_broken_pipe_reports():
    process = slow_run()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 141, (process.returncode, error)
    assert b"finished: client_gone" in error and b"$" in error, error
    quiet = subprocess.run(f"set -o pipefail; '{PROGRAM}' inspect '{LARGE}' --json | head -c 1", shell=True,
                           executable="/bin/bash", capture_output=True)
    assert quiet.stdout == b"{" and quiet.stderr == b"", quiet


def test_logits_do_not_overwrite_the_model():
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        shutil.copytree(SMALL, model)
        weights = next(name for name in os.listdir(model) if name.endswith(".safetensors"))
        link = os.path.join(folder, "link")
        os.symlink(os.path.join(model, weights), link)
        hard = os.path.join(folder, "hard")
        os.link(os.path.join(model, weights), hard)
        for path in (os.path.join(model, weights), os.path.join(model, "config.json"), link, hard):
            refused(1, [path, "model"], "logits", "--model", model, "--tokens", "1", "--out", path, *PLAIN)
        for name in os.listdir(SMALL):
            with open(os.path.join(SMALL, name), "rb") as a, open(os.path.join(model, name), "rb") as b:
                assert a.read() == b.read(), name


def test_logits_and_perplexity_agree():
    ids = expected(SMALL)["cases"][0]["greedy_ids"]
    text = expected(SMALL)["cases"][0]["text"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "logits")
        good("logits", "--model", SMALL, "--tokens", ids_text(ids), "--out", path, "--weights", "f32")
        logits = floats(path)
        assert len(logits) == len(ids) * 2048
        assert good("logits", "--model", SMALL, "--tokens", ids_text(ids), "--out", "-") == logits.tobytes()

    def nats(rows, target):
        row = logits[rows * 2048 : rows * 2048 + 2048]
        top = max(row)
        return top + math.log(sum(math.exp(x - top) for x in row)) - row[target]

    given = text.encode()
    tokens = parsed("tokenize", "--model", SMALL, given=given)
    assert tokens == ids
    seen = parsed("perplexity", "--model", SMALL, "-", "--json", "--price", "1", given=given)
    wanted = sum(nats(i, ids[i + 1]) for i in range(len(ids) - 1)) / (len(ids) - 1)
    assert abs(seen["nats_per_token"] - wanted) < 1e-4, (seen, wanted)
    assert abs(seen["perplexity"] - math.exp(wanted)) < 1e-3
    assert seen["tokens"] == len(ids) and seen["scored"] == len(ids) - 1 and seen["windows"] == 1
    assert seen["cost_usd"] > 0 and seen["tokens_per_second"] > 0
    # Windows of 16 tokens without overlap leave each first token unscored; overlapping ones only the text's first.
    apart = parsed("perplexity", "--model", SMALL, "-", "--json", "--window", "16", given=given)
    windows = math.ceil(len(ids) / 16)
    assert apart["windows"] == windows and apart["scored"] == len(ids) - windows
    close = parsed("perplexity", "--model", SMALL, "-", "--json", "--window", "16", "--stride", "4", given=given)
    assert close["scored"] == len(ids) - 1 and close["cost_usd"] is None
    assert wanted < close["nats_per_token"] < apart["nats_per_token"]
    printed = good("perplexity", "--model", SMALL, "-", given=given).decode()
    assert f"{seen['perplexity']:.4f}" in printed and printed.endswith("cost             no price\n"), printed
    printed = good("perplexity", "--model", SMALL, "-", "--price", "1", given=given).decode()
    assert "cost             $0.0" in printed, printed


def with_tokenizer(variant, folder):
    """Copies the variant's files into a separate folder, with a vocabulary of single characters."""
    source, model = os.path.join(GOLDEN, variant), os.path.join(folder, variant)
    os.mkdir(model)
    for name in os.listdir(source):
        os.symlink(os.path.join(source, name), os.path.join(model, name))
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        size = json.load(file)["vocab_size"]
    with open(os.path.join(model, "vocab.json"), "w", encoding="utf-8") as file:
        json.dump({chr(ord("!") + i): i for i in range(size)}, file)
    with open(os.path.join(model, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n")
    return model


def test_ids_without_a_tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            os.symlink(os.path.join(SMALL, name), os.path.join(folder, name))
        case = expected(SMALL)["cases"][0]
        command = ["run", "--prompt-tokens", ids_text(case["prompt_ids"]), "--ignore-eos", *PLAIN]
        got = good(*command, "--max-tokens", "40", "--model", folder).decode()
        assert got == ids_text(case["greedy_ids"]) + "\n", got
        assert got == good(*command, "--max-tokens", "40", "--model", SMALL, "--ids").decode()
        stop = case["greedy_ids"][5]
        stopped = good(*command, "--model", folder, "--stop-token-ids", f"{stop},{case['greedy_ids'][9]}").decode()
        ends = min(case["greedy_ids"].index(case["greedy_ids"][i]) for i in (5, 9))
        assert stopped == ids_text(case["greedy_ids"][:ends]) + "\n", stopped
        late = parsed(*command, "--model", folder, "--stop-token-ids", str(stop), "--min-tokens", "30",
                      "--max-tokens", "40", "--json")
        assert len(late["ids"]) >= 30 and stop not in late["ids"] and late["text"] == "", late
        refused(1, ["no tokenizer", "vocab.json", "ids"], "run", "--model", folder, "--prompt", "Once", *PLAIN)
        refused(1, ["no tokenizer", "vocab.json"], "perplexity", "--model", folder, "-", *PLAIN, given=b"Once upon")


def test_golden():
    variants = [v for v in sorted(os.listdir(GOLDEN)) if os.path.exists(os.path.join(GOLDEN, v, "logits.f32"))]
    assert len(variants) >= 10
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "logits")
        for i, variant in enumerate(variants):
            model = with_tokenizer(variant, folder)
            device = PLAIN if i % 4 else []
            data = expected(model)
            good("logits", "--model", model, "--tokens", ids_text(data["prompt_ids"]), "--out", path,
                 "--weights", "f32", *device)
            seen, wanted = floats(path), floats(os.path.join(model, "logits.f32"))
            assert len(seen) == len(wanted), (variant, len(seen), len(wanted))
            worst = max(abs(a - b) for a, b in zip(seen, wanted))
            assert worst < 1e-4, (variant, worst)
            ids = parsed("run", "--model", model, "--prompt-tokens", ids_text(data["prompt_ids"]), *device,
                         "--ignore-eos", "--json", "--max-tokens", str(len(data["greedy_ids"])))["ids"]
            assert ids == data["greedy_ids"], (variant, ids, data["greedy_ids"])


def test_bench():
    quick = ["--runs", "1", "--tokens", "4", "--seconds", "0"]
    seen = parsed("bench", "--model", SMALL, "--json", *quick, "--text", os.path.join(SOURCE, "README.md"))
    assert seen["model"] == "stories-small" and seen["synthetic"] is False and seen["device"]
    assert seen["kv"] == "f32" and seen["parameters"] == 1088256 and seen["load_seconds"] > 0
    assert seen["resident_peak_bytes"] >= seen["weight_bytes_per_token"] > 0 and seen["resident_bytes"] > 0
    assert [p["tokens"] for p in seen["prefill"]] == [128]
    assert [d["depth"] for d in seen["decode"]] == [0, 128]
    assert [s["streams"] for s in seen["parallel"]] == [1, 2, 4, 8, 16, 32]
    for row in seen["prefill"] + seen["decode"] + seen["parallel"]:
        assert row["tokens_per_second"] > 0 and row["runs"] == 1
        # The bills of any number of concurrent requests add up to at most the time that passed.
        assert row["seconds"] >= row["device_seconds"] > 0, row
    assert all(d["gb_per_second"] > 0 and d["bytes_per_token"] > 0 for d in seen["decode"])
    assert all(p["gflop_per_second"] > 0 for p in seen["prefill"])
    assert seen["machine_gb_per_second"] > 0 and seen["machine_gflop_per_second"] >= 0
    accounting, tokenizer = seen["accounting"], seen["tokenizer"]
    assert 0 < accounting["charge_1_ns"] < 1e6 and accounting["page_us"] > 0 and accounting["page_bytes"] > 1000
    assert tokenizer["bytes"] == os.path.getsize(os.path.join(SOURCE, "README.md"))
    assert tokenizer["encode_mb_per_second"] > 0 and tokenizer["decode_mb_per_second"] > 0

    lines = good("bench", "--model", SMALL, "--csv", *quick).decode().splitlines()
    assert lines[0] == "figure,value,unit" and all(line.count(",") == 2 for line in lines)
    rows = {line.split(",")[0]: float(line.split(",")[1]) for line in lines[1:]}
    assert len(rows) == len(lines) - 1 and rows["decode_128"] > 0 and rows["parallel_32"] > 0
    assert "tokenizer_encode" not in rows
    table = good("bench", "--model", SMALL, *quick).decode()
    assert "128 tokens" in table and "32 parallel" in table and "GB/s" in table
    refused(2, ["--text", "--model"], "bench", "--shape", "gpt2", "--text", "README.md")
    refused(2, ["--json", "--csv"], "bench", "--model", SMALL, "--json", "--csv")
    refused(1, ["no-such-text"], "bench", "--model", SMALL, *quick, "--text", "no-such-text")


def test_keys_and_values():
    """Keys and values are f16 by default with int8 and int4, if the device supports it; --kv overrides this."""
    def kept(*flags):
        return parsed("bench", "--model", SMALL, "--json", "--runs", "1", "--tokens", "2", "--seconds", "0", *flags)["kv"]
    assert kept("--weights", "int8") == kept("--kv", "auto", "--weights", "int4") == kept("--kv", "f16") == "f16"
    assert kept("--weights", "f16") == kept("--weights", "int8", "--kv", "f32") == "f32"
    refused(2, ["--kv", "auto, f32 or f16"], "bench", "--model", SMALL, "--kv", "int8")
    refused(1, ["weights as f32, not as int8"], "bench", "--model", SMALL, "--weights", "int8", "--device", "cpu-reference")
    refused(1, ["keys and values as f32, not as f16"], "bench", "--model", SMALL, "--kv", "f16", "--device", "cpu-reference")


def test_profile():
    """--profile prints a table of kernels, on device cpu of phases; a device that times nothing says so."""
    model = MODELS[0]
    status, output, error = run("run", "--model", model, "--prompt", "Once", "--max-tokens", "1", "--profile")
    assert status == 0 and output and "launches" in error and "attend" in error and "product" in error, error
    status, output, error = run("run", "--model", model, "--prompt", "Once", "--max-tokens", "1", "--profile",
                                "--device", "cpu-reference")
    assert status == 0 and output and "device cpu-reference has timed no kernels" in error, error
    status, _, error = run("run", "--model", model, "--prompt", "Once", "--max-tokens", "1")
    assert status == 0 and "kernel" not in error
    status, _, error = run("run", "--model", model, "--prompt", "Once", "--max-tokens", "1", "--profile",
                           "--device", "opencl")
    if "no OpenCL driver" in error:
        assert status == 1
    else:
        assert status == 0 and "launches" in error and "norm" in error and "100.0%" not in error, error


def test_devices():
    seen = {d["choice"]: d for d in parsed("devices", "--json")}
    assert seen["auto"]["available"] and seen["cpu-reference"]["available"]
    assert seen["auto"]["reason"] and seen["cpu-reference"]["as_per_byte"] > 0
    # The device that auto chooses was measured once, so both entries have the same figures.
    assert {**seen["auto"], "choice": seen["auto"]["name"]} == seen[seen["auto"]["name"]]
    text = good("devices").decode()
    assert text.startswith(f"auto           {seen['auto']['name']} ")
    assert text.count("measured: ") == len([d for d in seen.values() if d["available"]]) - 1


def test_ledger_commands():
    """The figures themselves are checked by costd_ledger."""
    with tempfile.TemporaryDirectory() as folder:
        none = os.path.join(folder, "none.db")
        refused(1, ["none.db"], "costs", "--ledger", none)
        refused(1, ["no file", ".db"], "costs", "--ledger", folder)
        refused(1, ["none.db"], "ledger", "verify", "--ledger", none)
        text = os.path.join(folder, "text.db")
        with open(text, "w", encoding="utf-8") as file:
            file.write("not a database " * 50)
        refused(1, ["not a database"], "ledger", "info", "--ledger", text)
        assert os.listdir(folder) == ["text.db"]
    refused(2, ["unknown action"], "ledger", "burn")
    refused(2, ["action is missing"], "ledger")
    refused(2, ["DEST is missing"], "ledger", "backup")
    refused(2, ["--keep-days"], "ledger", "prune")
    for flag, value in [("--month", "2026-13"), ("--month", "2026-1"), ("--since", "yesterday"), ("--until", "2026-10"),
                        ("--since", "2026-10-01T25:00"), ("--idle", "all"), ("--format", "xml"), ("--by", "a,b,c,d,e")]:
        refused(2, [flag], "costs", flag, value)
    refused(2, ["--month"], "costs", "--month", "2026-10", "--since", "1d")
    refused(2, ["--until"], "costs", "--since", "2026-10-02", "--until", "2026-10-01")
    for action in ("verify", "info", "backup", "prune"):
        assert good("ledger", action, "--help").decode().startswith(f"costinfer ledger {action} - ")


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
