#!/usr/bin/env python3
"""Prints the software bill of materials of a release as SPDX 2.3 JSON.

    scripts/make_sbom.py VERSION COMMIT BINARY...

The list has the project, the third-party code in the tree, and the Debian packages of the libraries that the binaries
link directly, with the versions installed here.  A library whose licence is not in LICENCES is an error.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.parse
from datetime import datetime, timezone

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# SPDX licences by the prefix of the Debian package's name.
LICENCES = {
    "libc6": "LGPL-2.1-or-later",
    "libcjson": "MIT",
    "libopenblas": "BSD-3-Clause",
    "ocl-icd-libopencl": "BSD-2-Clause",
    "libclblast": "Apache-2.0",
    "libmicrohttpd": "LGPL-2.1-or-later",
    "libsqlite3": "blessing",
    "libutf8proc": "MIT AND Unicode-DFS-2015",
    "zlib1g": "Zlib",
}
VENDORED = [("uPlot", "1.6.32", "MIT", "apps/costd/api/page/vendor/uPlot.iife.min.js")]


def linked(binaries):
    """(package, version) of every library that the binaries link, except our own."""
    resolved = {}
    for binary in binaries:
        out = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
        where = dict(re.findall(r"(\S+) => (/\S+)", out))
        needed = re.findall(r"\(NEEDED\).*\[(.+?)\]",
                            subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout)
        for name in needed:
            if not name.startswith(("libcostinfer", "ld-linux")):
                resolved[name] = os.path.realpath(where[name])
    packages = set()
    for path in resolved.values():
        for spelling in (path, path.removeprefix("/usr")):
            found = subprocess.run(["dpkg-query", "-S", spelling], capture_output=True, text=True)
            if found.returncode == 0:
                break
        else:
            sys.exit(f"make_sbom: {path} belongs to no Debian package")
        name = found.stdout.split(":")[0]
        version = subprocess.run(["dpkg-query", "-W", "-f=${Version}", name], check=True, capture_output=True, text=True)
        packages.add((name, version.stdout))
    return sorted(packages)


def licence_of(name):
    for beginning, licence in LICENCES.items():
        if name.startswith(beginning):
            return licence
    sys.exit(f"make_sbom: the licence of {name} is not in LICENCES")


def package(name, version, licence, **more):
    spdx_id = "SPDXRef-" + "".join(c if c.isalnum() or c in ".-" else "-" for c in name)
    return {"name": name, "SPDXID": spdx_id, "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": licence, "licenseDeclared": licence,
            "copyrightText": "NOASSERTION", **more}


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    version, commit, binaries = sys.argv[1], sys.argv[2], sys.argv[3:]
    when = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct", commit], check=True, capture_output=True,
                          text=True).stdout
    project = package("costinfer", version, "MIT")
    packages, relations = [project], []
    for name, vendored_version, licence, path in VENDORED:
        with open(os.path.join(ROOT, path), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        packages.append(package(name, vendored_version, licence,
                                checksums=[{"algorithm": "SHA256", "checksumValue": digest}]))
        relations.append((project["SPDXID"], "CONTAINS", packages[-1]["SPDXID"]))
    for name, found in linked(binaries):
        purl = f"pkg:deb/debian/{name}@{urllib.parse.quote(found, safe=':~')}"
        packages.append(package(name, found, licence_of(name), externalRefs=[
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]))
        relations.append((project["SPDXID"], "DYNAMIC_LINK", packages[-1]["SPDXID"]))
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"costinfer-{version}", "documentNamespace": f"https://spdx.invalid/costinfer/{version}/{commit}",
        "creationInfo": {"created": datetime.fromtimestamp(int(when), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                         "creators": ["Tool: scripts/make_sbom.py"]},
        "documentDescribes": [project["SPDXID"]],
        "packages": packages,
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
                          for a, kind, b in relations],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
