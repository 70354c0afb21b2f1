"""Every interface that accepts requests must know every field of struct cinf_request_options, and so must the engine,
which copies it.  EXCEPTIONS lists the fields that an interface omits on purpose, with the reason; any other missing
field fails the test by name."""
import ast
import os
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[1]))
BUILD = pathlib.Path(os.environ.get("CINF_BUILD", SOURCE / "build"))
ENGINE = SOURCE / "libcostinfer/engine"
os.environ.setdefault("CINF_SOURCE", str(SOURCE))
sys.path.insert(0, str(SOURCE / "tests/costd"))

LENGTH = "a length, which the list or text has with it"
EXCEPTIONS = {
    "costinfer.hpp": {
        "prompt_only": "raw(); model::score() scores", "prompt_logprobs": "raw(); model::score() scores",
        "prompt_logits": "raw(); model::logits() returns all logits",
        "endpoint": "raw(); an engine has one unless raw() named more",
        "notify": "raw(); streams are pulled", "notify_context": "raw(); streams are pulled",
        "note": "raw(); a program with a ledger of its own has the C API",
    },
    "Python": {
        "note": "the bindings have no ledger yet",
        "prompt_only": "Model.score() scores",
        "prompt_logits": "Model.logits() returns all logits",
        "endpoint": "an engine opened from Python has one endpoint",
        "notify": "the hook would need the interpreter's lock, and the scheduler must not wait for it",
        "notify_context": "likewise",
    },
    "Go": {
        "note": "the bindings have no ledger yet",
        "prompt_only": "Model.Score scores", "prompt_logprobs": "Model.Score scores",
        "prompt_logits": "Model.Logits returns all logits",
        "endpoint": "an engine opened from Go has one endpoint",
        "notify": "the scheduler's thread must not enter Go", "notify_context": "likewise",
    },
    "costd": {
        "prompt_bytes": "JSON without NUL characters: the text is NUL-terminated",
        "prompt_logits": "no route returns all logits",
        "timeout_ns": "costd's own timers end a request, because they have to answer it, too",
    },
    "/openapi.json": {
        "note": "user, safety_identifier and metadata",
        "prompt_bytes": LENGTH, "n_prompt_ids": LENGTH, "n_stop": LENGTH, "n_logit_bias": LENGTH,
        "prompt_ids": "`prompt` may be an array of ids",
        "tokenize_flags": "`parse_special`",
        "prompt_only": "max_tokens 0", "prompt_logits": "no route returns all logits",
        "top_logprobs": "the value of logprobs",
        "endpoint": "the route decides", "timeout_ns": "--request-timeout is the operator's",
        "notify": "costd's own", "notify_context": "costd's own",
        "unread_max": "--unread-max is the operator's", "n_stop_token_ids": LENGTH,
        "payer": "the API key decides",
    },
    "costinfer run": {
        "note": "the command keeps no ledger",
        "prompt_bytes": LENGTH, "n_prompt_ids": LENGTH, "n_stop": LENGTH, "n_logit_bias": LENGTH,
        "prompt_ids": "--prompt-tokens", "tokenize_flags": "--special",
        "prompt_only": "costinfer perplexity", "prompt_logprobs": "costinfer perplexity",
        "prompt_logits": "costinfer logits", "top_logprobs": "--json has each token's own",
        "n": "standard output shows one text", "logit_bias": "hundreds of token ids do not fit a command line",
        "endpoint": "the command has one", "timeout_ns": "Ctrl-C ends it",
        "notify": "the command pulls", "notify_context": "the command pulls",
        "unread_max": "the command reads until standard output blocks",
        "n_stop_token_ids": LENGTH, "payer": "the command's is the only request",
    },
    "sampler_needs()": {
        "top_p": "sampler_pick_best() applies it to the top_k that it gets",
        "min_p": "relative to the most likely token, which is always among them",
        "typical_p": "applied to what the others keep, which sampler_pick_best() knows",
        "seed": "chooses among what is kept", "bias": "n_bias says whether there are any",
        "end_ids": "n_end_ids says whether there are any",
    },
}


def text_of(*patterns):
    paths = sorted(path for pattern in patterns for path in SOURCE.glob(pattern))
    assert paths, patterns
    return re.sub(r"/\*.*?\*/", " ", "".join(path.read_text() for path in paths), flags=re.S)


def members(text, name):
    """Fields of a struct, in order."""
    body = re.search(rf"^struct {name} \{{(.*?)^\}};", text, re.S | re.M)[1]
    declarations = [re.sub(r"\[[^]]*\]|\(void \*context\)", "", d) for d in body.split(";") if d.strip()]
    return [re.search(r"(\w+)\W*$", part)[1] for d in declarations for part in d.split(",")]


