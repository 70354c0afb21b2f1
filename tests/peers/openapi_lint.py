#!/usr/bin/env python3
"""/openapi.json before a linter that others wrote: Redocly's, from npm, with its recommended rules.

    tests/peers/openapi_lint.py

Without CINF_BUILD costd is taken from build/."""
import json
import os
import subprocess

from peers_support import from_npm

from costd_support import TWO, Costd, check, equal

LINTER = "@redocly/cli@2.77.0"  # one package, nothing resolved
FOLDER = from_npm("openapi-lint", LINTER)


def lint(document):
    """The rules that the document breaks."""
    path = os.path.join(FOLDER, "openapi.json")
    with open(path, "w") as f:
        json.dump(document, f, indent=1)
    ran = subprocess.run(["node", os.path.join(FOLDER, "node_modules", "@redocly", "cli", "bin", "cli.js"), "lint",
                          "--format=json", path], cwd=FOLDER, capture_output=True, timeout=120, check=False,
                         env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"})
    found = json.loads(ran.stdout)
    for problem in found["problems"]:
        print(problem["severity"], problem["ruleId"], problem["message"], problem["location"][0].get("pointer"))
    equal(ran.returncode != 0, any(p["severity"] == "error" for p in found["problems"]), ran.stderr)
    return [p["ruleId"] for p in found["problems"]]


with Costd(*TWO) as server:
    good = json.loads(server.get("/openapi.json").body)
    equal(lint(good), [], "problems")

print("and it would say so:")
broken = json.loads(json.dumps(good))
broken["paths"]["/v1/completions"]["post"]["operationId"] = broken["paths"]["/metrics"]["get"]["operationId"]
check("operation-operationId-unique" in lint(broken), "two operations of one name pass")
broken = json.loads(json.dumps(good))
broken["components"]["schemas"]["Stop"]["maxLength"] = "many"
check("struct" in lint(broken), "a bound that is no number passes")
