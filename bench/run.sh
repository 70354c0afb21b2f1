#!/usr/bin/env bash
# Measures the tokenizer, the sampler, one step of the device, and whole models through the engine with each
# weights type.
#
#   bench/run.sh [--record] [--weights "f32 f16 int8"] [SHAPE ...]     gpt2 by default; the demo models always
#
# --record also appends the figures of the models to bench/results/MACHINE.csv.  Compare figures only within one run on
# a machine that is otherwise idle.  bench/peers.py compares with other programs.
set -euo pipefail
cd "$(dirname "$0")/.."

record=
weights="f32 f16 int8"
while [ $# -gt 0 ]; do
    case $1 in
        --record) record=1 ;;
        --weights)
            weights=${2:?--weights needs types}
            shift
            ;;
        -*)
            echo "usage: bench/run.sh [--record] [--weights TYPES] [SHAPE ...]" >&2
            exit 2
            ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- gpt2
build=${CINF_BUILD:-build}
if [ -z "${CINF_BUILD:-}" ]; then
    cmake --preset release >/dev/null
    cmake --build build -j "$(nproc)" -- --quiet
fi

shared=${CINF_SHARED:-../shared}
if [ -d "$shared/data/gpt2-tokenizer" ]; then
    tokenizer=$shared/data/gpt2-tokenizer
    text=$shared/data/english/fairy-tales.txt
else
    tokenizer=examples/models/stories-large
    text=$(mktemp)
    trap 'rm -f "$text"' EXIT
    git ls-files -z '*.md' '*.c' '*.h' | xargs -0 cat >"$text"
fi
echo "== tokenizer, one thread"
"$build/bin/bench_tokenizer" "$tokenizer" "$text"
echo "== sampler, one thread"
"$build/bin/bench_sampler"
echo "== one step of the device"
"$build/bin/bench_backend"

measure() {
    echo "== $*"
    if [ -z "$record" ]; then
        "$build/bin/costinfer" bench "$@"
    else
        "$build/bin/costinfer" bench "$@" --json | python3 bench/record.py
    fi
}
for type in $weights; do
    measure --text "$text" --model examples/models/stories-small --weights "$type"
    measure --text "$text" --model examples/models/stories-large --weights "$type"
    for shape in "$@"; do
        measure --shape "$shape" --weights "$type"
    done
done
