"""What the tests of monitoring share: where things are."""
import os
import shutil
import sys

SOURCE = os.environ.get("CINF_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("CINF_BUILD", os.path.join(SOURCE, "build"))
DASHBOARDS = os.path.join(SOURCE, "dashboards")
RUNBOOK = os.path.join(SOURCE, "docs", "runbook.md")
COSTD = os.path.join(BUILD, "bin", "costd")


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            skip(p + " is absent (scripts/setup.sh --all)")
    try:
        import yaml  # noqa: F401
    except ImportError:
        skip("python3-yaml is absent")


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what))


def no(findings):
    check(not findings, "\n  " + "\n  ".join(findings))
