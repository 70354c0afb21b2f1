#!/usr/bin/env bash
# Makes a Python environment with the packages that tests compare with or run, in the versions of a file of tests/peers.
#
#   scripts/peers_venv.sh FOLDER           Hugging Face's transformers on Debian's torch, and tiktoken, from
#                                          requirements.txt; FOLDER is such as build/peers-venv
#   scripts/peers_venv.sh FOLDER openai    OpenAI's client, from openai-requirements.txt
#
# Idempotent: an environment with these versions is left unchanged.  Exits with 77 and a line that says why if the
# environment cannot be made here: no torch, no venv, no PyPI.
set -euo pipefail

usage() {
    echo "usage: scripts/peers_venv.sh FOLDER [openai]" >&2
    exit 2
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then usage; fi
folder=$1
case "${2-}" in
    "") file=requirements.txt imports="torch, transformers, tiktoken" site=--system-site-packages ;;
    openai) file=openai-requirements.txt imports=openai site= ;;
    *) usage ;;
esac
wanted=$(cd "$(dirname "$0")/.." && pwd)/tests/peers/$file
stamp=$folder/requirements.installed
begun=${folder%/}.begun # beside it, because making it empties it

skip() {
    echo "skipped: $*" >&2
    exit 77
}

if cmp -s "$wanted" "$stamp" && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
# Making an environment empties its folder, so one that exists must be of this script's making.
if [ -e "$folder" ] && [ ! -e "$stamp" ] && [ ! -e "$begun" ]; then
    echo "peers_venv: $folder exists and was not made by this script" >&2
    exit 1
fi
# Only Debian's python3 finds Debian's torch.
python=/usr/bin/python3
[ -z "$site" ] || "$python" -c 'import torch' 2>/dev/null || skip "python3-torch is not installed (scripts/setup.sh --all)"
"$python" -c 'import ensurepip' 2>/dev/null || skip "python3-venv is not installed (scripts/setup.sh --all)"

echo "peers_venv: making $folder"
mkdir -p "$folder"
touch "$begun"
"$python" -m venv --clear $site "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check --quiet --retries 2 --timeout 20)
if ! "${pip[@]}" install --no-deps --only-binary :all: -r "$wanted"; then
    # One small file distinguishes an unreachable index from versions that it does not have.
    "${pip[@]}" download --no-deps --dest "$folder/probe" idna 2>/dev/null || skip "PyPI cannot be reached"
    exit 1
fi
"$folder/bin/python" -c "import $imports"
cp "$wanted" "$stamp"
rm -f "$begun"
echo "peers_venv: done"
