"""Fixtures: the bundled model, on the device whose results are the same on every machine."""
from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

import costinfer

MODELS = pathlib.Path(os.environ.get("COSTINFER_MODELS", pathlib.Path(__file__).parents[3] / "examples/models"))


@pytest.fixture(scope="session")
def models() -> pathlib.Path:
    if not (MODELS / "stories-small").exists():
        pytest.skip(f"{MODELS} has no stories-small; set COSTINFER_MODELS")
    return MODELS


@pytest.fixture()
def engine(models: pathlib.Path) -> Iterator[costinfer.Engine]:
    with costinfer.Engine(device="cpu-reference", dollars_per_hour="2.50") as engine:
        yield engine


@pytest.fixture()
def model(engine: costinfer.Engine, models: pathlib.Path) -> costinfer.Model:
    return engine.load(models / "stories-small")
