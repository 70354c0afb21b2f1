#!/usr/bin/env bash
# Runs formatters and linters over everything that is written by hand; no finding is accepted.  The build itself checks
# that a folder includes only lower floors.
#
#   scripts/lint.sh             all of them; a linter that is not installed is reported and left out
#   scripts/lint.sh --format    clang-format, and shfmt and shellcheck where they are installed
#
# prettier and eslint, which check the page's JavaScript, are installed once from npm into build-lint/.
set -euo pipefail
cd "$(dirname "$0")/.."

have() {
    command -v "$1" >/dev/null || {
        echo "lint: $1 is not installed (make deps-all)"
        return 1
    }
}

# Generated tables keep their generator's format.
mapfile -t sources < <(git ls-files '*.c' '*.h' | grep -v -e '/unicode_table' -e '/unicode_normal_table')
clang-format-14 --dry-run -Werror "${sources[@]}"
echo "lint: ${#sources[@]} C files are formatted"

mapfile -t shell < <(git ls-files '*.sh' .ci/run)
if have shfmt; then
    shfmt -i 4 -ci -d "${shell[@]}"
fi
if have shellcheck; then
    shellcheck "${shell[@]}"
    echo "lint: shellcheck has no finding in ${#shell[@]} scripts"
fi
[ "${1:-}" != --format ] || exit 0

if have npm; then
    tools=build-lint/node_modules/.bin
    if [ ! -x $tools/eslint ] || [ ! -x $tools/prettier ]; then
        mkdir -p build-lint
        npm install --prefix build-lint --no-audit --no-fund --silent prettier@3.10.1 eslint@9.39.1
    fi
    page=apps/costd/api/page
    $tools/prettier --check --log-level warn $page/*.js tests/page/*.mjs
    $tools/eslint --max-warnings 0 --config $page/eslint.config.mjs $page/*.js
    echo "lint: prettier and eslint have no finding in the page"
fi

if have clang-tidy-14; then
    cmake --preset clang >/dev/null
    mapfile -t checked < <(git ls-files 'libcostinfer/*.c' 'apps/*.c')
    # Each process checks one file: with several, clang-tidy 14 reports every va_list as uninitialised.
    printf '%s\n' "${checked[@]}" |
        xargs -P "$(nproc)" -n 1 clang-tidy-14 -p build-clang --quiet --warnings-as-errors='*' \
            2> >(grep -v 'warnings generated\|warning generated\|^Suppressed\|^Use -header-filter' >&2)
    echo "lint: clang-tidy has no finding in ${#checked[@]} files"
fi
