"""Memory that a model had is given back when the model goes."""
import copy
import os
import shutil
import time

from costd_support import LARGE, TWO, Costd, check, equal, run, sanitized, skip, temp_folder


def resident(server):
    with open(f"/proc/{server.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def reload(server, folder):
    reply = server.admin.post("/admin/models", {"id": "large", "folder": folder})
    equal(reply.status, 202, reply.body)
    end = time.monotonic() + 60
    while True:
        model = server.admin.get("/admin/models/large").json
        if model["state"] == "loaded" and model["served_folder"] == folder:
            return
        check(time.monotonic() < end and model["state"] != "failed", model)
        time.sleep(0.01)


def a_model_that_is_reloaded_leaves_nothing_behind():
    """The first round has both models in memory for a while, and all slots filled; later rounds need no more."""
    with temp_folder() as folder, Costd(*TWO, "--metrics-listen", "127.0.0.1:0") as server:
        server.admin = copy.copy(server)
        server.admin.port = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
        shutil.copytree(LARGE, os.path.join(folder, "copy"))
        seen = []
        for i in range(8):
            reload(server, (os.path.join(folder, "copy"), LARGE)[i % 2])
            server.complete(model="large", n=16, max_tokens=200, ignore_eos=True, temperature=1, seed=i)
            seen.append(resident(server))
        check(max(seen[1:]) < seen[0] + (10 << 20), "memory grows by more than a model's weights:", seen)


if __name__ == "__main__":
    if sanitized():
        skip("a sanitizer keeps what was freed")
    run(a_model_that_is_reloaded_leaves_nothing_behind)
