"""What the tests of other people's clients share: an environment of pinned packages for each client, made once in the
build folder, and a costd that is full.

A client's packages come from PyPI in the versions of requirements/<client>.txt: everything pinned, nothing resolved.
The test is skipped, with the reason, where they cannot be installed."""
import contextlib
import filecmp
import os
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.setdefault("CINF_SOURCE", os.path.dirname(os.path.dirname(HERE)))
BUILD = os.environ.setdefault("CINF_BUILD", os.path.join(SOURCE, "build"))
sys.path.insert(0, os.path.join(SOURCE, "tests", "costd"))
from costd_support import TWO, Costd, check, equal, skip, total  # noqa: E402

PROMPT = "Once upon a time"
PRICES = ["--cpu-cost-per-hour", "0.10"]
OVERLONG = "The cat sat on the mat. " * 200
# No client asks anything but costd: no telemetry, no lists of models, no proxies.
QUIET = {"NO_PROXY": "*", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
         "TRANSFORMERS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
         "LANGSMITH_TRACING": "false", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}


def _install(venv, wanted, needs):
    shutil.rmtree(venv, ignore_errors=True)
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    # torch from PyPI is 5 GB; Debian's is enough.
    if needs and subprocess.run([python, "-c", "import " + needs], capture_output=True, check=False).returncode != 0:
        skip("python3-" + needs + " is not installed (scripts/setup.sh --all)")
    seen = ["--system-site-packages"] if needs else []
    if subprocess.run([python, "-m", "venv", *seen, venv], check=False).returncode != 0:
        skip("python3-venv is not installed (scripts/setup.sh --all)")
    print("clients: making", venv, flush=True)
    # Some packages are published as source alone.
    made = subprocess.run([os.path.join(venv, "bin", "python"), "-m", "pip", "--disable-pip-version-check", "--quiet",
                           "--retries", "2", "install", "--no-deps", "-r", wanted], check=False)
    if made.returncode != 0:
        skip("PyPI does not give all of " + os.path.relpath(wanted, SOURCE))
    shutil.copy(wanted, os.path.join(venv, "requirements.installed"))


def program(client, name):
    """The path of a program of the client's environment."""
    return os.path.join(BUILD, "clients", client, "bin", name)


def enter(client, needs=None):
    """Goes on only in the Python that has the client; elsewhere this script is run again with it.  `needs`: a package
    that is Debian's own."""
    venv = os.path.join(BUILD, "clients", client)
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return
    wanted = os.path.join(HERE, "requirements", client + ".txt")
    stamp = os.path.join(venv, "requirements.installed")
    if not os.path.exists(stamp) or not filecmp.cmp(wanted, stamp, shallow=False):
        _install(venv, wanted, needs)
    home = os.path.join(BUILD, "clients", client + "-home")
    os.makedirs(home, exist_ok=True)
    python = os.path.join(venv, "bin", "python")
    os.execve(python, [python, os.path.abspath(sys.argv[0]), *sys.argv[1:]],
              {**os.environ, **QUIET, "HOME": home, "HF_HOME": home})


def version(package):
    import importlib.metadata
    print(package, importlib.metadata.version(package), flush=True)


def raises(kind, call):
    """The error of exactly this class that `call` raises."""
    try:
        call()
    except Exception as error:
        check(type(error) is kind, "wanted", kind.__name__, "saw", type(error).__mro__, repr(error))
        return error
    raise AssertionError("no " + kind.__name__)


def raises_soon(kind, call, seconds=60):
    """As raises(), where the call may get through a few times before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            call()
        except Exception as error:
            check(type(error) is kind, "wanted", kind.__name__, "saw", type(error).__mro__, repr(error))
            return error
    raise AssertionError("no " + kind.__name__)


class Full:
    """A costd with one slot and one place in its queue, both taken until release()."""

    def __init__(self):
        self._stop, self._refused = threading.Event(), threading.Event()

    def _occupy(self):
        while not self._stop.is_set():
            reply = self.server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 240, "ignore_eos": True})
            if reply.status == 429:
                self._refused.set()

    def release(self):
        self._stop.set()

    @classmethod
    @contextlib.contextmanager
    def server(cls):
        full = cls()
        with Costd("--model", TWO[3], "--queue", "1", "--kv-memory", "7M") as full.server:
            threads = [threading.Thread(target=full._occupy) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                check(full._refused.wait(60), "the queue is never full")
                yield full
            finally:
                full.release()
                for thread in threads:
                    thread.join()


def plain(server, **fields):
    """What costd answers without a client."""
    return server.complete(**{"model": "small", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}).json


def counted(server):
    """(prompt tokens, generated tokens) of all that was served."""
    metrics = server.settle()
    return tuple(int(total(metrics, "model_tokens_total", direction=d)) for d in ("input", "output"))
