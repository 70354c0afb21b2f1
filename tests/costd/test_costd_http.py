"""HTTP's own forms and limits: targets, encoded bodies, and what is refused before a handler sees it."""
import gzip
import json
import socket
import zlib

from costd_support import LARGE, SMALL, Costd, check, equal, run, total

MODELS = ["--model", "small=" + SMALL, "--model", "large=" + LARGE]
POST = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"model":"small","content":"a"}'
BOUND = 256 * 1024


def answer(server, data, seconds=60):
    """(status, headers, body) of the one answer: no answer of a deadline, which is 408."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as s:
        try:
            s.sendall(data)
        except OSError:  # refused before all of it was sent
            pass
        out = b""
        while b"\r\n\r\n" not in out:
            part = s.recv(65536)
            check(part, "closed after", out)
            out += part
        head, _, body = out.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        while len(body) < int(headers["content-length"]):
            part = s.recv(65536)
            check(part, "closed after", out)
            body += part
    check(headers["x-request-id"].startswith("req-"), headers)
    try:
        return int(lines[0].split(" ")[1]), headers, json.loads(body)
    except ValueError:
        raise AssertionError("not JSON: %r after %r" % (out[:2000], data[:200]))


def refused(server, status, code, data):
    seen, headers, body = answer(server, data)
    equal((seen, body["error"]["code"]), (status, code), data[:200])
    equal(set(body["error"]), {"message", "type", "param", "code"})
    equal(headers["content-type"], "application/json")
    return headers


def get(target, *headers):
    lines = ["GET %s HTTP/1.1" % target, *(headers or ["Host: x"]), "", ""]
    return "\r\n".join(lines).encode()


def chunked(data, extension=b""):
    return POST + b"Transfer-Encoding: chunked\r\n\r\n%x%s\r\n" % (len(data), extension) + data + b"\r\n0\r\n\r\n"


def whole(data, *headers):
    return POST + b"".join(h + b"\r\n" for h in headers) + b"Content-Length: %d\r\n\r\n" % len(data) + data


def targets_have_an_absolute_form():
    """RFC 9112, section 3.2.2: the authority counts, and the Host header does not."""
    with Costd(*MODELS[:2]) as server:
        for target in ("http://localhost/v1/models", "HTTP://127.0.0.1:8000/v1/models", "https://[::1]/v1/models?a=b",
                       "http://localhost:/v1/models?x", "/v1/models?url=http://elsewhere/"):
            status, _, body = answer(server, get(target))
            equal((status, body["data"][0]["id"]), (200, "small"), target)
        equal(answer(server, b"POST http://localhost/tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                             b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)[0], 200)
        # An empty path is "/": the page.
        for target in ("http://localhost", "http://localhost/", "http://localhost?a=b"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
                s.sendall(get(target))
                check(s.recv(65536).startswith(b"HTTP/1.1 200 "), target)
        # A name that is not ours is not, wherever it stands; one that is ours is, whatever the header says.
        equal(answer(server, get("http://evil.example/v1/models", "Host: localhost"))[0], 421)
        equal(answer(server, get("http://localhost/v1/models", "Host: evil.example"))[0], 200)
        equal(answer(server, get("/v1/models", "Host: evil.example"))[0], 421)
        for target in ("ftp://localhost/v1/models", "http:///v1/models", "http://", "http://a@localhost/", "x://y",
                       "http://local host/", "http://localhost:port/", "http://[::1/"):
            refused(server, 400, "malformed_request", get(target))


def a_query_may_have_many_arguments():
    with Costd(*MODELS[:2]) as server:
        for many in ("&".join("a%d=%d" % (i, i) for i in range(300)), "&".join(["a=1"] * 3000)):
            equal(answer(server, get("/health?" + many))[0], 200)
            for query in (many + "&range=24h", "range=24h&" + many, "&&" + many + "&&range=24h&range=abc&", "x&range=24h"):
                status, _, body = answer(server, get("/api/history?" + query))
                equal((status, body["range"]), (200, "24h"), query[-40:])
            equal(answer(server, get("/api/history?" + many + "&range=abc"))[0], 400)


def what_is_too_large_or_malformed_is_told_so():
    with Costd(*MODELS[:2]) as server:
        for n in (17000, 60000):
            refused(server, 414, "target_too_long", get("/" + "a" * n))
            refused(server, 414, "target_too_long", get("/health?" + "a=b&" * (n // 4)))
            refused(server, 431, "headers_too_large", get("/health", "Host: x", "X-A: " + "a" * n))
            refused(server, 431, "headers_too_large", get("/health", "Host: x", *("X-%d: a" % i for i in range(n // 20))))
            refused(server, 431, "headers_too_large",
                    get("/health", "Host: x", "Cookie: " + "; ".join("a%d=b" % i for i in range(n // 20))))
            refused(server, 431, "headers_too_large", chunked(BODY)[:-2] + b"X-A: " + b"a" * n + b"\r\n\r\n")
            refused(server, 400, "malformed_request", chunked(BODY, b";" + b"a" * n))
        for n in (10, 1000, 8000):
            equal(answer(server, chunked(BODY, b";" + b"a" * n))[2], {"tokens": [64]})
        refused(server, 400, "malformed_request", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        refused(server, 400, "malformed_request", b"GET /health\r\n\r\n")
        refused(server, 413, "body_too_large", POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n")
        refused(server, 413, "body_too_large", POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n")
        refused(server, 505, "unsupported_version", b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n")
        # Each has its line in the log, as every request.
        for status, code in ((414, "target_too_long"), (431, "headers_too_large"), (505, "unsupported_version")):
            server.await_log(lambda l: l["event"] == "request" and (l["status"], l.get("code")) == (status, code))
        equal(server.get("/health").status, 200)


def bodies_may_be_gzip():
    with Costd(*MODELS, "--body-bytes", str(BOUND)) as server:
        zipped = gzip.compress(BODY)
        for coding in (b"gzip", b"GZIP", b"x-gzip"):
            equal(answer(server, whole(zipped, b"Content-Encoding: " + coding))[2], {"tokens": [64]})
        equal(answer(server, whole(BODY, b"Content-Encoding: identity"))[2], {"tokens": [64]})
        equal(answer(server, POST + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(zipped) +
                     zipped + b"\r\n0\r\n\r\n")[2], {"tokens": [64]})
        # More than one member, empty ones among them, is one text.
        parts = b"".join(gzip.compress(part) for part in (BODY[:9], b"", BODY[9:], b""))
        equal(answer(server, whole(parts, b"Content-Encoding: gzip"))[2], {"tokens": [64]})
        # The bound is the plain body's, to the byte.
        fits = BODY[:-1] + b" " * (BOUND - len(BODY)) + BODY[-1:]
        equal(len(fits), BOUND)
        equal(answer(server, whole(gzip.compress(fits), b"Content-Encoding: gzip"))[2], {"tokens": [64]})
        bombs = [gzip.compress(fits + b" "), gzip.compress(b" " * 100000000), gzip.compress(b" " * 200000) * 100]
        before = total(server.metrics(), "process_resident_memory_bytes")
        for bomb in bombs:
            check(len(bomb) < BOUND, len(bomb))
            refused(server, 413, "body_too_large", whole(bomb, b"Content-Encoding: gzip"))
        check(total(server.metrics(), "process_resident_memory_bytes") - before < 32e6, "the bombs were unpacked")
        raw = zlib.compressobj(wbits=-15)
        wrong = (b"{}", zipped[:-1], zipped[:10], zipped[:-8] + b"\0" * 8, zipped + b"x", zlib.compress(BODY),
                 raw.compress(BODY) + raw.flush())
        for data in wrong:
            refused(server, 400, "malformed_request", whole(data, b"Content-Encoding: gzip"))
        # A generation is billed the same.
        body = json.dumps({"prompt": "Once", "max_tokens": 3, "ignore_eos": True}).encode()
        reply = server.ask("POST", "/v1/generate/small", gzip.compress(body),
                           {"Content-Type": "application/json", "Content-Encoding": "gzip"})
        equal((reply.status, reply.json["output_tokens"]), (200, 3))


def other_encodings_are_415():
    with Costd(*MODELS[:2]) as server:
        for headers in ([b"Content-Encoding: br"], [b"Content-Encoding: deflate"], [b"Content-Encoding: zstd"],
                        [b"Content-Encoding: gzip, gzip"], [b"Content-Encoding: gzip", b"Content-Encoding: gzip"],
                        [b"Content-Encoding: gzip;q=1"], [b"Content-Encoding: identity", b"Content-Encoding: br"]):
            seen = refused(server, 415, "unsupported_encoding", whole(BODY, *headers))
            equal(seen["accept-encoding"], "gzip")
        refused(server, 415, "unsupported_encoding",
                POST + b"Content-Encoding: br\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        # The connection goes on behind such a body, and a request without a body needs no decoding.
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
            s.sendall(whole(b"x" * 100000, b"Content-Encoding: br") + whole(BODY) + get("/health"))
            out = b""
            while out.count(b"HTTP/1.1 ") < 3 or not out.endswith(b'"ok"}\n'):
                part = s.recv(65536)
                check(part, out)
                out += part
            check(out.startswith(b"HTTP/1.1 415 "), out)
        equal(answer(server, get("/health", "Host: x", "Content-Encoding: br"))[0], 200)


if __name__ == "__main__":
    run(targets_have_an_absolute_form, a_query_may_have_many_arguments, what_is_too_large_or_malformed_is_told_so,
        bodies_may_be_gzip, other_encodings_are_415)
