"""The API reference is built without a warning, has every exported function, and Doxygen does warn about what is
not documented."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2]))


def doxygen(headers, out):
    """Exit status, and all it said."""
    configuration = f"@INCLUDE = {SOURCE / 'docs/api/Doxyfile'}\nGENERATE_XML = YES\nXML_PROGRAMLISTING = NO\n"
    done = subprocess.run(["doxygen", "-"], input=configuration, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "CINF_SOURCE": str(SOURCE),
                                                         "CINF_HEADERS": str(headers), "CINF_OUT": str(out)})
    return done.returncode, done.stdout


def functions(out):
    for path in (out / "xml").glob("*.xml"):
        for member in ElementTree.parse(path).iter("memberdef"):
            if member.get("kind") == "function":
                yield member.findtext("name")


if not shutil.which("doxygen"):
    print("skipped: doxygen is not installed (scripts/setup.sh)")
    sys.exit(77)
with tempfile.TemporaryDirectory(prefix="costinfer-reference-") as folder:
    out = pathlib.Path(folder)
    status, said = doxygen(SOURCE / "include/costinfer", out)
    assert status == 0 and not said, said
    listed = set((SOURCE / "tests/abi/libcostinfer.sym").read_text().split())
    assert set(functions(out)) == listed, set(functions(out)) ^ listed
    assert "Threads and lifetimes" in (out / "html/index.html").read_text()

    headers = out / "headers"
    for what, bare in (("struct", "struct cinf_bare {\n    int n; /* of something */\n};\n"),
                       ("variable", "/* A struct. */\nstruct cinf_bare {\n    int n;\n};\n"),
                       ("function", "CINF_API int cinf_bare(void);\n"),
                       ("enum", "enum cinf_bare { CINF_BARE };\n"),
                       ("macro", "#define CINF_BARE 1\n")):
        shutil.copytree(SOURCE / "include/costinfer", headers, dirs_exist_ok=True)
        (headers / "bare.h").write_text(f"/* bare.h - one thing without a comment. */\n#include \"status.h\"\n{bare}")
        status, said = doxygen(headers, out / "bare")
        assert status != 0 and re.search(r"\bbare\.h:\d+: .*is not documented", said), f"{what}: {said}"
print(len(listed), "functions are documented")
