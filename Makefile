# Verbs for daily use; the build itself is CMake's (CMakePresets.json).
.PHONY: all test test-all test-packaging bench docs fmt lint fuzz install clean

JOBS ?= $(shell nproc)

all: build/build.ninja
	@ninja -C build -j $(JOBS)

build/build.ninja:
	cmake --preset release

test:
	scripts/test.sh --fast

test-all:
	scripts/test.sh --all

# The installed package as its users meet it; part of test-all.
test-packaging: all
	ctest --test-dir build --output-on-failure --no-tests=error -R '^(packaging|abi)_'

bench: all
	bench/run.sh

# The API reference: build/reference/html/index.html
docs: build/build.ninja
	@ninja -C build docs

fmt:
	git ls-files '*.c' '*.h' | grep -v -e '/unicode_table' | xargs clang-format-14 -i

lint:
	scripts/lint.sh

fuzz:
	scripts/fuzz.sh

install: all
	cmake --install build

clean:
	rm -rf build build-*
