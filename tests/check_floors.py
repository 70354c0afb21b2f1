"""Checks what each folder includes.  The build lets every folder see all of include/, and lets compute/'s two devices
and costd's rooms see each other; this table does not."""
import os
import pathlib
import re
import sys

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[1]))
LIBRARY, COSTD, ALL = "libcostinfer/", "apps/costd/", None

# For each folder: the public headers that it may include, and the folders whose headers it may include beside its own.
TABLE = {
    LIBRARY + "base": ({"status"}, []),
    LIBRARY + "text": ({"status", "tokenizer"}, ["base"]),
    LIBRARY + "checkpoint": ({"status", "types", "checkpoint"}, ["base"]),
    LIBRARY + "meter": ({"status", "meter", "exposition"}, ["base"]),
    LIBRARY + "compute": ({"status", "types"}, ["base"]),
    LIBRARY + "compute/cpu": ({"status", "types"}, ["base", "compute"]),
    LIBRARY + "compute/opencl": ({"status", "types"}, ["base", "compute"]),
    LIBRARY + "model": ({"status", "types", "checkpoint"}, ["base", "checkpoint", "compute"]),
    LIBRARY + "ledger": ({"status", "meter", "ledger"}, ["base", "meter"]),
    LIBRARY + "engine": (ALL, ["base", "text", "checkpoint", "compute", "meter", "model"]),
    COSTD + "http": ({"status"}, [LIBRARY + "base"]),
    COSTD + "ops": (ALL, [LIBRARY + "base", COSTD + "http"]),
    COSTD + "api": (ALL, [LIBRARY + "base", COSTD + "http", COSTD + "ops"]),
    "apps/costd": (ALL, [LIBRARY + "base", COSTD + "http", COSTD + "ops", COSTD + "api"]),
    "apps/costinfer": (ALL, [LIBRARY + "base"]),
}
# Headers of other libraries, and the only folders that may include them.
ONLY_IN = {
    r"cblas\.h": [LIBRARY + "compute/cpu"],
    r"CL/.*|clblast.*": [LIBRARY + "compute/opencl"],
    r"cjson/.*": [LIBRARY + "base"],
    r"sqlite3\.h": [LIBRARY + "ledger"],
    r"microhttpd\.h": [COSTD + "http"],
    r"sys/socket\.h|netinet/.*|arpa/.*|netdb\.h": ["apps/costd/http"],
}
# Words that show that a folder knows what it should not.
NEVER = {
    LIBRARY + "engine": r"gpt2_\w+",
    COSTD + "http": r"models?|accounts?",
}

wrong = []
home = {}  # of each header
for folder in TABLE:
    for path in (SOURCE / folder).glob("*.h"):
        if path.name in home:
            wrong.append(f"{folder}/{path.name}: {home[path.name]} has a file of that name, too")
        home[path.name] = folder
known = {path.parent.relative_to(SOURCE).as_posix() for top in ("libcostinfer", "apps")
         for path in (SOURCE / top).rglob("*.[ch]")}
wrong += [f"{folder}: the table of {pathlib.Path(__file__).name} lacks it" for folder in sorted(known - set(TABLE))]
wrong += [f"{folder}: the table has it, but it holds no source" for folder in sorted(set(TABLE) - known)]

n = 0
for folder, (public, lower) in TABLE.items():
    may = {folder} | {name if "/" in name else LIBRARY + name for name in lower}
    for path in sorted((SOURCE / folder).glob("*.[ch]")):
        for i, line in enumerate(path.read_text().splitlines(), 1):
            word = folder in NEVER and re.search(rf"\b(?:{NEVER[folder]})\b", line)
            if word:
                wrong.append(f"{path.relative_to(SOURCE)}:{i}: the word {word[0]} has no place in {folder}")
            match = re.match(r'\s*#\s*include\s*(?:<([^>]+)>|"([^"]+)")', line)
            if not match:
                continue
            n += 1
            outer, inner = match.groups()
            at = f"{path.relative_to(SOURCE)}:{i}: {line.strip()}"
            if inner:
                where = home.get(inner)
                if where is None and not (path.parent / inner).exists():
                    wrong.append(f"{at}: unknown header")
                elif where and where not in may:
                    wrong.append(f"{at}: {folder} may not include {where}")
            elif outer.startswith("costinfer/"):
                if public is not ALL and outer.removeprefix("costinfer/").removesuffix(".h") not in public:
                    wrong.append(f"{at}: {folder} may include of <costinfer/…> only {', '.join(sorted(public))}")
            else:
                for pattern, folders in ONLY_IN.items():
                    if re.fullmatch(pattern, outer) and folder not in folders:
                        wrong.append(f"{at}: only {', '.join(folders)} may include it")
print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
print(f"{n} includes in {len(TABLE)} folders, {len(wrong)} wrong")
sys.exit(1 if wrong or n < 500 else 0)
