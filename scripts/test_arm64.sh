#!/usr/bin/env bash
# Cross-compiles the library for arm64 and runs its unit tests and fuzz corpora under qemu-user.
#
# It leaves out OpenBLAS and the programs.  The few arm64 packages that the tests link are unpacked into build-arm64/,
# not installed, so the system keeps its one architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v $tool >/dev/null || {
        echo "arm64: $tool is missing (scripts/setup.sh --all)" >&2
        exit 1
    }
done

work=$PWD/build-arm64
root=$work/root
libraries=$root/usr/lib/aarch64-linux-gnu
if [ ! -e "$libraries/pkgconfig/check.pc" ]; then
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/debs" "$root"
    apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status=/dev/null
        -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User="$(id -un)"
        -o Debug::NoLocking=1 -o Acquire::Retries=3)
    "${apt[@]}" update
    (cd "$work/debs" && "${apt[@]}" download libcjson1 libcjson-dev check libsubunit0 libsubunit-dev)
    for package in "$work"/debs/*.deb; do
        dpkg -x "$package" "$root"
    done
fi

export PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
launcher=$(command -v ccache || true)
cmake -S . -B "$work" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc ${launcher:+-DCMAKE_C_COMPILER_LAUNCHER=$launcher} \
    -DCMAKE_BUILD_TYPE=Release -DCINF_WERROR=ON -DCINF_BLAS=OFF -DCINF_APPS=OFF \
    -DCMAKE_EXE_LINKER_FLAGS="-L$libraries -Wl,-rpath-link,$libraries" \
    -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=$libraries" >/dev/null
cmake --build "$work" -j "$(nproc)" -- --quiet

# test_cpu_kv counts resident pages, which would include the emulator's own.
CK_TIMEOUT_MULTIPLIER=20 ctest --test-dir "$work" -j "$(nproc)" --output-on-failure --no-tests=error \
    --timeout 2400 -R "^(test|fuzz)_" -LE slow -E "^test_cpu_kv\$"
