"""What is wrong with a page of metrics, or between two of them."""
import re
import subprocess

# Grows by itself, or at loading, before anything was asked.
EARLY = re.compile(r'process_|costd_|costinfer_|gpu_|model_loaded|model_device_seconds_total\{.*phase="load"')


def samples(text):
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
            if line and not line.startswith("#")}


def text_findings(page):
    """page: bytes of text format 0.0.4."""
    run = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    return [] if run.returncode == 0 else [f"text: {run.stdout + run.stderr!r}"]


def openmetrics_findings(page):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    if re.search(rb'le="\d+"', page):
        return ["openmetrics: le without a decimal point is another series than with one"]
    try:
        list(parse(page.decode()))
        return []
    except (ValueError, KeyError) as e:
        return [f"openmetrics: {e}"]


def start_findings(first, later):
    """A process's first page against one after traffic: all series are there from the start, at 0."""
    first, later = samples(first), samples(later)
    out = [f"start: {s} comes late: its first rise is never seen" for s in later if s not in first]
    return out + [f"start: {s} begins at {v}: a restored counter is counted twice" for s, v in first.items()
                  if v != 0 and not EARLY.match(s)]
