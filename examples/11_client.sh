#!/bin/sh
# 11_client.sh - costd with curl: a text, a stream, and the bill.
#
#     costd --model stories-small=examples/models/stories-small --cpu-cost-per-hour 2.50 &
#     sh 11_client.sh http://127.0.0.1:8000 stories-small
#
# Every answer contains its cost.  The costs of all answers add up to the model's cost on /metrics, to the last
# nanosecond; that is the point of costd.
set -eu
base=${1:-http://127.0.0.1:8000}
model=${2:-stories-small}
json='Content-Type: application/json'

echo "== a text, with its cost"
curl -sS --fail "$base/v1/generate/$model" -H "$json" -d '{"prompt": "Once upon a time", "max_tokens": 12}'
echo

echo "== the same as a stream of events"
curl -sS --fail --no-buffer "$base/v1/generate/$model" -H "$json" \
    -d '{"prompt": "Once upon a time", "max_tokens": 3, "stream": true}'

echo "== OpenAI's completions"
curl -sS --fail "$base/v1/completions" -H "$json" \
    -d "{\"model\": \"$model\", \"prompt\": \"Once upon a time\", \"max_tokens\": 12, \"temperature\": 0}"
echo

echo "== what the model has cost"
curl -sS --fail "$base/metrics" | grep '^model_estimated_cost_dollars_total'
