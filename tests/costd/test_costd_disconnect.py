"""Clients that leave, in every way there is: the engine stops for them, they pay for what was computed, and
nothing of theirs stays behind.

    test_costd_disconnect.py            the ways of leaving, and 1000 that leave
    test_costd_disconnect.py --slow     readers that stall, and peers whose link goes down (as root)"""
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time

from costd_support import COSTD, LARGE, Costd, check, equal, reset, run, total

N = 8          # choices, so that a request takes long enough to be left
TOKENS = 240   # of each
PRICES = ["--cpu-cost-per-hour", "0.10"]
ASKED = {"model": "large", "prompt": "Once upon a time", "n": N, "max_tokens": TOKENS, "temperature": 0,
         "ignore_eos": True}


def request(stream, host="x", **fields):
    body = json.dumps({**ASKED, "stream": stream, **fields}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (host.encode(), len(body)) + body)


def ask(server, stream, **fields):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    s.sendall(request(stream, **fields))
    return s


def half_close(s):
    s.shutdown(socket.SHUT_WR)


def await_running(server, finished=0):
    """Waits until a request runs, or is over already: one more than had finished before."""
    end = time.monotonic() + 120
    while True:
        metrics = server.metrics()
        if (total(metrics, "model_requests_running") or
                total(metrics, "model_requests_finished_total") > finished):
            return
        check(time.monotonic() < end, "it does not run")


def await_data(s):
    """Reads until the first tokens have come."""
    seen = b""
    while b"data: " not in seen:
        part = s.recv(400)
        check(part, "the stream ended:", seen)
        seen += part


def finished(server, seen):
    """The log's line of the one generation that ended since; an answer has a minute to be sent."""
    line = server.await_log(lambda l: "finish" in l and l["id"] not in seen, 300)
    seen.add(line["id"])
    return line


def left_in_the_middle(server, stream, leave, seen):
    """The metrics before a client asked that left while its request ran, and the log's line of it.  On a busy machine
    a client may be put aside until its request is over: it tries again.  A server that does not notice those that
    leave is over in time each time."""
    for _ in range(20):
        before = server.settle()
        s = ask(server, stream)
        if stream:
            await_data(s)
        else:
            await_running(server, total(before, "model_requests_finished_total"))
        leave(s)
        line = finished(server, seen)
        s.close()
        if line["finish"] != "length":
            break
    return before, line


def a_departed_client_is_billed_for_what_was_computed():
    with Costd("--model", "large=" + LARGE, *PRICES) as server:
        seen, gone = set(), 0
        for stream in (True, False):
            for leave in (lambda s: s.close(), reset, half_close):
                before, line = left_in_the_middle(server, stream, leave, seen)
                gone += 1
                equal((line["finish"], line["status"]), ("client_gone", 200 if stream else 499))
                check(0 < line["output_tokens"] < N * TOKENS, line)
                check(line["cost_usd"] > 0 and line["device_seconds"] > 0, line)
                after = server.settle()

                def more(name, **labels):
                    return total(after, name, **labels) - total(before, name, **labels)

                equal(more("model_requests_finished_total", finish_reason="client_gone"), 1)
                equal(more("model_tokens_total", direction="output"), line["output_tokens"])
                # What the client pays for is what the device did for it.
                equal(more("model_device_seconds_total") - more("model_device_seconds_total", phase="load"),
                      line["device_seconds"])
        equal(total(server.metrics(), "model_requests_finished_total", finish_reason="client_gone"), gone)
        equal(total(server.metrics(), "model_requests_finished_total"), len(seen))


