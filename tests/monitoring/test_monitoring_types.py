#!/usr/bin/env python3
"""The dashboards against Grafana's own types: tsc and @grafana/schema, from npm; skipped where npm reaches no registry.

The type Dashboard takes any options and any custom field, so each panel's are held against the types of its kind, and
so are the custom properties of overrides.  An annotation that asks Prometheus has fields of the data source's own,
which are on no registry as types: they are declared here."""
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from monitoring_support import BUILD, DASHBOARDS, check, skip

sys.dont_write_bytecode = True

import files_rules  # noqa: E402

# The oldest version that dashboards/README.md names, and a later one.
SCHEMAS = {"schema-oldest": "@grafana/schema@11.6.0", "schema-newest": "@grafana/schema@13.2.3"}
PACKAGES = [f"{alias}@npm:{package}" for alias, package in SCHEMAS.items()] + ["typescript@5.9.3"]
KINDS = {"timeseries": "TimeSeries", "stat": "Stat", "bargauge": "BarGauge", "gauge": "Gauge"}
CUSTOM = {"timeseries"}  # the kinds that have fields of their own
# Enums are given as their values: the JSON has literals.
HEAD = """import type { Dashboard, AnnotationQuery } from '%(schema)s';
type L<T> = T extends string ? `${T}` : T extends number ? (number extends T ? number :
    `${T}` extends `${infer N extends number}` ? N : T) : T extends (infer U)[] ? L<U>[] :
    T extends object ? { [K in keyof T]: L<T[K]> } : T;
interface PrometheusAnnotation extends AnnotationQuery {
    expr: string; step?: string; titleFormat?: string; textFormat?: string; tagKeys?: string; useValueForTime?: boolean;
}
type Annotated = Omit<Dashboard, 'annotations'> & { annotations: { list: PrometheusAnnotation[] } };
"""


def panels(d):
    return {p["title"]: p for p in d["panels"]} if "panels" in d else {}


def options(d, title):
    return panels(d)[title]["options"]


def defaults(d, title):
    return panels(d)[title]["fieldConfig"]["defaults"]


def hidden(d):
    return panels(d)["Requests running and waiting"]["fieldConfig"]["overrides"][0]["properties"][0]


BROKEN = {  # what the compiler must refuse: each changes a dashboard in place
    "a wrapped dashboard": lambda d: d.update(dashboard=d.pop("panels")),
    "a width that is text": lambda d: panels(d)["Budget used"]["gridPos"].update(w="8"),
    "an unknown mode of thresholds": lambda d: defaults(d, "Budget used")["thresholds"].update(mode="relative"),
    "an unknown field of a panel": lambda d: panels(d)["Budget used"].update(colour="red"),
    "a stat's unknown option": lambda d: options(d, "Budget used").update(colour="value"),
    "a stat's unknown colour mode": lambda d: options(d, "Budget used").update(colorMode="foreground"),
    "a stat's reducers as text": lambda d: options(d, "Budget used")["reduceOptions"].update(calcs="last"),
    "a bar's name at the bottom": lambda d: options(d, "Cost by model").update(namePlacement="bottom"),
    "a bar's size as text": lambda d: options(d, "Cost by model").update(maxVizHeight="40"),
    "a gauge's option of a stat": lambda d: options(d, "GPU memory").update(graphMode="none"),
    "a legend that is a card": lambda d: options(d, "Tokens per second")["legend"].update(displayMode="card"),
    "a legend that is sorted by text": lambda d: options(d, "Tokens per second")["legend"].update(sortDesc="yes"),
    "a line that is a curve": lambda d: defaults(d, "Tokens per second")["custom"].update(drawStyle="curve"),
    "an unknown custom field": lambda d: defaults(d, "Tokens per second")["custom"].update(lineColour="red"),
    "a scale without a type": lambda d: defaults(d,
                                                 "Tokens per second")["custom"].update(scaleDistribution={"log": 10}),
    "an override of an unknown field": lambda d: hidden(d).update(id="custom.hidden"),
    "an override of another type": lambda d: hidden(d).update(value={"viz": "yes"}),
    "an annotation without a colour": lambda d: d["annotations"]["list"][0].pop("iconColor"),
    "an annotation's unknown field": lambda d: d["annotations"]["list"][0].update(textTemplate="x"),
    "a link of no type": lambda d: d["links"][0].update(type="url"),
}


