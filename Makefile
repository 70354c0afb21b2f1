# Verbs for daily use; the build itself is CMake's (CMakePresets.json).
.PHONY: all deps deps-all test test-all test-packaging test-clients bench docs fmt lint fuzz install clean

JOBS ?= $(shell nproc)

all: build/build.ninja
	@ninja -C build -j $(JOBS)

build/build.ninja:
	cmake --preset release

# The Debian packages that building and the fast tests need; deps-all: also those of the slow suites.
deps:
	scripts/setup.sh

deps-all:
	scripts/setup.sh --all

# Tests change nothing on the machine: what they need is installed by the two above.
test:
	scripts/test.sh --fast --no-setup

test-all:
	scripts/test.sh --all --no-setup

# The installed package as its users meet it; part of test-all.
test-packaging: all
	@test -f build/tests/CTestTestfile.cmake || \
	    { echo 'test-packaging: the tests are not built; install Check (make deps) and run make clean'; exit 1; }
	ctest --test-dir build --output-on-failure --no-tests=error -R '^(packaging|abi)_'

# Other people's clients against costd, from PyPI in the build folder; part of test-all.
test-clients: all
	@test -f build/tests/CTestTestfile.cmake || \
	    { echo 'test-clients: the tests are not built; install Check (make deps) and run make clean'; exit 1; }
	ctest --test-dir build --output-on-failure --no-tests=error -L '^clients$$'

bench: all
	bench/run.sh

# The API reference: build/reference/html/index.html
docs: build/build.ninja
	@ninja -C build docs

fmt:
	git ls-files '*.c' '*.h' | grep -v -e '/unicode_table' -e '/unicode_normal_table' | xargs clang-format-14 -i
	git ls-files '*.sh' .ci/run | xargs shfmt -i 4 -ci -w
	build-lint/node_modules/.bin/prettier --write apps/costd/api/page/*.js tests/page/*.mjs

lint:
	scripts/lint.sh

fuzz:
	scripts/fuzz.sh

install: all
	cmake --install build

# A release (build-release) and a fuzzer's finds (build-fuzz) cannot be built again; other folders are not ours.
clean:
	rm -rf build build-dev build-tsan build-clang build-arm64 build-lint
