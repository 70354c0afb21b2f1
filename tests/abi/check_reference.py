"""The API reference is built without a warning, has every exported function and every value of an enum, and Doxygen
does warn about what is not documented.  The C++ header has one, too."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[2]))


def doxygen(headers, out, file="Doxyfile"):
    """Returns the exit status and all output."""
    configuration = f"@INCLUDE = {SOURCE / 'docs/api' / file}\nGENERATE_XML = YES\nXML_PROGRAMLISTING = NO\n"
    done = subprocess.run(["doxygen", "-"], input=configuration, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "CINF_SOURCE": str(SOURCE),
                                                         "CINF_HEADERS": str(headers), "CINF_OUT": str(out)})
    return done.returncode, done.stdout


def functions(out):
    for path in out.glob("*.xml"):
        for member in ElementTree.parse(path).iter("memberdef"):
            if member.get("kind") == "function":
                yield member.findtext("name")


def values(out):
    """Returns the values of all enums and whether they are documented; the pages leave out those that are not."""
    for path in out.glob("*.xml"):
        for value in ElementTree.parse(path).iter("enumvalue"):
            text = "".join(t for part in ("briefdescription", "detaileddescription") for t in value.find(part).itertext())
            yield value.findtext("name"), bool(text.strip())


if not shutil.which("doxygen"):
    print("skipped: doxygen is not installed (scripts/setup.sh)")
    sys.exit(77)
with tempfile.TemporaryDirectory(prefix="costinfer-reference-") as folder:
    out = pathlib.Path(folder)
    status, said = doxygen(SOURCE / "include/costinfer", out)
    assert status == 0 and not said, said
    listed = set((SOURCE / "tests/abi/libcostinfer.sym").read_text().split())
    assert set(functions(out / "xml")) == listed, set(functions(out / "xml")) ^ listed
    described = dict(values(out / "xml"))
    assert len(described) > 60 and all(described.values()), [name for name in described if not described[name]]
    status, said = doxygen(SOURCE / "include/costinfer", out, "Doxyfile-cpp")
    assert status == 0 and not said, said
    methods = set(functions(out / "xml/cpp"))
    assert {"submit", "generate", "encode", "charge", "set_gpu_taken", "profile"} <= methods, methods
    assert "engine.load" in (out / "html/cpp/index.html").read_text()
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
