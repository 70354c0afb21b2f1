"""Streams that are not read, and streams that have nothing to say."""
import json
import socket
import time

from costd_support import TWO as MODELS
from costd_support import Costd, check, equal, ns, run, total


def stuck_stream(server, n=32):
    """A stream of several hundred kilobytes to a client that reads its first bytes only."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.settimeout(300)
    s.connect(("127.0.0.1", server.port))
    body = json.dumps({"model": "large", "prompt": "Once", "max_tokens": 50, "n": n, "stream": True,
                       "logprobs": 5, "ignore_eos": True}).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n" % len(body) + body)
    check(s.recv(12) == b"HTTP/1.1 200", "the stream begins")
    return s


def output_tokens(server):
    return total(server.metrics(), "model_tokens_total", model_name="large", direction="output")


def paused(server):
    """Waits until a request runs, gets no more tokens, and no thread would compute any; how many it has."""
    end = time.monotonic() + 120
    while True:
        before, asleep = output_tokens(server), 0
        while asleep < 10 and server.asleep():
            asleep += 1
            time.sleep(0.02)
        now = output_tokens(server)
        if now == before > 0 and asleep == 10:
            return now
        check(time.monotonic() < end, "the request goes on")
        time.sleep(0.05)


def a_stream_that_nobody_reads_pauses_and_ends():
    with Costd(*MODELS, "--stall-seconds", "3") as server:
        s = stuck_stream(server, 16)
        n = paused(server)
        check(n < 16 * 50, "computed to its end")
        m = server.metrics()
        equal(total(m, "model_requests_running", model_name="large") +
              total(m, "model_requests_finished_total", model_name="large", finish_reason="timeout"), 1,
              "it has not ended before its 3 s were over")
        # Others are served meanwhile.
        server.generate("small", prompt="Once", max_tokens=5)
        line = server.await_log(lambda l: l["event"] == "request" and l.get("finish") == "timeout")
        check(0 < line["output_tokens"] < 16 * 50, line)
        m = server.settle()
        equal(total(m, "model_requests_finished_total", model_name="large", finish_reason="timeout"), 1)
        equal(total(m, "model_tokens_total", model_name="large", direction="output"), line["output_tokens"])
        equal(sum(ns(total(m, "model_device_seconds_total", model_name="large", phase=p))
                  for p in ("prefill", "decode")), ns(line["device_seconds"]))
        s.close()


def a_stream_goes_on_when_its_reader_does():
    with Costd(*MODELS, "--stall-seconds", "600") as server:
        s = stuck_stream(server, 16)
        check(paused(server) < 16 * 50, "computed to its end")
        data = b""
        while b"data: [DONE]" not in data:
            part = s.recv(65536)
            check(part, "the stream broke off after", len(data))
            data += part
        s.close()
        m = server.settle()
        equal(total(m, "model_requests_finished_total", model_name="large", finish_reason="length"), 1)
        equal(total(m, "model_tokens_total", model_name="large", direction="output"), 16 * 50)


def a_silent_stream_is_pinged():
    with Costd(*MODELS, "--ping-seconds", "1") as server:
        # A stream that waits behind calls that take all slots, one after the other.
        body = json.dumps({"model": "large", "prompt": "Once", "max_tokens": 250, "n": 16, "ignore_eos": True}).encode()
        busy = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
        for s in busy:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(1000):
            if total(server.metrics(), "model_requests_waiting", model_name="large") >= 8:
                break
            time.sleep(0.01)
        with server.open_stream("large", prompt="Once", max_tokens=3) as waiting:
            waiting.settimeout(300)
            data = b""
            while data.count(b": ping\n\n") < 2:
                part = waiting.recv(4096)
                check(part, "closed", data)
                data += part
            check(b"data: " not in data, data)
            for s in busy:
                s.close()
            while b'"finish' not in data:
                part = waiting.recv(4096)
                check(part, "closed", data)
                data += part
        server.settle()


if __name__ == "__main__":
    run(a_stream_that_nobody_reads_pauses_and_ends, a_stream_goes_on_when_its_reader_does,
        a_silent_stream_is_pinged, at_once=True)
