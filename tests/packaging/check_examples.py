"""Compiles every lesson of examples/ with the installed package in an empty folder, runs it and checks the texts and
sums that it prints."""
import json
import math
import re
import subprocess
import urllib.request

from packaging_support import SOURCE, Installed, need, run

STORY = "Once upon a time there was a little girl named Clara. She lived in a"


def numbers(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return [float(x) if "." in x else int(x) for x in found.groups()]


def hello(out):
    assert out.startswith(STORY), out
    seconds, cost = numbers(r"4 tokens in, 20 out, ([\d.]+) s on the device, \$([\d.]+)\n", out)
    assert abs(seconds * 2.50 / 3600 - cost) < 2e-9, out


def streaming(out):
    assert "By callback:\n there was a little girl named Clara. She lived in a" in out, out
    assert "[length]" in out and re.search(r"girl named Clara\. She lived \[cancelled\]|lived \[length\]", out), out
    assert numbers(r"(\d+) tokens were sampled", out)[0] >= 10


def sampling(out):
    assert len(re.findall(r"^ +-\d+\.\d{3}  ", out, re.M)) == 5, out
    blocks = dict(re.findall(r"^(\S.*)\n((?:    .*\n)+)", out, re.M))
    assert blocks["the same seed again"] == blocks["temperature 0.8, top_k 40, seed 7"], out
    choices = blocks["three choices of seed 7"].splitlines()
    assert choices[0] + "\n" == blocks["the same seed again"] and len(set(choices)) == 3, out


def two_models(out):
    serve, load, idle, lost, total = numbers(
        r"serve (\d+) \+ load (\d+) \+ idle (\d+) \+ lost (\d+) = (\d+) ns", out)
    assert serve + load + idle + lost == total
    assert numbers(r"device_ns add up to (\d+) ns", out) == [serve]
    small, large = (float(x) for x in re.findall(r"([\d.]+) % of serving", out))
    assert abs(small + large - 100) < 0.2 and large > small, out
    assert numbers(r"billed ([\d.]+) times", out)[0] > 2


def per_token(out):
    assert "0.8 s at $2.50 an hour: $0.000555555556\n" in out
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +\$([\d.]+)$", out, re.M)
    assert [int(r[0]) for r in rows] == [1, 4, 16], out
    assert all(float(r[1]) > 0 and float(r[2]) > 0 for r in rows), out


def foreign(out):
    batch, alone = numbers(r"a batch of (\d+) ns, then (\d+) ns", out)
    first, second = (int(x) for x in re.findall(r"request \d: (\d+) ns", out))
    serve, idle, total = numbers(r"serve (\d+) \+ idle (\d+) = (\d+) ns", out)
    assert first + second == batch + alone == serve and serve + idle == total, out
    assert abs(second - batch / 4) <= 1, out


def scoring(out):
    each = [float(x) for x in re.findall(r"^ +(-[\d.]+)  ", out, re.M)]
    values = [float(x) for x in re.findall(r"^perplexity ([\d.]+) over", out, re.M)]
    assert len(each) == 11 and abs(math.exp(-sum(each) / 11) - values[0]) < 1e-3, out
    assert values[0] < values[1] < values[2], out


def batch(out):
    latency, paid = numbers(r"8 requests, 240 tokens: latencies of ([\d.]+) ms in all, and ([\d.]+) ms to pay", out)
    assert latency > paid > 0, out


def devices(out):
    rows = re.findall(r"^(\S+) +(\S+) +[\d.]+ GFLOP/s +[\d.]+ GB/s +(\d+) tokens/s", out, re.M)
    assert rows[0][0] == "auto" and rows[-1][0] == "cpu-reference" and all(int(r[2]) > 0 for r in rows), out


CHECKS = {"01_hello": hello, "02_streaming": streaming, "03_sampling": sampling,
          "04_two_models_one_budget": two_models, "05_cost_per_token": per_token, "06_exporter": None,
          "07_foreign_workload": foreign, "08_scoring": scoring, "09_async_batch": batch, "10_devices": devices}


def exporter(program, here):
    with subprocess.Popen([program, here.models / "stories-small", "0", "2"], env=here.env(), text=True,
                          stdout=subprocess.PIPE) as process:
        url = process.stdout.readline().strip()
        pages = [urllib.request.urlopen(url, timeout=20).read().decode() for _ in range(2)]
        assert process.wait(20) == 0
    assert "\nexample_sheep 12\n" in pages[0]
    assert 'model_tokens_total{model_name="stories-small",direction="output"} 10\n' in pages[1]


def clients(here):
    costd = subprocess.Popen([here.prefix / "bin/costd", "--listen", "127.0.0.1:0", "--cpu-cost-per-hour", "2.50",
                              "--model", f"stories-small={here.models / 'stories-small'}"],
                             env=here.env(), text=True, stderr=subprocess.PIPE)
    try:
        port = None
        for line in costd.stderr:
            event = json.loads(line)
            port = event.get("port", port)
            if event["event"] == "ready":
                break
        url = f"http://127.0.0.1:{port}"
        installed = here.prefix / "share/costinfer/examples"
        out = run("sh", installed / "11_client.sh", url, "stories-small")
        assert "girl named Clara" in out and "data: " in out and "estimated_cost_dollars_total{" in out, out
        out = run("python3", installed / "12_client.py", url, "stories-small")
        billed, counted = numbers(r"billed \$([\d.]+), counted \$([\d.]+)", out)
        assert abs(billed - counted) < 1e-10, out
    finally:
        costd.terminate()
        costd.communicate()


need("gcc", "pkg-config", "curl")
with Installed() as here:
    lessons = here.prefix / "share/costinfer/examples"
    assert sorted(p.stem for p in lessons.glob("*.c")) == sorted(CHECKS), "a lesson has no check, or a check no lesson"
    readme = (lessons / "README.md").read_text()
    env = here.env()
    flags = run("pkg-config", "--cflags", "--libs", "libcostinfer", env=env).split()
    for name, look in CHECKS.items():
        program = here.work / name
        run("gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", lessons / f"{name}.c", "-o", program,
            *flags, "-lm", cwd=here.work)
        assert f"({name}.c)" in readme, f"{name} is not in the README"
        if look:
            look(run(program, here.models / "stories-small", here.models / "stories-large", cwd=here.work, env=env))
        else:
            exporter(program, here)
        print(name, "is right")
    clients(here)
    print("11_client and 12_client are right")
