"""Reads pages of metrics with independent parsers: promtool and Prometheus's Python client.

Both formats must pass, carry equal samples, keep hostile names byte for byte, add up exactly, and not
change with the locale.
"""
import os
import random
import subprocess
import sys
import tempfile
from decimal import Decimal

try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as parse_text
except ImportError:
    print("skipped: python3-prometheus-client is not installed")
    sys.exit(77)

DEMO = os.path.join(os.environ["CINF_BUILD"], "bin", "exposition_demo")
HOSTILE = [
    "stories-small", 'quo"te', "back\\slash", "line\nfeed", "\\n", '"', "\\", "\n", " ", "{a=\"b\"} 1", "#", "# EOF",
    "caf\u00e9", "\u65e5\u672c", "\U0001f411", "a,b", "tab\there", "cr\rhere", "nel\u0085here", "ls\u2028here",
    "\x01\x7f", "'", "%s%n", "x" * 256,
]
FINISHES = ["stop", "length", "cancelled", "client_gone", "timeout", "failed"]
ERRORS = ["invalid_request", "context_length", "queue_full", "unavailable", "timeout", "device", "internal"]
BUCKETS = {
    "model_request_duration_seconds": "0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0",
    "model_time_to_first_token_seconds": "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 "
                                         "20.0 40.0 80.0 160.0 640.0 2560.0",
    "model_inter_token_seconds": "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 "
                                 "5.0 7.5 10.0 20.0 40.0 80.0",
    "model_queue_seconds": "0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 60.0 120.0",
}


def demo(form, state, names, **environment):
    run = subprocess.run([DEMO, form, state, *names], capture_output=True, env={**os.environ, **environment})
    assert run.returncode == 0, (form, state, run.returncode, run.stderr)
    return run.stdout.decode("utf-8")


def samples(families):
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"two samples {key}"
            found[key] = sample.value
    return found


def both(state, names, **environment):
    """Returns the samples of a page, which must be valid in both formats."""
    text, openmetrics = (demo(form, state, names, **environment) for form in ("text", "openmetrics"))
    promtool = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True)
    assert promtool.returncode == 0, promtool.stdout.decode() + promtool.stderr.decode()
    assert openmetrics.endswith("\n# EOF\n") and "\n\n" not in openmetrics
    found = samples(parse_text(text))
    assert found == samples(parse_openmetrics(openmetrics)), "the two formats differ"
    # Metadata of every family once, in both.
    for page in (text, openmetrics):
        types = [line.split()[2] for line in page.split("\n") if line.startswith("# TYPE ")]
        helps = [line.split()[2] for line in page.split("\n") if line.startswith("# HELP ")]
        assert types == helps and len(set(types)) == len(types)
    return found, text


