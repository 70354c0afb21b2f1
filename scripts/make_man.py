#!/usr/bin/env python3
"""Writes the man pages and the bash completions from the output of --help, so that they cannot differ from it.

  scripts/make_man.py BIN            BIN: the folder with costd and costinfer; rewrites packaging/man and completion
  scripts/make_man.py BIN --check    exits with 1 if a committed file differs
"""
import os
import pathlib
import re
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
DATE = "2026-11-21"  # of the last change of the pages' form; their text belongs to the version
FILES_AFTER = {"--config", "--prompt-file", "--out", "--text"}
FOLDERS_AFTER = {"--model"}
WORDS_AFTER = {
    "--device": "auto cpu cpu-blas cpu-reference",
    "--weights": "auto f32 f16 bf16 int8 int4",
    "--kv": "auto f32 f16",
    "--basis": "wall cpu",
    "--shape": "distilgpt2 gpt2 gpt2-medium gpt2-large gpt2-xl",
}


def help_of(*command):
    # The pages must not depend on this machine's OpenCL devices.
    return subprocess.run([*command, "--help"], check=True, capture_output=True, text=True,
                          env={**os.environ, "OCL_ICD_VENDORS": "/nonexistent"}).stdout


def version():
    return re.search(r"project\(costinfer VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]


def escape(text):
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", r"\[u2026]").replace("×", r"\(mu")
    return r"\&" + text if text[:1] in (".", "'") else text


def fill(text):
    """A paragraph in short lines, none of which roff reads as a request."""
    words = textwrap.wrap(text, 70, break_long_words=False, break_on_hyphens=False)
    return [escape(line) for line in words]


def block(lines):
    """Help text as roff: tables of two columns, literal lines (four spaces and more) and paragraphs."""
    out, i = [], 0
    while i < len(lines):
        line = lines[i]
        column = re.match(r"  (\S(?:.*?[^\s.])?) {2,}(\S.*)$", line)
        if not line.strip():
            pass
        elif column and not line.startswith("   "):
            text = column[2]
            while i + 1 < len(lines) and re.match(r" {5,}\S", lines[i + 1]):
                i += 1
                text += " " + lines[i].strip()
            out += [".TP", r"\fB" + escape(column[1]) + r"\fR", *fill(text)]
        elif line.startswith("    ") or re.match(r"  costinfer ", line):
            out += [".PP", ".RS 4", ".nf"] if out else [".RS 4", ".nf"]
            while i < len(lines) and lines[i].startswith("  "):
                out.append(escape(lines[i].strip()))
                i += 1
            out += [".fi", ".RE"]
            continue
        else:
            if out:
                out.append(".PP")
            text = line.strip()
            while i + 1 < len(lines) and re.match(r" {0,2}\S", lines[i + 1]) and \
                    not re.match(r"  costinfer ", lines[i + 1]):
                i += 1
                text += " " + lines[i].strip()
            out += fill(text)
        i += 1
    return out


def head(name, about):
    return [f'.\\" Written by scripts/make_man.py from `{name} --help`.',
            f'.TH {name.upper()} 1 "{DATE}" "costinfer {version()}" "User commands"',
            ".SH NAME", *fill(f"{name} - {about}")]


def costd_page(text):
    first, *lines = text.replace("GET  /", "GET /").splitlines()
    out = head("costd", first.split(" - ", 1)[1])
    out += [".SH SYNOPSIS"] + [escape(l.strip()) for l in lines[:3] if l.strip()]
    sections, title = {}, None
    for line in lines[2:]:
        if re.fullmatch(r"[A-Z ]+", line):
            title = line
            sections[title] = []
        elif title:
            sections[title].append(line)
    for title, body in sections.items():
        out += [".SH " + {"FLAGS": "OPTIONS", "FILE": "SETTINGS FILE"}.get(title, title)] + block(body)
    return out + [".SH SEE ALSO", r"\fBcostinfer\fR(1)"]


def flags_of(text):
    """[(flag, argument)] of one of costinfer's commands, or of costd."""
    found = re.findall(r"^  (--[a-z-]+)(?: (\S+))?$", text, re.M)
    return found or re.findall(r"^  (--[a-z-]+)(?: (\S+))? {2,}\S", text, re.M)


def costinfer_page(text, commands):
    out = head("costinfer", text.splitlines()[0].split(" - ", 1)[1])
    out += [".SH SYNOPSIS", r"\fBcostinfer\fR \fICOMMAND\fR ...", ".SH COMMANDS"]
    for name, page in commands.items():
        out += [".TP", rf"\fB{name}\fR", escape(page.splitlines()[0].split(" - ", 1)[1])]
    for name, page in commands.items():
        out.append(f".SH {name.upper()}")
        lines = page.splitlines()[2:]
        ending = next(i for i, l in enumerate(lines) if l.startswith("Exit status:"))
        flags = lines.index("Flags:") if "Flags:" in lines else ending
        blank = lines.index("")
        out += [".nf", *(escape(re.sub(r"^(Usage:)?\s*", "", l)) for l in lines[:blank]), ".fi"]
        manual = block(lines[blank + 1:flags])
        out += manual if manual[:1] == [".TP"] else [".PP", *manual]  # mandoc: a paragraph may not be empty
        described = "\n".join(lines[flags + 1:ending]) + "\n"
        for flag, text in re.findall(r"^  (--.*)\n((?:      .*\n)+)", described, re.M):
            out += [".TP", r"\fB" + escape(flag) + r"\fR", *fill(" ".join(text.split()))]
    status = " ".join(lines[ending:]).removeprefix("Exit status:").strip()
    return out + [".SH EXIT STATUS", *fill(status), ".SH SEE ALSO", r"\fBcostd\fR(1)"]


def completion_cases(flags):
    out = []
    for flag, argument in sorted(set(flags)):
        if flag in WORDS_AFTER:
            out.append(f'{flag}) COMPREPLY=($(compgen -W "{WORDS_AFTER[flag]}" -- "$word")); return ;;')
        elif flag in FOLDERS_AFTER:
            out.append(f'{flag}) compopt -o filenames; COMPREPLY=($(compgen -d -- "${{word#*=}}")); return ;;')
        elif flag in FILES_AFTER:
            out.append(f'{flag}) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;')
        elif argument:
            out.append(f"{flag}) return ;;")
    return ["    case $before in", *("        " + c for c in out), "    esac"]


def completion(name, flags, commands=None):
    out = [f"# bash completion for {name}, written by scripts/make_man.py", f"_{name}()", "{",
           '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}',
           "    # Readline splits NAME=DIR into three words.",
           '    if [ "$word" = = ]; then',
           '        word= before=${COMP_WORDS[COMP_CWORD - 2]}',
           '    elif [ "$before" = = ]; then',
           '        before=${COMP_WORDS[COMP_CWORD - 3]}',
           "    fi",
           "    COMPREPLY=()"]
    out += completion_cases(flags + [f for c in (commands or {}).values() for f in c])
    if commands:
        out += ["    if [ $COMP_CWORD -eq 1 ]; then",
                f'        COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word"))',
                "        return", "    fi", "    case ${COMP_WORDS[1]} in"]
        for command, own in commands.items():
            words = " ".join(f for f, _ in own) + " --help"
            out.append(f'        {command}) COMPREPLY=($(compgen -W "{words}" -- "$word")) ;;')
        out.append("    esac")
    else:
        out.append(f'    COMPREPLY=($(compgen -W "{" ".join(f for f, _ in flags)}" -- "$word"))')
    return out + ["}", f"complete -F _{name} {name}"]


def main():
    binaries = pathlib.Path(sys.argv[1])
    check = sys.argv[2:] == ["--check"]
    costd, overview = help_of(binaries / "costd"), help_of(binaries / "costinfer")
    names = re.findall(r"^  ([a-z]+)  ", overview, re.M)
    commands = {n: help_of(binaries / "costinfer", n) for n in names}
    files = {
        "man/costd.1": costd_page(costd),
        "man/costinfer.1": costinfer_page(overview, commands),
        "completion/costd": completion("costd", flags_of(costd)),
        "completion/costinfer": completion("costinfer", [], {n: flags_of(t) for n, t in commands.items()}),
    }
    different = False
    for name, lines in files.items():
        path, text = PACKAGING / name, "\n".join(lines) + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                print(f"packaging/{name} differs from --help: run scripts/make_man.py", file=sys.stderr)
                different = True
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
