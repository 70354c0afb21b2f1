#!/usr/bin/env bash
# Builds everything and runs the tests; installs missing Debian packages first.
#
#   scripts/test.sh           what every change must pass: formatting, gcc and clang without a warning, the
#                             fast suite in a release build and under ASan+UBSan, threads under TSan
#   scripts/test.sh --fast    a release build and the fast suite
#   scripts/test.sh --all     the above, the slow suites (peers, Prometheus, arm64) and the linters
#   --no-setup                with any of these: installs nothing (`make deps` does)
#
# Stops at the first step that fails.  Ends with ctest's summary of the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=
setup=1
for argument in "$@"; do
    case "$argument" in
        --fast | --all) mode=$argument ;;
        --no-setup) setup= ;;
        *)
            echo "usage: scripts/test.sh [--fast | --all] [--no-setup]" >&2
            exit 2
            ;;
    esac
done

if [ -n "$setup" ]; then
    if [ "$mode" = --all ]; then
        scripts/setup.sh --all
    else
        scripts/setup.sh
    fi
fi

jobs=$(nproc)
cache=()
if ccache --version >/dev/null 2>&1 && ccache -s >/dev/null 2>&1; then
    cache=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi
started=$SECONDS

step() {
    printf '\n== %s (%d s)\n' "$*" $((SECONDS - started))
}

# build PRESET FOLDER [TARGET ...]
build() {
    local preset=$1 folder=$2
    shift 2
    cmake --preset "$preset" -DCINF_WERROR=ON -DCINF_TESTS=ON -DCINF_POCL_CACHE="$PWD/build-pocl" "${cache[@]}" >/dev/null
    cmake --build "$folder" -j "$jobs" ${1:+--target "$@"} -- --quiet
}

# test_in FOLDER ARGUMENT ...
test_in() {
    local folder=$1
    shift
    ctest --test-dir "$folder" -j "$jobs" --output-on-failure --no-tests=error "$@"
}

if [ "$mode" != --fast ]; then
    step "formatting"
    scripts/lint.sh --format

    step "clang-14, warnings are errors"
    build clang build-clang

    step "ThreadSanitizer: every test that starts threads"
    mapfile -t threaded < <(grep -lE 'pthread_create|cinf_engine_open|engine_fixture.h|cinf_ledger_open' tests/test_*.c | xargs -n 1 basename -s .c)
    build tsan build-tsan "${threaded[@]}"
    # TSan does not support the address layouts of newer kernels unless randomisation is off.
    fixed=()
    if setarch "$(uname -m)" -R true 2>/dev/null; then
        fixed=(setarch "$(uname -m)" -R)
    fi
    "${fixed[@]}" ctest --test-dir build-tsan -j "$jobs" --output-on-failure --no-tests=error \
        -R "^($(IFS="|" && echo "${threaded[*]}"))\$"

    step "AddressSanitizer and UndefinedBehaviorSanitizer: the fast suite"
    build dev build-dev
    test_in build-dev -LE slow
fi

if [ "$mode" = --all ]; then
    step "clang-tidy and the linters of scripts and page"
    scripts/lint.sh
fi

step "release: $([ "$mode" = --all ] && echo every suite || echo the fast suite)"
build release build
if [ "$mode" = --all ]; then
    scripts/test_arm64.sh
    test_in build
else
    test_in build -LE slow
fi
