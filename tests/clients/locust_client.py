"""locust against costd: a load whose requests and failures both sides count alike."""
import json
import os
import subprocess
import tempfile

from clients_support import PRICES, PROMPT, TWO, Costd, check, counted, enter, equal, program, version

enter("locust")

from costd_support import run, total  # noqa: E402

USERS = '''
from locust import HttpUser, constant, task


class Reader(HttpUser):
    wait_time = constant(0.01)

    @task(3)
    def complete(self):
        self.client.post("/v1/completions", name="complete", json={
            "model": "small", "prompt": "%(prompt)s", "max_tokens": 5, "temperature": 0, "ignore_eos": True})

    @task(1)
    def wrong(self):
        self.client.post("/v1/completions", name="wrong", json={"model": "small", "prompt": "a", "temperature": -1})

    @task(1)
    def stream(self):
        body = {"model": "small", "prompt": "%(prompt)s", "max_tokens": 5, "stream": True, "ignore_eos": True}
        with self.client.post("/v1/completions", name="stream", json=body, stream=True, catch_response=True) as reply:
            lines = [line for line in reply.iter_lines() if line.startswith(b"data: ")]
            if lines[-1] != b"data: [DONE]":
                reply.failure("no end: %%r" %% lines[-1:])
''' % {"prompt": PROMPT}
server = None


def both_sides_count_alike():
    before = server.settle()
    tokens = counted(server)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "locustfile.py")
        with open(path, "w") as f:
            f.write(USERS)
        done = subprocess.run([program("locust", "locust"), "-f", path, "--headless", "--users", "8", "--spawn-rate",
                               "8", "--run-time", "8s", "--stop-timeout", "30", "--json", "--host",
                               "http://127.0.0.1:%d" % server.port], capture_output=True, text=True,
                              timeout=200, check=False)
        equal(done.returncode, 1, done.stdout + done.stderr)  # requests have failed, as they should
    rows = {row["name"]: (row["num_requests"], row["num_failures"])
            for row in json.loads(done.stdout[done.stdout.index("["):])}
    print(rows, flush=True)
    after = server.settle()
    good = rows["complete"][0] + rows["stream"][0]
    check(rows["complete"][0] > 20 and rows["stream"][0] > 5, rows)
    equal((rows["complete"][1], rows["stream"][1]), (0, 0))
    equal(rows["wrong"][0], rows["wrong"][1])

    def more(name, **labels):
        return int(total(after, name, **labels) - total(before, name, **labels))

    equal(more("model_requests_finished_total", finish_reason="length"), good)
    equal(more("model_request_errors_total", code="invalid_request"), rows["wrong"][0])
    prompt = len(server.post("/tokenize", {"model": "small", "content": PROMPT}).json["tokens"])
    now = counted(server)
    equal((now[0] - tokens[0], now[1] - tokens[1]), (prompt * good, 5 * good))


version("locust")
with Costd(*TWO, *PRICES) as server:
    run(both_sides_count_alike)
