#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, and only those that are missing.
#
#   scripts/setup.sh            what the library, costd, costinfer and the fast tests need
#   scripts/setup.sh --build    only what the library, costd and costinfer need
#   scripts/setup.sh --all      also what the slow suites and the peers need (torch: about 200 MB)
#
# Idempotent: if nothing is missing, it changes nothing, needs no privilege and takes less than a second.  Daemons that
# come with these packages (Prometheus, Alertmanager, nginx) are neither started nor enabled.
set -euo pipefail

build=(gcc g++ make cmake ninja-build pkg-config ccache git ca-certificates
    libopenblas-dev libcjson-dev libmicrohttpd-dev zlib1g-dev libsqlite3-dev python3 ocl-icd-opencl-dev opencl-headers libclblast-dev)
tests=(check libcurl4-openssl-dev clang-14 clang-format-14 libclang-rt-14-dev curl doxygen shellcheck shfmt
    python3-numpy python3-prometheus-client python3-yaml prometheus prometheus-alertmanager pocl-opencl-icd clinfo locales)
slow=(chromium python3-torch python3-venv python3-pip clang-tidy-14 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    mandoc golang-go dpkg-dev debhelper lintian fakeroot dh-python pybuild-plugin-pyproject python3-all python3-setuptools
    nodejs npm nginx-light haproxy wrk slowhttptest iproute2 oclgrind)

wanted=("${build[@]}")
case "${1:-}" in
    "") wanted+=("${tests[@]}") ;;
    --all) wanted+=("${tests[@]}" "${slow[@]}") ;;
    --build) ;;
    *)
        echo "usage: scripts/setup.sh [--build | --all]" >&2
        exit 2
        ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this script supports Debian and its derivatives only; on other systems, install the equivalents of:" >&2
    printf '  %s\n' "${wanted[@]}" >&2
    exit 1
fi

# Debian's npm conflicts with a Node.js from another source, which includes an npm of its own.
if command -v node >/dev/null && command -v npm >/dev/null; then
    mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | grep -vx -e nodejs -e npm)
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "setup: all ${#wanted[@]} packages are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup: run as root, or install sudo; missing: ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
# The tests run the daemons as ordinary programs.  policy-rc.d keeps their packages from starting services now, and
# `systemctl disable` keeps them from starting at the next boot; services that were installed before are not touched.
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || policy=
clean_up() {
    [ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
    [ -d /run/systemd/system ] || return 0
    for package in "${missing[@]}"; do
        case "$package" in
            prometheus | prometheus-alertmanager) service=$package ;;
            nginx-light) service=nginx ;;
            *) continue ;;
        esac
        "${as_root[@]}" systemctl disable --now --quiet "$service.service" 2>/dev/null || true
    done
}
trap clean_up EXIT
if [ -n "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
    "${as_root[@]}" chmod +x $policy
fi
"${apt[@]}" update -qq
"${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "setup: done"
