"""The requests of smuggling_vectors.txt against costd; what its HTTP library takes all the same is named here.

    test_costd_vectors.py [--nginx]     with --nginx against that server instead, for reference"""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from costd_support import SMALL, Costd, check, equal, skip

HERE = os.path.dirname(os.path.abspath(__file__))
MACROS = {"<POST>": r"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n",
          "<BODY>": '{"model":"small","content":"a"}', "<REST>": '"model":"small","content":"a"}'}
FOLLOWER = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# What libmicrohttpd 0.9 does to a request before costd sees it.  Its 1.0 has none of these.
LIBMICROHTTPD_0_9 = {
    "chunk-size-bare-lf", "chunk-end-bare-lf", "lines-bare-lf",  # a line may end in LF alone
    "obs-fold-space", "obs-fold-tab",                            # folded lines are joined
    "name-empty",                                                # the line is dropped
    "value-with-nul", "target-with-nul",                         # cut at the NUL
}
# The same of nginx 1.22, as a proxy, for comparison.
NGINX_1_22 = {
    "chunk-size-bare-lf", "chunk-end-bare-lf", "lines-bare-lf", "host-with-user", "host-port-not-a-number",
    "name-with-bracket", "name-not-ascii", "line-without-colon", "value-with-control", "value-with-delete",
    "method-unknown", "version-1.2", "version-two-digits",
}


def unescaped(text):
    for name, value in MACROS.items():
        text = text.replace(name, value)
    text = re.sub(r"\{(.+?)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    short = {"r": b"\r", "n": b"\n", "t": b"\t"}
    return re.sub(rb"\\(?:x([0-9a-f]{2})|([rnt]))",
                  lambda m: bytes([int(m[1], 16)]) if m[1] else short[m[2].decode()], text.encode("latin-1"))


def vectors():
    with open(os.path.join(HERE, "smuggling_vectors.txt"), encoding="ascii") as f:
        for line in f:
            if not line.startswith("#"):
                name, expected, section, data = line.rstrip("\n").split("\t")
                yield name, expected, section, unescaped(data)


def exchange(port, data):
    """What comes back, and whether the server ended the connection."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        try:
            s.sendall(data + FOLLOWER)
        except OSError:  # refused before all of it was sent
            pass
        try:
            while True:
                part = s.recv(65536)
                if not part:
                    return out, True
                out += part
        except ConnectionError:
            return out, True
        except socket.timeout:
            return out, False


def outcome(port, data):
    out, ended = exchange(port, data)
    statuses = re.findall(rb"HTTP/1\.[01] (\d\d\d) ", out)
    if not ended:
        return "held open after " + (b" ".join(statuses).decode() or "nothing")
    if statuses and statuses[0] == b"200":
        return "200+" if statuses[1:] == [b"200"] else "200"
    # The follower alone is answered by 200.
    if len(statuses) <= 1 and all(s[:1] in b"45" for s in statuses):
        return "refuse"
    return "4xx" if statuses[0][:1] == b"4" else "answers " + b" ".join(statuses).decode()


def differing(port):
    seen = {}
    count = {"200": 0, "200+": 0, "4xx": 0, "refuse": 0}
    for name, expected, section, data in vectors():
        count[expected] += 1
        got = outcome(port, data)
        if got != expected and (expected, got) != ("4xx", "refuse"):
            seen[name] = got
            print("  %-28s RFC %-10s wanted %s, saw %s" % (name, section, expected, got), flush=True)
    print("%d of %d as expected" % (sum(count.values()) - len(seen), sum(count.values())))
    check(count["200"] + count["200+"] >= 6 and count["refuse"] >= 50, count)
    return set(seen)


def library_is_old():
    shown = subprocess.run(["pkg-config", "--modversion", "libmicrohttpd"], capture_output=True, text=True,
                           check=False).stdout
    return shown.startswith("0.9")


def costd():
    with Costd("--model", "small=" + SMALL) as server:
        equal(differing(server.port), LIBMICROHTTPD_0_9 if library_is_old() else set(), "exceptions")
        # The lines of the log are still one a request, and JSON; the daemon still answers.
        equal(server.get("/health").status, 200)


CONFIGURATION = """
daemon off; pid %(folder)s/pid; error_log stderr crit; worker_processes 1;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/f;
    uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s;
    server { listen 127.0.0.1:%(port)d; location / { proxy_pass http://127.0.0.1:%(behind)d; } }
    server { listen 127.0.0.1:%(behind)d; location / { return 200 "ok"; } }
}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def nginx():
    """In front of a server that says 200, so that it reads whole bodies."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not program:
        skip("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="costd-test-") as folder:
        os.chmod(folder, 0o755)
        port = free_port()
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as f:
            f.write(CONFIGURATION % {"folder": folder, "port": port, "behind": free_port()})
        process = subprocess.Popen([program, "-e", "stderr", "-p", folder, "-c", path])
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    check(process.poll() is None and time.monotonic() < end, "nginx does not start")
                    time.sleep(0.05)
            equal(differing(port), NGINX_1_22, "exceptions")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    nginx() if "--nginx" in sys.argv[1:] else costd()
