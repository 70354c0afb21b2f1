"""Names that clients make up: they get an answer, and no place in the metrics, the log's lines or memory."""
import random
import socket
import urllib.parse

from costd_support import SMALL, Costd, check, equal, run, sanitized

N = 10000
HOSTILE = [b"\x01", b"\x7f", b"\x80\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"%00", b"%0d%0aX-Injected:%20yes", b"%", b"%zz",
           b"..", b"/../../etc/passwd", b"//", b"\"", b"\\", b"{}", b"${jndi:x}", b"<script>", b"'; drop", b"%ff",
           "é漢𝄞\u202e".encode(), b"%F0%9F%92%A9", b"a" * 300, b"?", b"&x=", b";", b"small", b"model_name=\"small\""]
PREFIXES = [b"/", b"/v1/", b"/v1/models/", b"/v1/generate/", b"/metrics/", b"/admin/models/", b"/api/", b""]


def a_name(chance):
    parts = [chance.choice(HOSTILE) if chance.random() < 0.5 else
             bytes(chance.choice(b"abcdefghijklmnop0123456789-_.~") for _ in range(chance.randint(1, 12)))
             for _ in range(chance.randint(2, 4))]
    return b"".join(parts)


def a_request(chance):
    """In the path, in the body, or as a method."""
    name, kind = a_name(chance), chance.random()
    if kind < 0.5:
        prefix = chance.choice(PREFIXES)
        body = b'{"prompt": "x"}' if prefix == b"/v1/generate/" else b""
        method = b"POST" if body else chance.choice([b"GET", b"GET", b"DELETE", b"HEAD"])
        path = prefix + name
    elif kind < 0.9:
        method, path = b"POST", chance.choice([b"/v1/completions", b"/tokenize"])
        quoted = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        body = b'{"model": "%s", "user": "%s", "prompt": "x", "content": "x", "max_tokens": 0}' % (quoted, quoted)
    else:
        method, path, body = b"POST", b"/v1/generate/" + urllib.parse.quote_from_bytes(name, safe="").encode(), b"{}"
    return (b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" %
            (method, path, len(body)) + body)


class Client:
    """One connection after the other, as the server closes them."""

    def __init__(self, server):
        self.server, self.socket, self.statuses = server, None, {}

    def ask(self, request):
        if not self.socket:
            self.socket = socket.create_connection(("127.0.0.1", self.server.port), timeout=120)
        self.socket.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.socket.recv(65536)
            if not part:
                break
            head += part
        head, _, body = head.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        status = head.split(b" ")[1] if head else b"closed"
        self.statuses[status] = self.statuses.get(status, 0) + 1
        check(b"X-Injected" not in fields, "a header of the client's making")
        left = 0 if request.startswith(b"HEAD") else int(fields.get(b"Content-Length", b"0")) - len(body)
        while left > 0:
            left -= len(self.socket.recv(left))
        if not head or fields.get(b"Connection") == b"close":
            self.socket.close()
            self.socket = None
        return status


def series(server):
    return {(name, labels) for name, labels in server.metrics()}


def resident(server):
    with open("/proc/%d/statm" % server.process.pid) as f:
        return int(f.read().split()[1]) * 4096


def ten_thousand_names():
    with Costd("--model", "small=" + SMALL) as server:
        # Every kind of error there is a counter for, so that none has its first time below.
        server.generate("small", prompt="x", max_tokens=1)
        server.post("/v1/completions", {"model": "small", "prompt": "x", "max_tokens": -1})
        client, chance = Client(server), random.Random(3)
        for _ in range(500):
            client.ask(a_request(chance))
        before, bytes_before = series(server), resident(server)
        names = set()
        for _ in range(N):
            request = a_request(chance)
            names.add(request)
            client.ask(request)
        print(client.statuses, resident(server) - bytes_before)
        check(len(names) > 0.9 * N, len(names), "different requests")
        check(client.statuses.get(b"404", 0) > N / 4 and client.statuses.get(b"400", 0) > N / 20, client.statuses)
        check(all(status[:1] in (b"2", b"4", b"c") for status in client.statuses), client.statuses)
        equal(series(server) - before, set(), "new series")
        equal(before - series(server), set(), "lost series")
        grown = resident(server) - bytes_before
        check(grown < 1 << 20 or sanitized(), grown, "bytes more")
        page = server.get("/api/recent").body + server.get("/api/history").body
        check(b"jndi" not in page and b"etc/passwd" not in page, "names on the page")
        equal(server.generate("small", prompt="x", max_tokens=1).status, 200)


run(ten_thousand_names)
