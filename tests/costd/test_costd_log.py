"""The log's reader: one that is slow, stuck or gone, a full disk, no stderr at all.  None of them holds up service or
the end, what is dropped is counted, and what is written is in order."""
import fcntl
import http.client
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import threading
import time

from costd_support import COSTD, SMALL, check, equal, parse_metrics, run, temp_folder, total

QUIET_SECONDS = 60  # for what takes milliseconds on an idle machine


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Unread:
    """costd whose stderr is the test's business."""

    def __init__(self, stderr, *arguments, **options):
        self.port = free_port()
        self.process = subprocess.Popen([COSTD, "--listen", "127.0.0.1:%d" % self.port, "--model", "small=" + SMALL,
                                         *arguments], stderr=stderr, stdout=subprocess.DEVNULL, **options)

    def __enter__(self):
        end = time.monotonic() + QUIET_SECONDS
        while True:
            try:
                if self.get("/ready")[0] == 200:
                    return self
            except OSError:
                pass
            check(self.process.poll() is None and time.monotonic() < end, "costd does not get ready")
            time.sleep(0.02)

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=QUIET_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def generate(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=QUIET_SECONDS)
        connection.request("POST", "/v1/generate/small", json.dumps({"prompt": "Once", "max_tokens": 2}),
                           {"Content-Type": "application/json"})
        equal(connection.getresponse().status, 200)
        connection.close()

    def ask_many(self, n, first=0):
        """Lines of about 1,300 bytes, because the log escapes the paths; each ends in its number."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=QUIET_SECONDS)
        for i in range(first, first + n):
            connection.request("GET", "/%06d" % i + '"' * 190, headers={"x-request-id": "n" * 120 + "%06d" % i})
            response = connection.getresponse()
            equal(response.status, 404)
            response.read()
        connection.close()

    def dropped(self):
        return total(parse_metrics(self.get("/metrics")[1].decode()), "costd_log_dropped_lines_total")

    def stop(self):
        """Seconds until it has ended, well."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        equal(self.process.wait(QUIET_SECONDS), 0)
        return time.monotonic() - start

    def serves(self):
        equal(self.get("/health")[0], 200)
        equal(self.get("/metrics")[0], 200)
        self.generate()


class Reader(threading.Thread):
    """Reads a pipe to its end, from when it is started."""

    def __init__(self, fd, pause=0.0):
        super().__init__(daemon=True)
        self.fd, self.pause, self.data = fd, pause, b""

    def run(self):
        while True:
            try:
                part = os.read(self.fd, 65536)
            except OSError:  # a terminal whose other side has closed
                return
            if not part:
                return
            self.data += part
            time.sleep(self.pause)

    def lines(self):
        self.join(QUIET_SECONDS)
        check(self.data.endswith(b"\n"), "the last line is cut:", self.data[-200:])
        return [json.loads(line) for line in self.data.splitlines()]


def numbers(lines):
    return [int(line["request_id"][-6:]) for line in lines if line.get("request_id")]


def an_unread_pipe_stops_nothing():
    n = 4000
    ours, its = os.pipe()
    with Unread(its) as server:
        os.close(its)
        server.ask_many(n)
        server.serves()
        dropped = server.dropped()
        check(0 < dropped < n, "dropped", dropped)
        # The pipe is read: what was queued comes, then how many are missing there, then what follows.
        reader = Reader(ours)
        reader.start()
        end = time.monotonic() + QUIET_SECONDS
        while b'"dropped_lines"' not in reader.data:
            check(time.monotonic() < end, "no line about the dropped ones")
            time.sleep(0.02)
        server.ask_many(10, n)
        equal(server.dropped(), dropped, "nothing is dropped any more")
        server.stop()
        lines = reader.lines()
        got = numbers(lines)
        equal(got, sorted(got), "the order")
        equal(got[-10:], list(range(n, n + 10)))
        notes = [line for line in lines if "dropped_lines" in line]
        equal([(note["level"], note["event"]) for note in notes], [("warn", "log")] * len(notes))
        equal(sum(note["dropped_lines"] for note in notes), dropped)
        # One of the requests that serves() made is logged, or is among the dropped ones.
        missing = n + 10 - len(got)
        check(missing <= dropped <= missing + 1, missing, dropped)
        # Where the note stands is where the lines are missing.
        place = lines.index(notes[0])
        before, after = numbers(lines[:place]), numbers(lines[place:])
        check(before == list(range(len(before))), "a gap before the first note")
        check(after[0] > before[-1] + 1, before[-1], after[0])
        equal(lines[-1]["event"], "stopped")
    os.close(ours)


def it_ends_in_time_though_stuck():
    for idle in (True, False):
        ours, its = os.pipe()
        fcntl.fcntl(ours, 1031, 4096)  # F_SETPIPE_SZ
        with Unread(its) as server:
            os.close(its)
            server.ask_many(5 if idle else 3000)
            server.serves()
            seconds = server.stop()
            check(seconds < 15, "ended after", seconds)
        os.close(ours)


