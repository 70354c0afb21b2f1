#!/usr/bin/env bash
# The demonstration from the beginning: installs what a build needs, builds, serves the two bundled models with costd,
# sends overlapping requests for a while and prints which model used how much of the budget.
#
#   scripts/demo.sh [SECONDS]     of traffic, 15 by default
#
# Only the packages and build/ remain afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh --build
if [ ! -e build/build.ninja ]; then
    launcher=$(command -v ccache || true)
    cmake --preset release -DCINF_TESTS=OFF ${launcher:+-DCMAKE_C_COMPILER_LAUNCHER=$launcher} >/dev/null
fi
echo "demo: building costd"
cmake --build build --target app_costd -- --quiet
exec /usr/bin/python3 scripts/demo_traffic.py --seconds "${1:-15}"
