#!/usr/bin/env bash
# Runs each fuzz target with libFuzzer for a while, starting from the corpus in the tree.  (ctest only replays that
# corpus.)
#
#   scripts/fuzz.sh [SECONDS [TARGET ...]]     60 seconds and every target by default
#
# New inputs are collected in build-fuzz/corpus/.  A crashing input is left in build-fuzz/ and named in the output; add
# it to tests/fuzz/corpus/TARGET/ together with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
[[ $seconds =~ ^[0-9]+$ ]] || {
    echo "usage: scripts/fuzz.sh [SECONDS [TARGET ...]]" >&2
    exit 2
}
if [ $# -eq 0 ]; then
    for target in tests/fuzz/fuzz_*.c; do
        target=${target##*/fuzz_}
        set -- "$@" "${target%.c}"
    done
fi

cmake --preset fuzz >/dev/null
cmake --build build-fuzz -j "$(nproc)" --target "${@/#/fuzz_}"
for target in "$@"; do
    echo "== fuzz_$target, $seconds s"
    mkdir -p "build-fuzz/corpus/$target"
    "build-fuzz/bin/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/$target-" "build-fuzz/corpus/$target" "tests/fuzz/corpus/$target" 2>&1 |
        grep -E '^(stat::|==[0-9]+==|SUMMARY|Test unit|artifact|.*ERROR)|Done' || true
    [ "${PIPESTATUS[0]}" -eq 0 ] || {
        echo "fuzz: fuzz_$target found a defect" >&2
        exit 1
    }
done
