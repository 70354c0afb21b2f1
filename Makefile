# Verbs for daily use; the build itself is CMake's (CMakePresets.json).
.PHONY: all test test-all bench fmt lint fuzz install clean

JOBS ?= $(shell nproc)

all: build/build.ninja
	@ninja -C build -j $(JOBS)

build/build.ninja:
	cmake --preset release

test:
	scripts/test.sh --fast

test-all:
	scripts/test.sh --all

bench: all
	bench/run.sh

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
