#!/usr/bin/env bash
# Builds costd and shows it monitored: two models under a lopsided load, a real Prometheus and Alertmanager on
# loopback with the files of dashboards/, and an alert that arrives at a local webhook.
#
#   scripts/monitoring-demo.sh [--seconds N]     until Ctrl-C by default
#
# Needs prometheus and prometheus-alertmanager (scripts/setup.sh --all).  Only build/ stays behind.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -e build/build.ninja ]; then
    scripts/setup.sh --build
    launcher=$(command -v ccache || true)
    cmake --preset release -DCINF_TESTS=OFF ${launcher:+-DCMAKE_C_COMPILER_LAUNCHER=$launcher} >/dev/null
fi
echo "monitoring-demo: building costd"
cmake --build build --target app_costd -- --quiet
exec /usr/bin/python3 scripts/monitoring_demo.py "$@"
