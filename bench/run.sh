#!/usr/bin/env bash
# Measures: the tokenizer, one step of the device, and whole models through the engine.
#
#   bench/run.sh [--record] [SHAPE ...]      published shapes besides the demo models; gpt2 by default
#
# --record also appends the figures of the models to bench/results/MACHINE.csv.  Figures compare only within
# one run on one machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

record=
if [ "${1:-}" = --record ]; then
    record=1
    shift
fi
[ $# -gt 0 ] || set -- gpt2
cmake --preset release >/dev/null
cmake --build build -j "$(nproc)" -- --quiet

echo "== tokenizer, one thread"
shared=${CINF_SHARED:-../shared}
if [ -d "$shared/data/gpt2-tokenizer" ]; then
    build/bin/bench_tokenizer "$shared/data/gpt2-tokenizer" "$shared/data/english/fairy-tales.txt"
else
    text=$(mktemp)
    trap 'rm -f "$text"' EXIT
    git ls-files -z '*.md' '*.c' '*.h' | xargs -0 cat >"$text"
    build/bin/bench_tokenizer examples/models/stories-large "$text"
fi
for program in build/bin/bench_backend*; do
    [ -x "$program" ] || continue
    echo "== one step of the device (${program##*/})"
    "$program"
done

measure() {
    echo "== ${*: -1}"
    if [ -z "$record" ]; then
        build/bin/costinfer bench "$@"
    else
        build/bin/costinfer bench "$@" --json | python3 bench/record.py
    fi
}
measure --model examples/models/stories-small
measure --model examples/models/stories-large
for shape in "$@"; do
    measure --shape "$shape"
done