def functions(text):
    return {m[1]: m[0] for m in re.finditer(r"^[a-z][^;{}=]*?\b(\w+)\([^;{}]*\)\s*\{.*?^\}", text, re.S | re.M)}


def assigned(text, *names):
    """The fields f of `name.f` and `name->f`."""
    return set(re.findall(rf"\b(?:{'|'.join(names)})(?:->|\.)(\w+)", text))


def part(text, start, end):
    at = text.index(start)
    return text[at:text.index(end, at)]


def python_call():
    """The fields that _engine.py sets in the struct, by keyword or by assignment."""
    tree = ast.parse((SOURCE / "bindings/python/src/costinfer/_engine.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "RequestOptions":
            found |= {keyword.arg for keyword in node.keywords}
        if isinstance(node, ast.FunctionDef) and node.name == "stream":
            found |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
                      and isinstance(n.value, ast.Name) and n.value.id == "o"}
    return found


def python_types():
    """The options of stream() and the declared options of generate(), each with its type."""
    tree = ast.parse((SOURCE / "bindings/python/src/costinfer/_engine.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "stream":
            taken = {arg.arg: ast.unparse(arg.annotation) for arg in node.args.kwonlyargs}
        if isinstance(node, ast.ClassDef) and node.name == "RequestOptions":
            typed = {n.target.id: ast.unparse(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign)}
    return taken, typed


def openapi():
    from costd_support import SMALL, Costd
    with Costd("--model", "small=" + SMALL) as server:
        paths = server.get("/openapi.json").json["paths"]
    bodies = [paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
              for path in ("/v1/generate/{model}", "/v1/completions")]
    return set().union(*bodies)


def main():
    fields = members(text_of("include/costinfer/request.h"), "cinf_request_options")
    assert len(fields) > 30 and fields[0] == "struct_size", fields
    fields = fields[1:]
    engine = functions(text_of("libcostinfer/engine/*.c"))
    # A table that checks and copies numbers has a row for each: NUMBER(top_p, 0, 1).
    rows = set(re.findall(r"\bNUMBER\((\w+),", text_of("libcostinfer/engine/request.c")))
    sampler = functions(text_of("libcostinfer/engine/sampler.c"))
    sampling = members(text_of("libcostinfer/engine/sampler.h"), "sampling")
    needs = sampler["sampler_needs"]
    needs += "".join(body for name, body in sampler.items() if re.search(rf"\b{name}\(", needs))
    go = (SOURCE / "bindings/go/costinfer.go").read_text()
    ffi = (SOURCE / "bindings/python/src/costinfer/_ffi.py").read_text()
    manual = subprocess.run([BUILD / "bin/costinfer", "run", "--help"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout
    surfaces = {
        "the engine's copy": (fields, assigned("".join(body for name, body in engine.items()
                                                       if not name.startswith("check_")), "o",
                                                       r"options(?:\[i\])?") | rows),
        "sampler_needs()": (sampling, assigned(needs, r"\w+")),
        "costinfer.hpp": (fields, assigned(part(text_of("include/costinfer/costinfer.hpp"), "class request\n",
                                                "\n};"), "o", "options_")),
        "Python": (fields, python_call()),
        "Go": (fields, assigned(part(go, "C.struct_cinf_request_options)(", "\n}"), "o")),
        "costd": (fields, assigned(text_of("apps/costd/**/*.c"), "o", r"options(?:\[[^]]*\])?")),
        "/openapi.json": (fields, openapi()),
        "costinfer run": (fields, {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", manual)}),
    }
    wrong = []
    for surface, (wanted, found) in surfaces.items():
        exceptions = EXCEPTIONS.get(surface, {})
        wrong += [f"{surface} does not know {field}" for field in wanted if field not in found and field not in exceptions]
        wrong += [f"{surface}: the exception {field} is no longer one" for field in exceptions
                  if field in found or field not in wanted]
    layout = re.findall(r'\("(\w+)"', part(ffi, "class RequestOptions(", "\n\n"))
    if layout[1:] != fields:
        odd = next(pair for pair in zip(layout[1:] + [None], fields + [None]) if pair[0] != pair[1])
        wrong.append(f"_ffi.RequestOptions has {odd[0]} where the header has {odd[1]}")
    taken, typed = python_types()
    wrong += [f"Python: {name} differs between stream() and RequestOptions" for name in sorted({*taken, *typed})
              if taken.get(name) != typed.get(name)]
    floats = re.findall(r"\bfloat (\w+)\s*;", part(text_of("include/costinfer/request.h"),
                                                  "struct cinf_request_options {", "\n};"))
    checked = assigned("".join(body for name, body in engine.items() if name.startswith("check_")), "o") | rows
    wrong += [f"no check_…() of the engine checks the range of {field}" for field in floats
              if field not in checked]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    print(f"{len(fields)} fields in {len(surfaces)} places, {sum(map(len, EXCEPTIONS.values()))} exceptions")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
