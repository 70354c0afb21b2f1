"""Clients that take their time: bytes that drip in, connections that stay idle, too many of them, and those that
leave in the middle."""
import json
import os
import socket
import time

from costd_support import LARGE, SMALL, Costd, check, equal, in_time, run, together

MODELS = ["--model", "small=" + SMALL, "--model", "large=" + LARGE]


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=120)


def closed_after(s, data=b"", every=0.1, most=120):
    """Sends the bytes one by one, then none; seconds until the server has closed."""
    start = time.monotonic()
    s.settimeout(every)
    at = 0
    while time.monotonic() - start < most:
        try:
            if at < len(data):
                s.sendall(data[at:at + 1])
                at += 1
            if s.recv(65536) == b"":
                return time.monotonic() - start
        except socket.timeout:
            continue
        except OSError:
            return time.monotonic() - start
    raise AssertionError("still open after %s s" % most)


def answer_to(server, data, seconds=120):
    """All that comes back to what never becomes a whole request."""
    with connect(server) as s:
        s.sendall(data)
        s.settimeout(seconds)
        out = b""
        while part := s.recv(65536):
            out += part
        return out


def what_arrives_too_slowly_is_told_so():
    with Costd(*MODELS[:2], "--head-seconds", "1", "--body-seconds", "1", "--idle-seconds", "2") as server:
        line = b"POST /tokenize HTTP/1.1\r\n"
        head = line + b"Host: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        begun = (line, head[:-2], head, head + b"{")
        *late, silent, half_a_line, idle, second = together(
            *(lambda data=data: answer_to(server, data) for data in (*begun, b"", b"GET /he", get, get + head)))
        for out in late:
            headers, _, body = out.partition(b"\r\n\r\n")
            check(headers.startswith(b"HTTP/1.1 408 "), out)
            check(b"\r\nConnection: close\r\n" in headers and b"\r\nx-request-id: req-" in headers, headers)
            check(b"\r\nContent-Length: %d" % len(body) in headers, out)
            equal(json.loads(body)["error"]["code"], "request_timeout")
        # Who has asked nothing gets no answer: not at first, and not after an answer.
        equal((silent, half_a_line), (b"", b""))
        equal(idle.count(b"HTTP/1.1 "), 1, idle)
        # A second request on the connection is no different.
        check(second.startswith(b"HTTP/1.1 200 ") and second.count(b"HTTP/1.1 408 ") == 1, second)
        # The log has those whose request line and headers had come, with their ids.
        ids = set()
        for _ in range(3):
            ids.add(server.await_log(lambda l: l.get("code") == "request_timeout" and l["id"] not in ids)["id"])
        equal(sum(l["status"] == 408 for l in server.requests_logged()), 3)


def drips_are_cut_off():
    with Costd(*MODELS[:2], "--head-seconds", "1", "--body-seconds", "1", "--idle-seconds", "2") as server:
        head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

        # Bytes keep coming, but the deadline is absolute.
        def a_head():
            in_time(5, lambda: closed_after(connect(server), head), "a head that drips")

        def nothing():
            in_time(5, lambda: closed_after(connect(server)), "a silent connection")

        def a_body():
            def drip():
                s = connect(server)
                s.sendall(head)
                return closed_after(s, b" " * 500)

            in_time(5, drip, "a body that drips")

        # A connection that is kept alive waits longer between requests; a head that has begun does not.
        def between_requests():
            s, asked = connect(server), time.monotonic()
            s.sendall(get)
            check(s.recv(65536).startswith(b"HTTP/1.1 200"), "the first")
            time.sleep(1.2)
            asked_again = time.monotonic()
            try:
                s.sendall(get)
                kept = s.recv(65536).startswith(b"HTTP/1.1 200")
            except OSError:
                kept = False
            if not kept:
                # Unless this thread slept for longer than the connection may.
                check(time.monotonic() - asked > 2, "not kept alive")
                return
            closed_after(s)
            check(time.monotonic() - asked_again > 1.2, "idle:", time.monotonic() - asked_again)

        def a_second_head():
            def drip():
                s = connect(server)
                s.sendall(get)
                s.recv(65536)
                s.sendall(get[:-2])
                return closed_after(s)

            in_time(5, drip, "a second head that is too slow")

        together(a_head, nothing, a_body, between_requests, a_second_head)
        # None of it disturbs anybody else, or a request that takes longer than all deadlines.
        equal(server.get("/health").status, 200)


def a_long_generation_has_no_deadline():
    with Costd(*MODELS, "--head-seconds", "1", "--body-seconds", "1", "--idle-seconds", "1") as server:
        body = server.complete(model="large", prompt="Once", max_tokens=30, n=16,
                               ignore_eos=True).json
        equal(body["usage"]["completion_tokens"], 16 * 30)


def there_is_a_limit_of_connections():
    with Costd(*MODELS[:2], "--connections", "8") as server:
        held = [connect(server) for _ in range(12)]
        equal([served(s) for s in held[:8]], [True] * 8)
        equal([served(s, 0.3) for s in held[8:]], [False] * 4)  # closed, or not taken
        for s in held:
            s.close()
        equal(server.get("/health").status, 200)


def sockets(server):
    """How many sockets the daemon has open."""
    folder = "/proc/%d/fd/" % server.process.pid
    count = 0
    for fd in os.listdir(folder):
        try:
            count += os.readlink(folder + fd).startswith("socket:")
        except OSError:  # closed since it was listed
            pass
    return count


def a_closed_client_holds_nothing():
    """What a client sent and that it closed arrive together when it had to wait to be accepted."""
    post = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: 1000\r\n"
    left_at = {
        "its first line": post[:9],
        "its head": post,
        "the end of its head": post + length + b"\r\n",
        "its body": post + length + b"\r\n{",
        "a wait for 100": post + length + b"Expect: 100-continue\r\n\r\n",
        "a chunk": post + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
        "an answer": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    # Longer deadlines than the test waits.
    with Costd(*MODELS[:2], "--connections", "100", "--head-seconds", "100", "--body-seconds", "100",
               "--idle-seconds", "100") as server:
        before = sockets(server)
        for where, data in left_at.items():
            held = [connect(server) for _ in range(300)]
            for s in held:
                s.sendall(data)
            for s in held:
                s.close()
            # Others are served, and soon all is as it was.
            equal(server.ask("GET", "/health", timeout=120).status, 200, where)
            end = time.monotonic() + 120
            while sockets(server) > before:
                check(time.monotonic() < end, "connections that were closed in", where, "are held:",
                      sockets(server) - before)
                time.sleep(0.05)


def who_only_stops_sending_is_answered():
    with Costd(*MODELS[:2]) as server:
        body = b'{"content":"' + b"a" * 20000 + b'"}'
        for data in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body):
            with connect(server) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                out = b""
                while part := s.recv(65536):
                    out += part
                head, _, answer = out.partition(b"\r\n\r\n")
                check(head.startswith(b"HTTP/1.1 200 "), head)
                json.loads(answer)


def served(s, seconds=120):
    """Whether a connection is: the server closes those that are one too many."""
    s.settimeout(seconds)
    try:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        return s.recv(65536) != b""
    except OSError:
        return False


def there_is_a_limit_of_connections_per_address():
    with Costd(*MODELS[:2], "--connections-per-address", "8") as server:
        held = [connect(server) for _ in range(12)]
        equal([served(s) for s in held], [True] * 8 + [False] * 4)
        # Another address has its own eight.
        with socket.create_connection(("127.0.0.1", server.port), timeout=120, source_address=("127.0.0.2", 0)) as s:
            check(served(s), "another address is served")
        for s in held:
            s.close()
        end = time.monotonic() + 120
        while not served(connect(server)):
            check(time.monotonic() < end, "the address may not come back")
            time.sleep(0.05)


if __name__ == "__main__":
    run(what_arrives_too_slowly_is_told_so, drips_are_cut_off, a_long_generation_has_no_deadline,
        there_is_a_limit_of_connections,
        a_closed_client_holds_nothing, who_only_stops_sending_is_answered,
        there_is_a_limit_of_connections_per_address, at_once=True)