def leaving_before_the_body_or_the_answer():
    """No generation, no bill, no line too many."""
    with Costd("--model", "large=" + LARGE) as server:
        whole = request(False)
        for cut in (1, 20, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
            for leave in (lambda s: s.close(), reset):
                s = socket.create_connection(("127.0.0.1", server.port), timeout=120)
                s.sendall(whole[:cut])
                time.sleep(0.01)
                leave(s)
        metrics = server.settle()
        equal(total(metrics, "model_requests_finished_total"), 0)
        equal(total(metrics, "model_tokens_total"), 0)
        equal(total(metrics, "model_device_seconds_total", phase="decode"), 0)
        equal(server.complete(model="large", max_tokens=2).json["usage"]["completion_tokens"], 2)


def a_client_that_waits_in_the_queue_leaves_it():
    # On the slow device: the packed kernels are through with the first ones before the others have left.
    with Costd("--model", "large=" + LARGE, *PRICES, "--queue", "64", "--kv-memory", "7M",
               "--device", "cpu-reference") as server:
        running = ask(server, True, prompt=["Once"] * 20, n=1)
        await_running(server)
        waiting = [ask(server, stream, n=1) for stream in (True, False, True)]
        end = time.monotonic() + 120
        while sum(total(server.metrics(), name) for name in (
                "model_requests_waiting", "model_requests_running", "model_requests_finished_total")) < 23:
            check(time.monotonic() < end, "they do not wait")
        for s in waiting:
            reset(s)
        # Were the others seen to leave first, these would be let in for a moment.
        while total(server.metrics(), "model_requests_finished_total", finish_reason="client_gone") < 3:
            check(time.monotonic() < end, "they do not leave the queue")
        running.close()
        metrics = server.settle()
        equal(total(metrics, "model_requests_finished_total"), 23)
        gone = total(metrics, "model_requests_finished_total", finish_reason="client_gone")
        check(gone >= 4, "of 23 left", gone)
        unpaid, end = [], time.monotonic() + 120
        while len(unpaid) < 3 and time.monotonic() < end: # a line is written after its request has been counted
            unpaid = [l for l in server.requests_logged()
                      if l.get("finish") == "client_gone" and not l["output_tokens"]]
        equal([l["device_seconds"] for l in unpaid], [0] * 3, unpaid)


def resident(server):
    with open("/proc/%d/statm" % server.process.pid) as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sanitized():
    with open(COSTD, "rb") as f:
        return re.search(rb"__[at]san_init", f.read()) is not None


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def a_thousand_that_leave_leave_nothing():
    chance = random.Random(4)
    # Connections that are merely idle (a scrape's, say) go after a second, and are not counted.
    with Costd("--model", "large=" + LARGE, *PRICES, "--idle-seconds", "1") as server:
        def leave_all(n):
            for _ in range(n):
                s = ask(server, chance.random() < 0.5, n=chance.choice((1, 2, 4)), max_tokens=120)
                if chance.random() < 0.7:
                    time.sleep(chance.random() * 0.004)
                chance.choice((lambda s: s.close(), reset, lambda s: (half_close(s), s.close())))(s)
            return server.settle()

        # Every slot has been used as far as these texts go, and what is kept of the past has its size then.
        slots = server.get("/v1/models/large").json["meta"]["slots"]
        server.complete(model="large", prompt="Once upon a time", n=slots, max_tokens=130, ignore_eos=True)
        computed = total(leave_all(300), "model_requests_finished_total")
        time.sleep(2.5)
        fds, bytes_before = descriptors(server), resident(server)
        metrics = leave_all(1000)
        # A thread of libmicrohttpd that has nothing to do closes some connections that are over when it wakes for
        # the next; seen with four busy loops on costd's only core, once in about 10,000 that left.
        end = time.monotonic() + 120
        while descriptors(server) > fds:
            check(time.monotonic() < end, "descriptors left:", fds, descriptors(server))
            for _ in range(8):
                server.get("/health")
            time.sleep(0.2)
        grown = resident(server) - bytes_before
        print("  1000 left: %d of them computed, resident memory %+d KiB" % (
            total(metrics, "model_requests_finished_total") - computed, grown // 1024))
        # Under a sanitizer freed memory stays for a while.
        check(grown < 2 * 1024 * 1024 or sanitized(), "resident memory grew by", grown)
        equal(total(metrics, "model_requests_running") + total(metrics, "model_requests_waiting"), 0)
        # Every slot is there again: as many concurrently as before, with the text as ever.
        reply = server.complete(model="large", prompt="Once upon a time", n=slots, max_tokens=5, temperature=0)
        equal(len({c["text"] for c in reply.json["choices"]}), 1)


def await_idle(server, seconds):
    end = time.monotonic() + seconds
    while total(server.metrics(), "model_requests_running") + total(server.metrics(), "model_requests_waiting"):
        check(time.monotonic() < end, "it still runs after", seconds, "seconds")
        time.sleep(0.1)


def a_reader_that_stalls_is_cut_off():
    """A stream that is not read stops computing and ends after 20 s, a connection without room to receive being no
    connection that is lost; an answer that is not read was computed without a pause."""
    with Costd("--model", "large=" + LARGE, *PRICES) as server:
        seen = set()
        for stream in (True, False):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            start = time.monotonic()
            s.sendall(request(stream, n=16, logprobs=20))
            line = finished(server, seen)
            took = time.monotonic() - start
            print("  %s: %s after %.1f s, %d of %d tokens" % (
                "stream" if stream else "whole", line["finish"], took, line["output_tokens"], 16 * TOKENS))
            if stream:
                equal(line["finish"], "timeout")
                check(0 < line["output_tokens"] < 16 * TOKENS / 4, line)
                check(19 < took < 30, "cut off after", took)
            else:
                equal((line["finish"], line["output_tokens"]), ("length", 16 * TOKENS))
            await_idle(server, 5)
            # Others are served meanwhile and afterwards.
            equal(server.complete(model="large", max_tokens=2).json["usage"]["completion_tokens"], 2)
            finished(server, seen)
            s.close()


def a_peer_whose_link_goes_down():
    """costd in a network namespace of its own; the only link to it is taken down in mid-stream."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        print("  no root, or no ip: not tried")
        return
    name = "costd%d" % os.getpid()
    here, there = "c%da" % os.getpid(), "c%db" % os.getpid()

    def ip(*words, may_fail=False):
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        check(may_fail or done.returncode == 0, words, done.stderr)
        return done.returncode

    if ip("netns", "add", name, may_fail=True) != 0:
        print("  no network namespaces here: not tried")
        return
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("addr", "add", "198.18.77.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "addr", "add", "198.18.77.2/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        for stream in (True, False):
            # On the slow device, and with prompts that wait for the slots of others: still at it after 15 s.
            log = subprocess.Popen(["ip", "netns", "exec", name, COSTD, "--model", "large=" + LARGE, *PRICES,
                                    "--device", "cpu-reference", "--listen", "198.18.77.2:0", *INSECURE],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            try:
                port = None
                for raw in log.stderr:
                    line = json.loads(raw)
                    port = line.get("port", port)
                    if line["event"] == "ready":
                        break
                s = socket.create_connection(("198.18.77.2", port), timeout=10)
                s.sendall(request(stream, host="198.18.77.2", prompt=["Once"] * 4, n=16))
                if stream:
                    await_data(s)
                else:
                    time.sleep(0.2)
                ip("link", "set", here, "down")
                start = time.monotonic()
                for raw in log.stderr:
                    line = json.loads(raw)
                    if "finish" in line:
                        break
                took = time.monotonic() - start
                print("  %s: %s %.1f s after the link went down, %d of %d tokens" % (
                    "stream" if stream else "whole", line["finish"], took, line["output_tokens"], 64 * TOKENS))
                check(took < 16, "noticed after", took)
                equal(line["finish"], "client_gone")
                check(0 < line["output_tokens"] < 64 * TOKENS, line)
                s.close()
                ip("link", "set", here, "up")
            finally:
                log.kill()
                log.wait()
    finally:
        ip("netns", "del", name, may_fail=True)
        ip("link", "del", here, may_fail=True)


INSECURE = ["--insecure"] if b"--insecure" in subprocess.run([COSTD, "--help"], capture_output=True).stdout else []
if "--slow" in sys.argv[1:]:
    run(a_reader_that_stalls_is_cut_off, a_peer_whose_link_goes_down)
else:
    run(a_departed_client_is_billed_for_what_was_computed, leaving_before_the_body_or_the_answer,
        a_client_that_waits_in_the_queue_leaves_it, a_thousand_that_leave_leave_nothing)
