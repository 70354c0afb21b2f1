"""The scenario that all bindings share (tests/conformance)."""
from __future__ import annotations

import json
import os
import pathlib
import time
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
    elif case["call"] == "profile":
        engine.profile()
    else:
        pytest.fail(f"unknown call {case['call']}")


def paused(model: costinfer.Model, case: dict[str, Any]) -> None:
    text = model.generate(case["prompt"], max_tokens=case["max_tokens"], ignore_eos=True).text
    with model.stream(case["prompt"], max_tokens=case["max_tokens"], ignore_eos=True) as stream:
        begin = next(stream).text
        stream.pause()
        before, after = None, stream.report
        for _ in range(100):  # the step that is under way still counts
            if after == before:
                break
            time.sleep(0.03)
            before, after = after, stream.report
        assert after == before and after.finish == "running"
        assert after.output_tokens < case["max_tokens"]
        stream.resume()
        assert begin + "".join(event.text for event in stream) == text
    assert stream.report.output_tokens == case["max_tokens"]


def metered(case: dict[str, Any]) -> None:
    meter = costinfer.Meter(device=case["device"], dollars_per_hour=case["dollars_per_hour"])
    bills = [meter.open_bill(case["model"]) for _ in case["shares"]]
    meter.busy()
    time.sleep(0.005)
    charged = meter.charge(*(costinfer.Share(bill, **{k: v for k, v in share.items() if k != "finish"})
                             for bill, share in zip(bills, case["shares"])))
    meter.idle()
    weights = [share["prefill_weight"] + share["decode_weight"] for share in case["shares"]]
    parts = 0
    for bill, share, weight in zip(bills, case["shares"], weights):
        report = bill.close(share["finish"])
        assert report.device_ns - charged * weight // sum(weights) in (0, 1)
        assert (report.prefill_ns > 0) == (share["prefill_weight"] > 0)
        assert (report.decode_ns > 0) == (share["decode_weight"] > 0)
        assert (report.input_tokens, report.cached_tokens, report.output_tokens, report.finish) == (
            share["input_tokens"], share["cached_tokens"], share["output_tokens"], share["finish"])
        assert report.cost == Cost.of(report.device_ns, case["dollars_per_hour"])
        parts += report.device_ns
    costs = meter.costs()
    assert parts == charged == costs.serve_ns == costs.models[case["model"]].serve_ns
    assert costs.serve_ns + costs.load_ns + costs.idle_ns + costs.lost_ns + costs.overhead_ns == costs.as_of_ns and costs.device == case["device"]


def test_scenario(models: pathlib.Path) -> None:
    scenario = json.loads(SCENARIO.read_text())
    folder = models / scenario["model"]
    served = 0
    with Engine(device=scenario["device"], dollars_per_hour=scenario["dollars_per_hour"]) as engine:
        model = engine.load(folder)
        for case in scenario["tokenize"]:
            assert model.encode(case["text"], special=case.get("special", False)) == case["ids"]
            assert model.decode(case["ids"]) == case["text"]
        for case in scenario["generate"]:
            options = {k: case[k] for k in ("max_tokens", "stop", "n", "special", "temperature", "typical_p")
                       if k in case}
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
        for case in scenario["logprobs"]:
            choice = model.generate(case["prompt"], max_tokens=case["max_tokens"], top_logprobs=case["top"]).choices[0]
            assert list(choice.ids) == case["ids"]
            assert choice.logprobs == pytest.approx(case["logprobs"], abs=1e-3)
            assert choice.top_logprobs is not None
            assert [[token for token, _ in top] for top in choice.top_logprobs] == case["top_ids"]
        for case in scenario["logits"]:
            logits = model.logits(case["ids"])
            assert logits.shape == (len(case["ids"]), case["vocabulary"])
            assert logits.argmax(axis=1).tolist() == case["best"]
            assert logits.max(axis=1).tolist() == pytest.approx(case["best_logits"], abs=1e-3)
        for case in scenario["pause"]:
            paused(model, case)
        for case in scenario["meter"]:
            metered(case)
        meter = costinfer.Meter()
        for case in scenario["gpu_memory"]:
            meter.set_gpu_memory(case["used"], case["total"])
            meter.set_gpu_taken(case.get("taken", 0))
            page = meter.metrics()[1]
            assert all(line in page for line in case["has"]) and case["lacks"] not in page
        for case in scenario["cost"]:
            assert str(Cost.of(case["ns"], case["dollars_per_hour"])) == case["dollars"]
        for case in scenario["errors"]:
            with pytest.raises(costinfer.Error) as caught:
                provoke(case, engine, model, folder)
            assert caught.value.status == case["status"], case
        costs = engine.costs()
        assert costs.serve_ns + costs.load_ns + costs.idle_ns + costs.lost_ns + costs.overhead_ns == costs.as_of_ns
