"""Too few descriptors: a flood of connections costs only the clients that had no connection yet.

Processor time is compared with time that passed, generously: a thread that spins uses all of it."""
import contextlib
import http.client
import os
import resource
import socket
import threading
import time
from collections import Counter

from costd_support import TWO, Costd, check, equal, run

PROMPT = "Once upon a time"
FLOOD = 300
FEW = 150  # of which costd keeps about 110 for itself and the admin listener


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def processor_seconds(server):
    """Of each thread, by its number."""
    out = {}
    for thread in os.listdir("/proc/%d/task" % server.process.pid):
        with open("/proc/%d/task/%s/stat" % (server.process.pid, thread)) as f:
            fields = f.read().rpartition(")")[2].split()
        out[thread] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return out


def busiest(server, seconds):
    """The share of the time that the busiest thread runs."""
    before, start = processor_seconds(server), time.monotonic()
    time.sleep(seconds)
    after, took = processor_seconds(server), time.monotonic() - start
    return max((after[thread] - before.get(thread, 0)) / took for thread in after)


def flood(server, n):
    """Connections that say nothing; as many as get through to the kernel's queue."""
    held = []
    for _ in range(n):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", server.port))
        held.append(s)
    return held


def refuses_quietly(server):
    """A few lines a second, however many connections there are and however long it takes here."""
    lines = [line for line in server.lines if line["event"] == "http"]
    seconds = Counter(line["ts"][:19] for line in lines)
    check(max(seconds.values(), default=0) <= 10, seconds, "lines about descriptors:", lines[:3])


def serves_again(server, before, text):
    end = time.monotonic() + 120
    while True:
        try:
            equal(server.generate("small", prompt=PROMPT, max_tokens=10, temperature=0).json["text"], text)
            break
        except (OSError, AssertionError):
            check(time.monotonic() < end, "it does not serve again")
            time.sleep(0.05)
    while descriptors(server) > before:
        check(time.monotonic() < end, "it keeps", descriptors(server), "descriptors, had", before)
        time.sleep(0.05)


class Answers:
    """Streams that run while the flood comes."""

    def __init__(self, server, n):
        self.got, self.threads = [], []
        for i in range(n):
            s = server.open_stream("large", prompt=PROMPT, max_tokens=200, temperature=0, ignore_eos=True)
            self.threads.append(threading.Thread(target=self._read, args=(s,)))
            self.threads[-1].start()

    def _read(self, s):
        data = b""
        with s:
            s.settimeout(60)
            while b"[DONE]" not in data:
                part = s.recv(65536)
                if not part:
                    break
                data += part
        self.got.append(data)

    def ended_well(self):
        for thread in self.threads:
            thread.join(60)
        equal(len(self.got), len(self.threads), "streams that ended")
        for data in self.got:
            check(b"[DONE]" in data and b'"finish_reason":"length"' in data, "a stream was cut:", data[-200:])


def a_flood_under_a_low_limit():
    """The limit stands when costd starts, which leaves room for its own files and for the admin listener."""
    with Costd(*TWO, "--head-seconds", "60", "--metrics-listen", "127.0.0.1:0",
               prefix=("prlimit", "--nofile=%d:%d" % (FEW, FEW))) as server:
        admin = server.await_log(lambda l: l["event"] == "listening")["metrics_port"]
        server.await_log(lambda l: l["event"] == "connections")
        text = server.generate("small", prompt=PROMPT, max_tokens=10, temperature=0).json["text"]
        before = descriptors(server)
        answers = Answers(server, 4)
        time.sleep(0.1)
        held = flood(server, FLOOD)
        end = time.monotonic() + 120
        while descriptors(server) <= before + 4:
            check(time.monotonic() < end, descriptors(server), "descriptors")
            time.sleep(0.05)
        check(descriptors(server) <= FEW, descriptors(server), "descriptors")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin, timeout=120)) as asks:
            asks.request("GET", "/health")
            equal(asks.getresponse().status, 200, "health beside the flood")
        answers.ended_well()
        share = busiest(server, 1)
        check(share < 0.5, "a thread is busy for", share, "of the time, with nothing to do")
        for s in held:
            s.close()
        serves_again(server, before, text)
        refuses_quietly(server)


def no_descriptor_at_all():
    """The limit falls below what is open, so that not even a first connection can be taken."""
    with Costd(*TWO, "--head-seconds", "60") as server:
        text = server.generate("small", prompt=PROMPT, max_tokens=10, temperature=0).json["text"]
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        time.sleep(0.2)
        before = descriptors(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (before, limits[1]))
        held = flood(server, FLOOD)
        time.sleep(0.2)
        share = busiest(server, 1)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        for s in held:
            s.close()
        serves_again(server, before, text)
        refuses_quietly(server)
        check(share < 0.5, "a thread is busy for", share, "of the time, with nothing to do")


run(a_flood_under_a_low_limit, no_descriptor_at_all)
