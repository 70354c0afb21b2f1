"""What is Python's own: iteration, asyncio, numpy, exceptions, threads, lifetimes."""
from __future__ import annotations

import asyncio
import gc
import math
import pathlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest

import costinfer
from costinfer import Cost, Engine, Meter, Model, Share, Stream, _engine, _ffi, _meter


def test_a_misspelt_option_is_refused(model: costinfer.Model) -> None:
    # mypy --strict fails if it no longer needs these comments: then the options have lost their types.
    with pytest.raises(TypeError):
        model.generate("a", maxtokens=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        model.generate("a", max_tokens="3")  # type: ignore[arg-type]


def test_versions() -> None:
    assert costinfer.library_version() == costinfer.__version__


def test_stream_is_an_iterator(model: Model) -> None:
    with model.stream("Once upon a time", max_tokens=5, logprobs=True) as stream:
        events = list(stream)
    tokens = [e for e in events if e.kind == "token"]
    assert len(tokens) == 5 and all(e.logprob <= 0 for e in tokens)
    assert events[-1].kind == "finish" and events[-1].finish == "length"
    assert "".join(e.text for e in events) == " there was a little girl"
    assert stream.report.output_tokens == 5  # readable after the end
    assert next(stream, None) is None


def test_on_text_gets_the_text(model: Model) -> None:
    pieces: list[str] = []
    result = model.generate("Once upon a time", max_tokens=8, on_text=pieces.append)
    assert "".join(pieces) == result.text and len(pieces) > 1


def test_leaving_early_cancels_and_bills(engine: Engine, model: Model) -> None:
    with model.stream("Once upon a time", max_tokens=200, ignore_eos=True) as stream:
        next(stream)
    assert stream.report.finish == "cancelled"
    assert 0 < stream.report.device_ns == engine.costs().serve_ns
    assert engine.costs().models["stories-small"].finished["cancelled"] == 1


def test_a_stream_that_nobody_reads_sits_out(model: Model) -> None:
    with model.stream("Once upon a time", max_tokens=200, ignore_eos=True, unread_max=4) as stream:
        time.sleep(0.1)
        assert 4 <= stream.report.output_tokens <= 5
        assert sum(e.kind == "token" for e in stream) == 200


def test_timeout(model: Model) -> None:
    result = model.generate("Once upon a time", max_tokens=0, ignore_eos=True, timeout=1e-9)
    assert result.report.finish == "timeout"


def test_seed_repeats(model: Model) -> None:
    first = model.generate("Lily", max_tokens=10, temperature=1.0)
    again = model.generate("Lily", max_tokens=10, temperature=1.0, seed=first.seed)
    assert first.seed != 0 and again.text == first.text


def test_logprobs(model: Model) -> None:
    choice = model.generate("Lily", max_tokens=4, top_logprobs=3).choices[0]
    assert choice.logprobs is not None and choice.top_logprobs is not None
    for token, logprob, top in zip(choice.ids, choice.logprobs, choice.top_logprobs):
        assert len(top) == 3 and top[0] == (token, logprob)  # greedy: the most likely one
        assert top[0][1] >= top[1][1] >= top[2][1]
    assert model.generate("Lily", max_tokens=4).choices[0].logprobs is None


def test_prompt_logprobs_are_the_scores(model: Model) -> None:
    ids = model.encode("Once upon a time there was")
    with model.stream(ids, max_tokens=1, prompt_logprobs=True) as stream:
        prompt = [e.logprob for e in stream if e.kind == "prompt"]
    scores = model.score(ids)
    assert math.isnan(prompt[0]) and math.isnan(scores[0])
    assert prompt[1:] == pytest.approx(scores[1:], abs=1e-4)


def test_logits(model: Model) -> None:
    numpy = pytest.importorskip("numpy")
    ids = model.encode("Once upon a time there was")
    logits = model.logits(ids).astype(numpy.float64)
    assert logits.shape == (len(ids), model.info.vocab_size)
    logsumexp = numpy.log(numpy.exp(logits).sum(axis=1))
    expected = [logits[i, ids[i + 1]] - logsumexp[i] for i in range(len(ids) - 1)]
    assert model.score(ids)[1:] == pytest.approx(expected, abs=1e-4)


def test_async_requests_share_the_device(engine: Engine, model: Model) -> None:
    async def main() -> list[costinfer.Result]:
        return await asyncio.gather(*(model.generate_async("Lily", max_tokens=20) for _ in range(12)))

    results = asyncio.run(main())
    assert {r.text for r in results} == {results[0].text}
    assert sum(r.report.device_ns for r in results) == engine.costs().serve_ns


def test_async_stream_and_its_cancellation(engine: Engine, model: Model) -> None:
    async def read(seen: list[str]) -> None:
        async with model.stream("Once upon a time", max_tokens=240, ignore_eos=True) as stream:
            async for event in stream:
                seen.append(event.text)

    async def main() -> list[str]:
        seen: list[str] = []
        task = asyncio.ensure_future(read(seen))
        while len(seen) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    seen = asyncio.run(main())
    assert "".join(seen).startswith(" there")
    assert engine.costs().models["stories-small"].finished["cancelled"] == 1


def test_cancel_from_another_thread(model: Model) -> None:
    stream = model.stream("Once upon a time", ignore_eos=True)
    threading.Timer(0.02, stream.cancel).start()
    events = list(stream)
    assert events[-1].kind == "finish" and events[-1].finish in ("cancelled", "length")
    stream.close()


def test_close_while_another_thread_pulls(model: Model) -> None:
    stream = model.stream("Once upon a time", ignore_eos=True)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    time.sleep(0.01)
    stream.close()
    reader.join(10)
    assert not reader.is_alive()


@pytest.mark.parametrize("use", [Stream.cancel, Stream.pause, Stream.resume, lambda stream: stream.report])
def test_close_while_another_thread_uses_it(model: Model, monkeypatch: pytest.MonkeyPatch,
                                            use: Callable[[Stream], object]) -> None:
    stream = model.stream("Once upon a time", max_tokens=1)
    list(stream)
    real, inside, freed = _ffi.lib, threading.Event(), threading.Event()

    class Slow:
        def __getattr__(self, name: str) -> object:
            function = getattr(real, name)

            def slowly(*arguments: object) -> object:
                if name == "cinf_request_free":
                    freed.set()
                elif threading.current_thread() is user:
                    inside.set()
                    assert not freed.wait(0.2), "freed while in use"
                return function(*arguments)

            return slowly

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(_engine, "lib", Slow())
        user = pool.submit(threading.current_thread).result()
        used = pool.submit(use, stream)
        assert inside.wait(10)
        stream.close()
        used.result()
    assert freed.is_set()
    use(stream)  # nothing, or the last report


@pytest.mark.parametrize("kind, builtin, provoke", [
    (costinfer.ContextLength, ValueError, lambda e, m: m.generate([1] * 300)),
    (costinfer.InvalidArgument, ValueError, lambda e, m: m.generate("x", temperature=-1.0)),
    (costinfer.InvalidArgument, ValueError, lambda e, m: m.generate("x", typical_p=1.1)),
    (costinfer.InvalidArgument, ValueError, lambda e, m: m.generate("x", stop=["a\0b"])),
    (costinfer.NotFound, LookupError, lambda e, m: e.load("no/such/folder")),
    (costinfer.AlreadyExists, costinfer.Error, lambda e, m: e.load(m.info.folder)),
])
def test_exceptions(engine: Engine, model: Model, kind: type[costinfer.Error], builtin: type[Exception],
                    provoke: object) -> None:
    assert callable(provoke)
    with pytest.raises(kind) as caught:
        provoke(engine, model)
    assert isinstance(caught.value, builtin) and str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("provoke", [
    lambda m: m.generate("x", max_tokens=2**32),
    lambda m: m.generate("x", max_tokens=1, top_k=-1),
    lambda m: m.generate("x", max_tokens=1, seed=2**64),
    lambda m: m.generate("x", max_tokens=1, unread_max=-1),
    lambda m: m.generate("x", max_tokens=1, logit_bias={2**32: 1.0}),
    lambda m: m.generate([2**32], max_tokens=1),
    lambda m: m.score([1, 2**32]),
    lambda m: m.decode([-2**32]),
    lambda m: Engine(threads=2**32),
])
def test_numbers_that_do_not_fit(model: Model, provoke: Callable[[Any], object]) -> None:
    with pytest.raises(costinfer.InvalidArgument):
        provoke(model)


def test_weights_that_do_not_fit() -> None:
    meter = Meter()
    bill = meter.open_bill("turning")
    meter.busy()
    for weight in -1, 2**64:
        with pytest.raises(costinfer.InvalidArgument):
            meter.charge(Share(bill, decode_weight=weight))
    assert meter.charge(Share(bill, decode_weight=2**63)) == bill.close().device_ns


def test_timeouts_of_any_length(model: Model) -> None:
    assert model.generate("Once upon a time", ignore_eos=True, timeout=-1).choices[0].finish == "timeout"
    for long in 1e12, math.inf:
        assert model.generate("Once upon a time", max_tokens=1, timeout=long).choices[0].finish == "length"


def test_after_unload_and_close(models: pathlib.Path) -> None:
    engine = Engine(device="cpu-reference")
    model = engine.load(models / "stories-small", name="small")
    assert [m.name for m in engine.models] == ["small"] and engine.find("small").info == model.info
    model.unload()
    with pytest.raises(costinfer.Closed):
        model.generate("x")
    with pytest.raises(costinfer.NotFound):
        engine.find("small")
    engine.close()
    engine.close()
    with pytest.raises(costinfer.Closed):
        engine.costs()
    assert model.info.name == "small"
    model.release()
    with pytest.raises(costinfer.Closed):
        model.stream("x")


def test_any_order_of_release(models: pathlib.Path) -> None:
    engine = Engine(device="cpu-reference")
    stream = engine.load(models / "stories-small").stream("Once", ignore_eos=True)
    engine.close()
    list(stream)
    del engine
    gc.collect()
    stream.close()
    assert stream.report.finish == "cancelled"


def test_metrics(engine: Engine, model: Model) -> None:
    model.generate("Once", max_tokens=2)
    kind, page = engine.metrics()
    assert kind.startswith("text/plain; version=0.0.4")
    assert 'model_request_total{model_name="stories-small",endpoint="api"} 1' in page
    kind, page = engine.metrics("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text") and page.endswith("# EOF\n")


def test_costs_add_exactly() -> None:
    assert str(Cost.of(800_000_000, "2.50")) == "0.000555555556"
    assert Cost.of(800_000_000, "2.50").fraction == Fraction(8, 10) * Fraction(5, 2) / 3600
    assert sum((Cost.of(1, "0.1") for _ in range(7)), Cost()) == Cost.of(7, "0.1")
    assert Cost.of(1, "2") < Cost.of(1, "3")


def test_meter_without_an_engine() -> None:
    meter = Meter(device="lathe", dollars_per_hour="3.60")
    a, b = meter.open_bill("turning"), meter.open_bill("turning")
    meter.busy()
    time.sleep(0.005)
    charged = meter.charge(Share(a, prefill_weight=3, input_tokens=30), Share(b, decode_weight=1, output_tokens=1))
    meter.idle()
    first, second = a.close("stop"), b.close("length")
    assert first.device_ns + second.device_ns == charged == meter.costs().serve_ns >= 5_000_000
    assert abs(first.device_ns - 3 * second.device_ns) <= 3
    assert first.prefill_ns == first.device_ns and second.decode_ns == second.device_ns
    assert (first.input_tokens, second.output_tokens) == (30, 1)
    assert first.drafted_tokens == 0
    costs = meter.costs()
    assert costs.serve_ns + costs.idle_ns + costs.lost_ns == costs.as_of_ns and costs.device == "lathe"
    assert 'model_name="turning"' in meter.metrics()[1]
    with pytest.raises(costinfer.InvalidArgument):
        meter.charge(Share(a))
    with pytest.raises(costinfer.InvalidArgument):
        b.close("tired")


def test_threads_share_a_meter() -> None:
    meter = Meter()

    def turn(number: int) -> int:
        total = 0
        for _ in range(200):
            bill = meter.open_bill(f"model-{number % 2}")
            meter.busy()
            total += meter.charge(Share(bill, decode_weight=1))
            if number % 3:
                bill.close()
        return total

    with ThreadPoolExecutor(4) as pool:
        charged = sum(pool.map(turn, range(4)))
    costs = meter.costs()
    assert costs.serve_ns == charged and costs.serve_ns + costs.idle_ns + costs.lost_ns == costs.as_of_ns
    assert sum(costs.models["model-1"].finished.values()) == 400


def calls_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the C functions that the module calls from now on."""
    calls: list[str] = []
    real = module.lib

    class Recorder:
        def __getattr__(self, name: str) -> object:
            calls.append(name)
            return getattr(real, name)

    monkeypatch.setattr(module, "lib", Recorder())
    return calls


def test_a_meter_outlives_its_bills(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shop(Meter):
        bills: list[costinfer.Bill] = []

    calls = calls_of(_meter, monkeypatch)
    for done in range(3):
        shop = Shop()
        shop.bills = [shop.open_bill("turning") for _ in range(2)]  # a cycle: collected together, in any order
        for bill in shop.bills[:done]:
            bill.close()
        del calls[:]
        shop = bill = None  # type: ignore[assignment]
        gc.collect()
        assert calls.count("cinf_bill_close") == 2 - done and calls.count("cinf_bill_free") == 2
        assert calls.count("cinf_meter_free") == 1 and calls[-1] == "cinf_meter_free"


def test_speculation_changes_the_report_not_the_text(models: pathlib.Path) -> None:
    texts = []
    for speculation in (False, True):
        with Engine(device="cpu", speculation=speculation) as engine:
            report = engine.load(models / "stories-small").generate("a b c d a b c d a b c", max_tokens=40,
                                                                    ignore_eos=True)
            texts.append(report.text)
            assert engine.device.speculation in (False, speculation)
            assert 0 <= report.report.accepted_tokens <= report.report.drafted_tokens
            assert report.report.drafted_tokens == 0 or speculation
    assert texts[0] == texts[1]


def test_a_price_for_each_kind_of_device(models: pathlib.Path) -> None:
    with Engine(device="cpu-reference", cpu_dollars_per_hour="2.50", gpu_dollars_per_hour="9") as engine:
        report = engine.load(models / "stories-small").generate("Once", max_tokens=2).report
        assert report.cost == Cost.of(report.device_ns, "2.50")


def test_profile(models: pathlib.Path) -> None:
    with Engine(device="cpu", profile=True) as engine:
        engine.load(models / "stories-small").generate("Once", max_tokens=2)
        kernels = engine.profile()
        assert kernels and all(k.name and k.launches for k in kernels)
        assert [k.device_ns for k in kernels] == sorted((k.device_ns for k in kernels), reverse=True)


def test_weights_that_a_device_does_not_keep(engine: Engine, models: pathlib.Path) -> None:
    with pytest.raises(costinfer.Unsupported):
        engine.load(models / "stories-small", weights="bf16")
    with pytest.raises(costinfer.InvalidArgument):
        engine.load(models / "stories-small", weights="f17")


def test_keys_and_values_in_f16(models: pathlib.Path) -> None:
    with Engine(device="cpu", kv="f16") as engine:
        assert engine.device.kv == "f16"
        assert engine.load(models / "stories-small", weights="int4").generate("Once", max_tokens=4).text
    with pytest.raises(costinfer.Unsupported):
        Engine(device="cpu-reference", kv="f16")
    with pytest.raises(costinfer.InvalidArgument):
        Engine(kv="int8")