def a_slow_reader_gets_all():
    ours, its = os.pipe()
    with Unread(its) as server:
        os.close(its)
        server.ask_many(600)  # more than a pipe holds, less than the queue
        reader = Reader(ours, pause=0.05)
        reader.start()
        server.stop()
        lines = reader.lines()
        equal(numbers(lines), list(range(600)))
        equal(lines[-1]["event"], "stopped")
    os.close(ours)


def a_pipe_that_does_not_block():
    """Whose flags another process has changed."""
    ours, its = os.pipe()
    os.set_blocking(its, False)
    with Unread(its) as server:
        os.close(its)
        server.ask_many(300)
        server.serves()
        reader = Reader(ours)
        reader.start()
        server.stop()
        equal(numbers(reader.lines()), list(range(300)))
    os.close(ours)


def a_reader_that_has_gone():
    ours, its = os.pipe()
    with Unread(its) as server:
        os.close(its)
        os.close(ours)
        server.ask_many(20)
        server.serves()
        end = time.monotonic() + QUIET_SECONDS
        while server.dropped() < 20:
            check(time.monotonic() < end, "dropped", server.dropped())
        server.stop()


def a_terminal_that_is_stopped():
    ours, its = pty.openpty()
    with Unread(its) as server:
        os.close(its)
        server.ask_many(200)
        server.serves()
        reader = Reader(ours)
        reader.start()
        end = time.monotonic() + QUIET_SECONDS
        while b"000199" not in reader.data:
            check(time.monotonic() < end, "the terminal's lines do not come")
            time.sleep(0.02)
        server.stop()
    os.close(ours)


def a_socket_as_systemd_gives():
    ours, its = socket.socketpair()
    with Unread(its) as server:
        its.close()
        server.ask_many(1000)
        server.serves()
        server.stop()
    ours.close()


def a_full_disk():
    with open("/dev/full", "wb") as full, Unread(full) as server:
        server.ask_many(20)
        server.serves()
        end = time.monotonic() + QUIET_SECONDS
        while server.dropped() < 20:
            check(time.monotonic() < end, "dropped", server.dropped())
        cpu = time.process_time()
        server.stop()
        check(time.process_time() - cpu < 5)


def a_file_at_its_limit_and_beyond():
    """A line is cut there; when there is room again, the next one begins on a line of its own."""
    with temp_folder() as folder:
        path = os.path.join(folder, "log")
        with open(path, "ab") as log:
            limit = 16000
            with Unread(log, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                                   (limit, resource.RLIM_INFINITY))) as server:
                server.ask_many(40)
                server.serves()
                end = time.monotonic() + QUIET_SECONDS
                while server.dropped() == 0:
                    check(time.monotonic() < end)
                equal(os.path.getsize(path), limit)
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE,
                                 (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                server.ask_many(5, 100)
                dropped = server.dropped()
                server.stop()
        with open(path, "rb") as log:
            raw = log.read().splitlines()
        cut = []
        lines = []
        for line in raw:
            try:
                lines.append(json.loads(line))
            except ValueError:
                cut.append(line)
        check(len(cut) <= 1, cut)
        equal(numbers(lines)[-5:], list(range(100, 105)))
        equal(sum(line.get("dropped_lines", 0) for line in lines), dropped)
        # generate() is one request more.
        equal(len(numbers(lines)) + dropped - 1 in (44, 45), True, (len(lines), dropped))


def no_standard_descriptors():
    """Whatever is opened next must not become stderr: the log would go into a client's connection."""
    def close_all():
        for fd in range(3):
            os.close(fd)
    with Unread(None, preexec_fn=close_all) as server:
        server.serves()
        for fd in range(3):
            equal(os.readlink("/proc/%d/fd/%d" % (server.process.pid, fd)), "/dev/null")
        end = time.monotonic() + QUIET_SECONDS
        while server.dropped() == 0:  # counted, since they are not written
            check(time.monotonic() < end)
        server.stop()


def a_folder_that_is_locked_delays_the_start_only():
    with temp_folder() as folder:
        path = os.path.join(folder, "socket")
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([COSTD, "--model", "small=" + SMALL, "--listen", "unix:" + path],
                                   stderr=subprocess.PIPE, text=True)
        timer = threading.Timer(QUIET_SECONDS, process.kill)
        timer.start()
        equal(json.loads(process.stderr.readline())["event"], "listening")
        process.terminate()
        process.communicate()
        timer.cancel()
        equal(process.returncode, 0)
        os.close(lock)


if __name__ == "__main__":
    run(an_unread_pipe_stops_nothing, it_ends_in_time_though_stuck, a_slow_reader_gets_all, a_pipe_that_does_not_block,
        a_reader_that_has_gone, a_terminal_that_is_stopped, a_socket_as_systemd_gives, a_full_disk,
        a_file_at_its_limit_and_beyond, no_standard_descriptors, a_folder_that_is_locked_delays_the_start_only)
