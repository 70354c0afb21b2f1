#!/usr/bin/env python3
"""The files of dashboards/ and the pages that belong to them, without a server: rules, dashboards, provisioning,
METRICS.md."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

from monitoring_support import BUILD, COSTD, DASHBOARDS, RUNBOOK, SOURCE, check, need, no, skip

need("promtool")
sys.dont_write_bytecode = True

import dashboard_rules  # noqa: E402
import files_rules  # noqa: E402
import promql  # noqa: E402


def every_expression(dashboards):
    for d in dashboards.values():
        for p in d["panels"]:
            for t in p.get("targets", []):
                yield p["title"], t["expr"]
        for a in d["annotations"]["list"]:
            yield a["name"], a["expr"]
    for r in files_rules.alert_rules(DASHBOARDS):
        yield r["alert"], r["expr"]
    for g in files_rules.load(DASHBOARDS, "prometheus", "recording-rules.yml")["groups"]:
        for r in g["rules"]:
            yield r["record"], r["expr"]


dashboards = files_rules.dashboards(DASHBOARDS)
check("model-cost.json" in dashboards, "dashboards:", sorted(dashboards))
for dashboard in dashboards.values():
    no(dashboard_rules.findings(dashboard))
no(files_rules.prometheus_findings(DASHBOARDS, RUNBOOK))
check(files_rules.count_scenarios(DASHBOARDS) >= 15, "scenarios:", files_rules.count_scenarios(DASHBOARDS))
no(files_rules.provisioning_findings(DASHBOARDS))
no(files_rules.compose_findings(DASHBOARDS))
no(files_rules.link_findings(DASHBOARDS))
if shutil.which("amtool"):
    no(files_rules.alertmanager_findings(DASHBOARDS))

# Panels of the README: those of each dashboard, in its order.
with open(os.path.join(DASHBOARDS, "README.md"), encoding="utf-8") as f:
    readme = f.read()
panels = []
for name, dashboard in dashboards.items():
    table = readme.partition(f"## The panels of {name}")[2].partition("## ")[0]
    listed = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ") and "`" in line]
    shown = [p["title"] for p in dashboard["panels"] if p["type"] != "row"]
    check(listed == shown, "README.md lists", listed, name, "has", shown)
    panels += shown

# The command of the README that replaces the base of the links leaves none behind, and the files stay good.
command = re.search(r"^    (grep .*docs\.example\.com.*(?:\n     .*)*)$", readme, re.M)[1]
with tempfile.TemporaryDirectory(prefix="monitoring-") as temp:
    copy = shutil.copytree(DASHBOARDS, os.path.join(temp, "dashboards"))
    os.remove(os.path.join(copy, "README.md"))
    subprocess.run(["bash", "-c", command.replace("https://YOURS/", "https://wiki.test/costd/")], cwd=copy, check=True)
    left = subprocess.run(["grep", "-r", "docs.example.com", copy], capture_output=True, text=True).stdout
    check(not left, "still there:", left)
    no(dashboard_rules.findings(files_rules.dashboards(copy)["model-cost.json"]))
    no(files_rules.link_findings(copy) + files_rules.provisioning_findings(copy))
    no(files_rules.prometheus_findings(copy, RUNBOOK))

# No expression asks for a metric that costd does not export.
with open(os.path.join(SOURCE, "docs", "METRICS.md"), encoding="utf-8") as f:
    shown = {line[5:-2] for line in f if line.startswith("### `")}
shown |= {name + part for name in shown for part in ("_bucket", "_count", "_sum")} | {"up"}
asked = 0
for where, expr in every_expression(dashboards):
    asked += 1
    unknown = {m for m in promql.metrics(expr) if m not in shown and ":" not in m}
    check(not unknown, where, "asks for", unknown)

print(f"{len(panels)} panels, {asked} expressions, {files_rules.count_scenarios(DASHBOARDS)} scenarios of rules")
demo = os.path.join(BUILD, "bin", "exposition_demo")
model = os.path.join(SOURCE, "examples", "models", "stories-small")
for path in (COSTD, demo, model):
    if not os.path.exists(path):
        skip(f"only METRICS.md, {path} is absent")
script = os.path.join(SOURCE, "scripts", "make_metrics_md.py")
sys.exit(subprocess.run([sys.executable, script, "--build", BUILD, "--check"]).returncode)
