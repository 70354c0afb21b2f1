"""Who waits and who does not: what the queue counts, calls of many prompts, and streams that are not read."""
import http.client
import json
import socket
import threading
import time

from costd_support import TWO as MODELS
from costd_support import Costd, Reply, check, equal, ns, run, together, total


def prompts_that_can_start_do_not_wait():
    with Costd(*MODELS, "--queue", "8", "--slots", "16") as server:
        for n in (1, 8, 9, 16, 17, 24):
            reply = server.complete(model="small", prompt=["Once"] * n, max_tokens=2)
            equal(len(reply.json["choices"]), n)
        # What can never fit is the client's mistake, with the numbers, and not a matter of trying again.
        reply = server.post("/v1/completions", {"model": "small", "prompt": ["Once"] * 25, "max_tokens": 2})
        equal((reply.status, reply.error["code"]), (400, "invalid_value"))
        check(all(n in reply.error["message"] for n in ("25", "16", "8")), reply.error)
        check("retry-after" not in reply.headers, reply.headers)


def each_model_has_a_queue():
    """Clients of one model do not shut those of another out."""
    with Costd(*MODELS, "--queue", "3", "--slots", "2") as server:
        refused = threading.Event()

        def crowd():
            while not refused.is_set():
                reply = server.post("/v1/completions", {"model": "large", "prompt": "Once", "max_tokens": 100, "n": 2,
                                                        "ignore_eos": True})
                if reply.status == 429:
                    refused.set()
                check(reply.status in (200, 429), reply.body)

        def alone():
            for _ in range(50):
                if refused.is_set():
                    break
                server.generate("small", prompt="Once", max_tokens=3)
            server.generate("small", prompt="Once", max_tokens=3)

        together(alone, *[crowd] * 12)
        m = server.settle()
        check(total(m, "model_request_errors_total", model_name="large", code="queue_full") > 0)
        equal(total(m, "model_request_errors_total", model_name="small", code="queue_full"), 0)


def a_refused_call_runs_nothing():
    """All prompts of a call or none: the log has every nanosecond that was served, whatever was refused."""
    with Costd(*MODELS, "--queue", "2", "--slots", "4") as server:
        def ask(n):
            return server.post("/v1/completions", {"model": "large", "prompt": ["Once"] * n, "max_tokens": 20,
                                                   "ignore_eos": True})
        replies = []
        for _ in range(3):
            replies += together(*[lambda n=n: ask(n) for n in (6, 5, 4, 3, 6, 5)])
        statuses = {reply.status for reply in replies}
        equal(statuses, {200, 429})
        m = server.settle()
        answered = [reply for reply in replies if reply.status == 200]
        equal(total(m, "model_tokens_total", model_name="large", direction="output"),
              20 * sum(len(reply.json["choices"]) for reply in answered))
        equal(total(m, "model_requests_finished_total", model_name="large"),
              sum(len(reply.json["choices"]) for reply in answered))
        served = sum(ns(total(m, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode"))
        equal(sum(ns(line["device_seconds"]) for line in server.requests_logged() if line["status"] == 200), served)


def streams_that_nobody_reads_hold_no_slots():
    with Costd(*MODELS) as server:
        body = json.dumps({"model": "large", "prompt": "Once", "max_tokens": 250, "n": 2, "stream": True,
                           "logprobs": 5, "ignore_eos": True, "seed": 7}).encode()
        unread = []
        for _ in range(24):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.connect(("127.0.0.1", server.port))
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            unread.append(s)
        # All of them begin, although they would need 48 slots of 16, and none ends.
        for _ in range(600):
            if total(server.metrics(), "model_requests_running", model_name="large") == len(unread):
                break
            time.sleep(0.05)
        equal(total(server.metrics(), "model_requests_running", model_name="large"), len(unread))
        start = time.monotonic()
        server.generate("large", prompt="A cat", max_tokens=5)
        seconds = time.monotonic() - start
        check(seconds < 10, "a reader waited", seconds)  # a second where nothing else runs; 60 for the slots
        # One is read on, to its end: its text is that of a stream that was never paused.
        whole = server.complete(model="large", prompt="Once", max_tokens=250, n=2, ignore_eos=True, seed=7)
        unread[5].settimeout(60)
        response = http.client.HTTPResponse(unread[5])
        response.begin()
        texts = ["", ""]
        for event in Reply(response.status, {}, response.read()).events:
            for choice in event["choices"] if event != "[DONE]" else []:
                texts[choice["index"]] += choice["text"]
        equal(texts, [choice["text"] for choice in whole.json["choices"]])
        for s in unread:
            s.close()
        m = server.settle()
        lines = server.requests_logged(at_least=len(unread) + 2)
        equal(total(m, "model_tokens_total", model_name="large", direction="input"),
              sum(line["input_tokens"] for line in lines))
        served = sum(ns(total(m, "model_device_seconds_total", phase=p)) for p in ("prefill", "decode"))
        equal(sum(ns(line["device_seconds"]) for line in lines), served)


if __name__ == "__main__":
    run(prompts_that_can_start_do_not_wait, each_model_has_a_queue, a_refused_call_runs_nothing,
        streams_that_nobody_reads_hold_no_slots)
