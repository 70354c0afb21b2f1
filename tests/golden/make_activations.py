#!/usr/bin/env python3
"""Writes tests/golden/activations.json: every activation that transformers has a name for, at a few places.

    build/peers-venv/bin/python tests/golden/make_activations.py       needs transformers (scripts/peers_venv.sh)

{"at": [x ...], "names": {NAME: [y ...]}}, in double precision.
"""
import json
import os

import torch
from transformers.activations import ACT2FN

HERE = os.path.dirname(os.path.abspath(__file__))
PLACES = [-30, -12, -6.5, -3, -1.5, -0.75, -0.1, -1e-3, 0, 1e-3, 0.1, 0.5, 0.707107, 1, 2, 3.25, 5.9, 6, 6.1, 9, 11, 30]


def main():
    x = torch.tensor(PLACES, dtype=torch.float64)
    names = {name: ACT2FN[name](x).tolist() for name in sorted(ACT2FN)}
    with open(os.path.join(HERE, "activations.json"), "w", encoding="utf-8") as file:
        json.dump({"at": PLACES, "names": names}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
