#!/usr/bin/env python3
"""Writes tests/golden/typical_p.json: what transformers' warpers keep of some logits, and with which probabilities.

    build/peers-venv/bin/python tests/golden/make_typical_p.py       needs transformers (scripts/peers_venv.sh)

{"logits": [[x ...] ...], "cases": [{"logits": INDEX, "temperature": …, "top_k": …, "top_p": …, "min_p": …,
"typical_p": …, "p": {ID: probability}} ...]}.  The warpers run in double precision, in the order in which
transformers' generate() applies them; 0 leaves one out.  A case is left out in which rounding could decide what is
kept: a cut within 1e-5 of a token's probability, or two tokens of different logits that are equally typical.
"""
import json
import os
import random

import torch
from transformers.generation.logits_process import (MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper,
                                                    TopPLogitsWarper, TypicalLogitsWarper)

HERE = os.path.dirname(os.path.abspath(__file__))
CLOSE = 1e-5
TEMPERATURES = (1.0, 0.7, 1.6)
CUTS = ((0, 0, 0), (12, 0, 0), (0, 0.9, 0), (0, 0, 0.05), (25, 0.95, 0), (25, 0, 0.02), (0, 0.97, 0.03),
        (20, 0.9, 0.04))


def rows():
    """Logits, each a float: normal ones, a few likely tokens, one that is nearly certain, and one less likely than
    all others together."""
    draw = random.Random(5)
    normal = [draw.gauss(0, 2) for _ in range(60)]
    peaked = [x + (8 if i % 13 == 4 else 0) for i, x in enumerate(normal)]
    certain = [x / 2 + (14 if i == 21 else 0) for i, x in enumerate(normal)]
    flat = [x / 40 + (1.5 if i == 7 else 0) for i, x in enumerate(normal)]
    return [[float(torch.tensor(x, dtype=torch.float32)) for x in row] for row in (normal, peaked, certain, flat)]


def warped(scores, temperature, cuts, typical_p):
    """The scores after the warpers, None where rounding could decide."""
    top_k, top_p, min_p = cuts
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p:
        sums = scores.softmax(-1).sort(descending=True)[0].cumsum(-1)
        if (sums - top_p).abs().min() < CLOSE:
            return None
        scores = TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        shares = scores.softmax(-1) / scores.softmax(-1).max()
        if (shares - min_p).abs().min() < CLOSE:
            return None
        scores = MinPLogitsWarper(min_p)(None, scores)
    if typical_p:
        logs = scores.log_softmax(-1)
        logs = logs[logs > -torch.inf]
        distances, order = (-logs + (logs * logs.exp()).sum()).abs().sort()
        sums = logs[order].exp().cumsum(-1)
        if (distances[1:] - distances[:-1] < CLOSE).any() or (sums - typical_p).abs().min() < CLOSE:
            return None
        scores = TypicalLogitsWarper(typical_p)(None, scores)
    return scores


def main():
    logits, cases = rows(), []
    for row, values in enumerate(logits):
        for i, cuts in enumerate(CUTS):
            for typical_p in (0.05, 0.2, 0.5, 0.9, 0.99):
                temperature = TEMPERATURES[(row + i) % len(TEMPERATURES)]
                scores = warped(torch.tensor([values], dtype=torch.float64), temperature, cuts, typical_p)
                if scores is None:
                    continue
                p = scores.softmax(-1)[0].tolist()
                cases.append({"logits": row, "temperature": temperature, "top_k": cuts[0], "top_p": cuts[1],
                              "min_p": cuts[2], "typical_p": typical_p,
                              "p": {id: round(x, 7) for id, x in enumerate(p) if x > 0}})
    with open(os.path.join(HERE, "typical_p.json"), "w", encoding="utf-8") as file:
        file.write('{"logits": [\n' + ",\n".join(json.dumps(row) for row in logits) + '\n],\n"cases": [\n' +
                   ",\n".join(json.dumps(case) for case in cases) + "\n]}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
