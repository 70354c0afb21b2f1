#!/usr/bin/env bash
# Formatting (.clang-format) and clang-tidy (.clang-tidy) over the library and the programs; no finding is
# accepted.  That a folder includes only what stands below it is checked by the build itself.
#
#   scripts/lint.sh             both; clang-tidy where it is installed
#   scripts/lint.sh --format    formatting only
set -euo pipefail
cd "$(dirname "$0")/.."

# Generated tables keep the form that their generator gives them.
sources=$(git ls-files '*.c' '*.h' | grep -v '/unicode_table')
clang-format-14 --dry-run -Werror $sources
echo "lint: $(wc -w <<<"$sources") files are formatted"
[ "${1:-}" != --format ] || exit 0

if ! command -v clang-tidy-14 >/dev/null; then
    echo "lint: clang-tidy-14 is not installed (scripts/setup.sh --all)"
    exit 0
fi
cmake --preset clang >/dev/null
checked=$(git ls-files 'libcostinfer/*.c' 'apps/*.c')
# One file a process: with more, clang-tidy 14 mistakes every va_list for an uninitialised one.
printf '%s\n' $checked | xargs -P "$(nproc)" -n 1 clang-tidy-14 -p build-clang --quiet --warnings-as-errors='*' \
    2> >(grep -v 'warnings generated\|warning generated\|^Suppressed\|^Use -header-filter' >&2)
echo "lint: clang-tidy has no finding in $(wc -w <<<"$checked") files"
