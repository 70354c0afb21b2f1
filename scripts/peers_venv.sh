#!/usr/bin/env bash
# Makes a Python environment with the implementations that tests compare with: Hugging Face's transformers on
# Debian's torch, and tiktoken; the versions are those of tests/peers/requirements.txt.
#
#   scripts/peers_venv.sh FOLDER        such as build/peers-venv
#
# Idempotent: an environment that holds these versions is left as it is.  Exits 77 with a line that says why
# when it cannot be made here: no torch, no venv, no PyPI.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: scripts/peers_venv.sh FOLDER" >&2; exit 2; }
folder=$1
wanted=$(cd "$(dirname "$0")/.." && pwd)/tests/peers/requirements.txt
stamp=$folder/requirements.installed

skip() {
    echo "skipped: $*" >&2
    exit 77
}

if cmp -s "$wanted" "$stamp" && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    echo "peers_venv: $folder exists and is no Python environment" >&2
    exit 1
fi
# Debian's torch is seen by Debian's python3 alone.
python=/usr/bin/python3
"$python" -c 'import torch' 2>/dev/null || skip "python3-torch is not installed (scripts/setup.sh --all)"
"$python" -c 'import ensurepip' 2>/dev/null || skip "python3-venv is not installed (scripts/setup.sh --all)"

echo "peers_venv: making $folder"
"$python" -m venv --clear --system-site-packages "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check --quiet --retries 2 --timeout 20)
if ! "${pip[@]}" install --no-deps --only-binary :all: -r "$wanted"; then
    # One small file tells an unreachable index from pins that it does not have.
    "${pip[@]}" download --no-deps --dest "$folder/probe" idna 2>/dev/null || skip "PyPI cannot be reached"
    exit 1
fi
"$folder/bin/python" -c 'import torch, transformers, tiktoken'
cp "$wanted" "$stamp"
echo "peers_venv: done"
