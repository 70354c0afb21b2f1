"""Functions that the tests of the costinfer program share."""

import json
import os
import subprocess
import sys

SOURCE = os.environ["CINF_SOURCE"]
PROGRAM = os.path.join(os.environ["CINF_BUILD"], "bin", "costinfer")
MODELS = [os.path.join(SOURCE, "examples", "models", name) for name in ("stories-small", "stories-large")]
GOLDEN = os.path.join(SOURCE, "tests", "golden")


def run(*arguments, given=b""):
    """Runs the program to its end: (exit status, standard output, standard error as text)."""
    done = subprocess.run([PROGRAM, *arguments], input=given, capture_output=True, timeout=300)
    error = done.stderr.decode()
    assert "Sanitizer" not in error, error
    return done.returncode, done.stdout, error


def good(*arguments, given=b""):
    status, output, error = run(*arguments, given=given)
    assert status == 0, f"{arguments}: exit status {status}: {error}"
    return output


def parsed(*arguments, given=b""):
    return json.loads(good(*arguments, given=given))


def refused(status, words, *arguments, given=b""):
    """The program fails with `status` and one line that contains each of `words`; nothing on stdout."""
    got, output, error = run(*arguments, given=given)
    assert got == status, f"{arguments}: exit status {got}, not {status}: {error}"
    assert output == b"", f"{arguments}: {output[:80]} on standard output"
    assert error.startswith("costinfer") and error.count("\n") == 1, f"{arguments}: not one line: {error!r}"
    for word in words:
        assert word in error, f"{arguments}: {error!r} does not say {word!r}"
    return error


def expected(model):
    with open(os.path.join(model, "expected.json"), encoding="utf-8") as file:
        return json.load(file)


def main(tests):
    if not os.path.exists(PROGRAM):
        print(f"skipped: {PROGRAM} was not built")
        sys.exit(77)
    for test in tests:
        test()
        print("ok", test.__name__)
