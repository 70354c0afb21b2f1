#!/usr/bin/env bash
# Builds costd and demonstrates its monitoring: two models under an uneven load, a real Prometheus and Alertmanager on
# loopback with the files of dashboards/, and an alert that arrives at a local webhook.
#
#   scripts/monitoring-demo.sh [--seconds N]     until Ctrl-C by default
#
# Needs prometheus and prometheus-alertmanager (make deps).  Only build/ remains afterwards.
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