def exact(text, family, **labels):
    """Sum of the family's samples with these labels, as decimals: a float would round."""
    total = Decimal(0)
    for line in text.split("\n"):
        if line.startswith(family + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += Decimal(line.rsplit(" ", 1)[1])
    return total


def check_new_models():
    """All series of a model exist, at 0, before anything has happened."""
    found, _ = both("new", ["a", "b"])
    expected = set()
    for model in ("a", "b"):
        m = ("model_name", model)
        for endpoint in ("/v1/generate", '/v1/"odd"\\'):
            expected.add(("model_request_total", (("endpoint", endpoint), m)))
        for direction in ("input", "output"):
            expected.add(("model_tokens_total", (("direction", direction), m)))
        for reason in FINISHES:
            expected.add(("model_requests_finished_total", (("finish_reason", reason), m)))
            expected.add(("model_finished_device_seconds_total", (("finish_reason", reason), m)))
        for code in ERRORS:
            expected.add(("model_request_errors_total", (("code", code), m)))
        for outcome in ("accepted", "rejected"):
            expected.add(("model_draft_tokens_total", (m, ("outcome", outcome))))
        for phase in ("prefill", "decode", "load"):
            expected.add(("model_device_seconds_total", (m, ("phase", phase))))
        for name in ("model_estimated_cost_dollars_total", "model_cached_tokens_total", "model_requests_running",
                     "model_requests_waiting", "model_loaded"):
            expected.add((name, (m,)))
        for family, bounds in BUCKETS.items():
            for le in bounds.split() + ["+Inf"]:
                expected.add((family + "_bucket", (("le", le), m)))
            expected |= {(family + "_sum", (m,)), (family + "_count", (m,))}
    of_models = {key for key in found if key[0].startswith("model_")}
    assert of_models == expected, of_models ^ expected
    assert all(found[key] == 0 for key in of_models)
    assert not any(key[0].startswith("gpu_") for key in found), "GPU rows without a GPU"
    assert not any(key[0].startswith("costinfer_split") for key in found)
    device = ("device", 'cpu "0"')
    assert found[("costinfer_basis_info", (("basis", "wall"), device))] == 1
    assert found[("costinfer_price_dollars_per_hour", (device,))] == 0.1
    assert found[("costinfer_unpriced_seconds_total", (device,))] == 0


def check_used(names, **environment):
    found, text = both("used", names, **environment)
    assert {value for _, labels in found for name, value in labels if name == "model_name"} == set(names)
    for (name, labels), value in found.items():
        if name.endswith("_bucket") and dict(labels)["le"] == "+Inf":
            others = tuple(pair for pair in labels if pair[0] != "le")
            family = name[: -len("_bucket")]
            assert value == found[(family + "_count", others)]
            counts = [found[(name, tuple(sorted(others + (("le", le),))))] for le in BUCKETS[family].split()]
            assert counts == sorted(counts) and counts[-1] <= value
    for i, name in enumerate(names):
        assert found[("model_requests_running", (("model_name", name),))] == i % 2
    # As decimals, to the last digit.
    serve = exact(text, "costinfer_device_seconds_total", account="serve")
    load = exact(text, "costinfer_device_seconds_total", account="load")
    idle = exact(text, "costinfer_device_seconds_total", account="idle")
    lost = exact(text, "costinfer_device_seconds_total", account="lost")
    overhead = exact(text, "costinfer_device_seconds_total", account="overhead")
    assert serve + load + idle + lost + overhead == exact(text, "costinfer_device_uptime_seconds")
    assert serve == sum(exact(text, "model_device_seconds_total", phase=phase) for phase in ("prefill", "decode"))
    assert load == exact(text, "model_device_seconds_total", phase="load") > 0
    assert exact(text, "model_request_total") == exact(text, "model_requests_finished_total")
    return found, text


def check_figures():
    """The values of one model, calculated by hand from what exposition_demo.c does with it."""
    found, text = check_used(["m"])
    m, device = ("model_name", "m"), ("device", 'cpu "0"')
    steps = [step**3 * 100003 + 1 for step in range(60)]
    nano = Decimal(1).scaleb(-9)
    assert exact(text, "costinfer_device_seconds_total", account="serve") == sum(steps) * nano
    assert exact(text, "model_device_seconds_total", phase="load") == Decimal("1.234567891")
    cost = (Decimal(sum(steps)) / 36 / 10**12).quantize(Decimal(1).scaleb(-12))  # ns x $0.10 / 3600 s
    assert exact(text, "model_estimated_cost_dollars_total") == cost > 0
    assert found[("model_tokens_total", (("direction", "input"), m))] == 300
    assert found[("model_cached_tokens_total", (m,))] == 20
    assert found[("model_tokens_total", (("direction", "output"), m))] == 60 + 20
    assert found[("model_inter_token_seconds_count", (m,))] == 59 + 19
    assert found[("model_request_duration_seconds_count", (m,))] == 2
    assert found[("model_queue_seconds_count", (m,))] == 3
    assert found[("model_requests_running", (m,))] == found[("model_requests_waiting", (m,))] == 0
    assert found[("model_loaded", (m,))] == 1
    assert found[("model_request_errors_total", (("code", "queue_full"), m))] == 1
    assert found[("costinfer_price_dollars_per_hour", (device,))] == 2.5
    assert found[("costinfer_split_seconds", (device, ("per", "flop")))] == 1.25e-13
    gpu = (("gpu", 'cpu "0"'),)
    assert found[("gpu_memory_used_bytes", gpu)] == 1234567890123
    assert found[("gpu_memory_device_used_bytes", gpu)] == 2000000000000
    assert abs(found[("gpu_utilization_percent", gpu)] - 41.1522630041) < 1e-9


def check_random_names():
    rng = random.Random(2)
    alphabet = '"\\\n{},= #_aZ09\u00e9\u4e2d\U0001f600\t\r'
    names = sorted({"".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(120)})
    check_used(names)


def check_refused_names():
    for name in (b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"", b"x" * 257):
        run = subprocess.run([DEMO.encode(), b"text", b"new", name], capture_output=True)
        assert run.returncode == 1 and run.stdout == b"", (name, run.returncode)


def check_locale():
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", os.path.join(folder, "de_DE.UTF-8")],
                              capture_output=True)
        # Status 1: the locale was compiled with warnings, or was not, because the package "locales" is missing.
        if made.returncode > 1 or not os.path.exists(os.path.join(folder, "de_DE.UTF-8")):
            print("the locale de_DE.UTF-8 could not be made: not checked")
            return
        german = {"LOCPATH": folder, "LC_ALL": "de_DE.UTF-8"}
        comma = subprocess.run(["printf", "%.1f", "0"], capture_output=True, env={**os.environ, **german})
        assert comma.stdout == b"0,0", "the locale is not in force, so this checks nothing"
        for form in ("text", "openmetrics"):
            assert demo(form, "used", HOSTILE, **german) == demo(form, "used", HOSTILE, LC_ALL="C")
        check_used(HOSTILE, **german)


def main():
    try:
        subprocess.run(["promtool", "--version"], capture_output=True, check=True)
    except OSError:
        print("skipped: promtool is not installed")
        sys.exit(77)
    check_new_models()
    check_figures()
    check_used(HOSTILE)
    check_random_names()
    check_refused_names()
    check_locale()
    print("exposition: both formats pass, with equal samples")


main()
