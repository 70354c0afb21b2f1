#!/usr/bin/env python3
"""12_client.py - costd from Python's standard library, and the books checked against the answers.

    costd --model stories-small=examples/models/stories-small --cpu-cost-per-hour 2.50 &
    python3 12_client.py http://127.0.0.1:8000 stories-small

Four clients send requests concurrently, so their latencies overlap:

    sum of latency x rate  >  sum of the answers' costs  =  what /metrics counts for the model

Decimal keeps the server's digits; a float would round them.  The equality holds to the 12th decimal of each answer,
because printed amounts are rounded there."""
import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
model = sys.argv[2] if len(sys.argv) > 2 else "stories-small"


def generate(prompt):
    request = urllib.request.Request(f"{base}/v1/generate/{model}",
                                     json.dumps({"prompt": prompt, "max_tokens": 40}).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer, parse_float=Decimal)


def spent():
    with urllib.request.urlopen(f"{base}/metrics") as answer:
        page = answer.read().decode()
    return Decimal(re.search(rf'^model_estimated_cost_dollars_total{{model_name="{model}"}} (\S+)', page, re.M)[1])


before = spent()
with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(generate, ["Once upon a time", "Lily was a brave little", "Long ago", "There was once"]))
for answer in answers:
    print(f'{answer["output_tokens"]} tokens, ${answer["estimated_cost_usd"]}: {answer["text"][:60]} …')
billed = sum(Decimal(answer["estimated_cost_usd"]) for answer in answers)
counted = spent() - before
print(f"billed ${billed}, counted ${counted}")
sys.exit(0 if abs(billed - counted) <= Decimal("1e-12") * (len(answers) + 1) else 1)
