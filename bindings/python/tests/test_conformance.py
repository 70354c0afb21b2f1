"""The scenario that all bindings share (tests/conformance)."""
from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

import costinfer
from costinfer import Cost, Engine

SCENARIO = pathlib.Path(os.environ.get("COSTINFER_SCENARIO", pathlib.Path(__file__).parents[3] /
                                       "tests/conformance/scenario.json"))


def provoke(case: dict[str, Any], engine: Engine, model: costinfer.Model, folder: pathlib.Path) -> None:
    if case["call"] == "load":
        engine.load(case["folder"])
    elif case["call"] == "load again":
        engine.load(folder)
    elif case["call"] == "generate":
        model.generate(case["ids"] * case.get("repeat", 1))
    elif case["call"] == "price":
        engine.set_price(case["price"])
    elif case["call"] == "find":
        engine.find(case["name"])
    elif case["call"] == "open":
        Engine(device=case["device"])
    else:
        pytest.fail(f"unknown call {case['call']}")


def test_scenario(models: pathlib.Path) -> None:
    scenario = json.loads(SCENARIO.read_text())
    folder = models / scenario["model"]
    served = 0
    with Engine(device=scenario["device"], dollars_per_hour=scenario["dollars_per_hour"]) as engine:
        model = engine.load(folder)
        for case in scenario["tokenize"]:
            assert model.encode(case["text"]) == case["ids"]
            assert model.decode(case["ids"]) == case["text"]
        for case in scenario["generate"]:
            options = {k: case[k] for k in ("max_tokens", "stop", "n") if k in case}
            if "logit_bias" in case:
                options["logit_bias"] = {b["token"]: b["bias"] for b in case["logit_bias"]}
            result = model.generate(case["prompt"], **options)
            seen = [{"text": c.text, "ids": list(c.ids), "finish": c.finish} for c in result.choices]
            assert seen == case["choices"], case["name"]
            assert result.report.input_tokens == case["input_tokens"], case["name"]
            assert result.report.output_tokens == case["output_tokens"], case["name"]
            assert str(result.report.cost) == str(Cost.of(result.report.device_ns, scenario["dollars_per_hour"]))
            served += result.report.device_ns
        assert engine.costs().serve_ns == served
        for case in scenario["score"]:
            assert sum(model.score(case["ids"])[1:]) == pytest.approx(case["sum"], abs=1e-3)
        for case in scenario["cost"]:
            assert str(Cost.of(case["ns"], case["dollars_per_hour"])) == case["dollars"]
        for case in scenario["errors"]:
            with pytest.raises(costinfer.Error) as caught:
                provoke(case, engine, model, folder)
            assert caught.value.status == case["status"], case
        costs = engine.costs()
        assert costs.serve_ns + costs.load_ns + costs.idle_ns == costs.as_of_ns