def source(d, schema):
    """The dashboard as TypeScript: a constant for it, and one for each part that its type leaves open.  Grafana fills
    in what options leave out at their top, but not what is missing inside of one."""
    at = os.path.join("./node_modules", schema, "dist", "esm", "raw", "composable")
    out = [HEAD % {"schema": schema}]
    out += [f"import type * as {name} from '{at}/{kind}/panelcfg/x/{name}PanelCfg_types.gen';"
            for kind, name in KINDS.items()]
    out.append(f"export const d: L<Annotated> = {json.dumps(d)};")

    def part(name, kind, value):
        out.append(f"export const {name}: Partial<L<{kind}>> = {json.dumps(value)};")

    for p in d.get("panels", []):
        kind = KINDS.get(p["type"])
        if not kind:
            continue
        part(f"options{p['id']}", f"{kind}.Options", p["options"])
        if p["type"] not in CUSTOM:
            continue
        part(f"custom{p['id']}", f"{kind}.FieldConfig", p["fieldConfig"]["defaults"]["custom"])
        for i, o in enumerate(p["fieldConfig"]["overrides"]):
            fields = {q["id"].removeprefix("custom."): q["value"] for q in o["properties"]
                      if q["id"].startswith("custom.")}
            part(f"custom{p['id']}_{i}", f"{kind}.FieldConfig", fields)
    return "\n".join(out) + "\n"


def complaints(folder, files):
    """{file: the compiler's lines about it}; all in one run, because most of its time goes into the types."""
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    run = subprocess.run([os.path.join(folder, "node_modules", ".bin", "tsc"), "--noEmit", "--strict", "--skipLibCheck",
                          "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022", *files],
                         capture_output=True, text=True, cwd=folder)
    out = {name: [] for name in files}
    for line in run.stdout.splitlines():
        found = re.match(r"([^\s(]+)\(\d+,\d+\): error ", line)
        if found:
            check(found[1] in out, "the compiler complains about", line)
            out[found[1]].append(line)
    check(run.returncode == 0 or any(out.values()), run.stdout[:2000], run.stderr[:2000])
    return out


if not shutil.which("npm"):
    skip("npm is absent")
installed = os.path.join(BUILD, "grafana-schema")
if not all(os.path.exists(os.path.join(installed, "node_modules", m)) for m in [*SCHEMAS, os.path.join(".bin", "tsc")]):
    os.makedirs(installed, exist_ok=True)
    run = subprocess.run(["npm", "install", "--prefix", installed, "--no-audit", "--no-fund", "--ignore-scripts",
                          "--fetch-retries=1", *PACKAGES], capture_output=True, text=True)
    if run.returncode != 0:
        skip("npm could not install " + " ".join(PACKAGES) + ": " + run.stderr[-200:])

dashboards = files_rules.dashboards(DASHBOARDS)
files = {f"{name}-{schema}.ts": source(d, schema) for name, d in dashboards.items() for schema in SCHEMAS}
good = list(files)
for i, damage in enumerate(BROKEN.values()):
    d = copy.deepcopy(dashboards["model-cost.json"])
    damage(d)
    files[f"broken{i}.ts"] = source(d, "schema-newest")
with tempfile.TemporaryDirectory(prefix="monitoring-") as folder:
    os.symlink(os.path.join(installed, "node_modules"), os.path.join(folder, "node_modules"))
    found = complaints(folder, files)
for name in good:
    check(not found[name], name, "\n".join(found[name])[:3000])
for i, name in enumerate(BROKEN):
    check(found[f"broken{i}.ts"], "the compiler takes", name)
print(f"{sorted(dashboards)} have the types of {' and '.join(SCHEMAS.values())}; {len(BROKEN)} damaged copies do not")
