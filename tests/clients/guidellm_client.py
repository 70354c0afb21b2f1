"""guidellm, which measures servers, against costd: what it counted is what was computed."""
import json
import os
import subprocess
import tempfile

from clients_support import PRICES, TWO, Costd, check, counted, enter, equal, program, version

enter("guidellm", needs="torch")

from costd_support import SMALL, run  # noqa: E402

REQUESTS, INPUT, OUTPUT = 12, 20, 10
server = None


def benchmark(profile):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        done = subprocess.run(
            [program("guidellm", "guidellm"), "run", "--disable-console", "--profile", profile, "--backend",
             "kind=openai_http,target=http://127.0.0.1:%d,model=small,request_format=/v1/completions,http2=false"
             % server.port, "--tokenizer", "kind=huggingface_auto,model=" + SMALL, "--data",
             "kind=synthetic_text,prompt_tokens=%d,output_tokens=%d" % (INPUT, OUTPUT), "--constraint",
             "kind=max_requests,count=%d" % REQUESTS, "--output", "kind=json,path=" + path], capture_output=True,
            text=True, timeout=400, check=False, cwd=folder)
        check(done.returncode == 0 and os.path.exists(path), done.stdout[-1500:], done.stderr[-2500:])
        with open(path) as f:
            return json.load(f)["benchmarks"][0]


def both_sides_count_alike():
    for profile in ("kind=synchronous", "kind=concurrent,streams=4"):
        before = counted(server)
        seen = benchmark(profile)
        after = counted(server)
        requests = seen["requests"]
        equal((len(requests["successful"]), requests["errored"]), (REQUESTS, []), profile)
        told = [(r["prompt_tokens"], r["output_tokens"]) for r in requests["successful"]]
        equal((sum(p for p, _ in told), sum(o for _, o in told)), (after[0] - before[0], after[1] - before[1]), profile)
        equal({o for _, o in told}, {OUTPUT}, profile)


version("guidellm")
with Costd(*TWO, *PRICES) as server:
    run(both_sides_count_alike)
