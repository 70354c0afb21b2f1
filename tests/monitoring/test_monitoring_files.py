#!/usr/bin/env python3
"""The files of dashboards/ and the pages that belong to them, without a server: rules, dashboards, provisioning,
METRICS.md."""
import json
import os
import shutil
import subprocess
import sys

from monitoring_support import BUILD, COSTD, DASHBOARD, DASHBOARDS, RUNBOOK, SOURCE, check, need, no, skip

need("promtool")
sys.dont_write_bytecode = True

import dashboard_rules  # noqa: E402
import files_rules  # noqa: E402
import promql  # noqa: E402


def every_expression(dashboard):
    for p in dashboard["panels"]:
        for t in p.get("targets", []):
            yield p["title"], t["expr"]
    for r in files_rules.alert_rules(DASHBOARDS):
        yield r["alert"], r["expr"]
    for g in files_rules.load(DASHBOARDS, "prometheus", "recording-rules.yml")["groups"]:
        for r in g["rules"]:
            yield r["record"], r["expr"]


with open(DASHBOARD, encoding="utf-8") as f:
    dashboard = json.load(f)
no(dashboard_rules.findings(dashboard))
no(files_rules.prometheus_findings(DASHBOARDS, RUNBOOK))
check(files_rules.count_scenarios(DASHBOARDS) >= 15, "scenarios:", files_rules.count_scenarios(DASHBOARDS))
no(files_rules.provisioning_findings(DASHBOARDS))
no(files_rules.compose_findings(DASHBOARDS))
if shutil.which("amtool"):
    no(files_rules.alertmanager_findings(DASHBOARDS))

# Panels of the README: those of the dashboard, in its order.
with open(os.path.join(DASHBOARDS, "README.md"), encoding="utf-8") as f:
    readme = f.read()
table = readme.partition("## The panels")[2].partition("## ")[0]
listed = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ") and "`" in line]
panels = [p["title"] for p in dashboard["panels"] if p["type"] != "row"]
check(listed == panels, "README.md lists", listed, "the dashboard has", panels)

# Nothing is asked for that nobody shows.
with open(os.path.join(SOURCE, "docs", "METRICS.md"), encoding="utf-8") as f:
    shown = {line[5:-2] for line in f if line.startswith("### `")}
shown |= {name + part for name in shown for part in ("_bucket", "_count", "_sum")} | {"up"}
asked = 0
for where, expr in every_expression(dashboard):
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
