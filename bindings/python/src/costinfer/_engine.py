"""Engine, Model and Stream."""
from __future__ import annotations

import array
import asyncio
import ctypes
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Union

from . import _errors, _ffi
from ._ffi import call, lib, text
from ._meter import Costs, Report, costs_of, exposition_of, report_of

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from typing_extensions import Unpack

Prompt = Union[str, bytes, Sequence[int]]

_KINDS = ("prompt", "token", "finish", "end")
_SLICE_NS = 100_000_000  # waits are cut into slices, so that Ctrl-C and close() take effect


class RequestOptions(TypedDict, total=False):
    """The options of Model.stream(), which explains them, for Model.generate() and generate_async()."""

    max_tokens: int
    stop: Sequence[str]
    n: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    seed: int
    logprobs: bool
    top_logprobs: int
    prompt_logprobs: bool
    ignore_eos: bool
    special: bool
    timeout: float | None
    unread_max: int
    min_tokens: int
    stop_token_ids: Sequence[int]
    payer: str | None


@dataclass(frozen=True)
class Device:
    """What an engine computes on."""

    name: str
    description: str
    reason: str
    is_gpu: bool
    threads: int
    memory_total: int
    memory_used: int
    kv: str  # how keys and values are kept
    speculation: bool  # texts may get several tokens in a step


@dataclass(frozen=True)
class Kernel:
    """The time of a kernel since the engine was opened, by the device's own clock; on device "cpu" the time of one kind
    of a step's phases."""

    name: str
    launches: int
    device_ns: int


@dataclass(frozen=True)
class ModelInfo:
    name: str
    folder: str
    notes: str
    weights: str
    parameters: int
    slots: int
    loaded: bool
    vocab_size: int
    n_positions: int


@dataclass(frozen=True)
class Event:
    """A step of a request: kind "prompt" or "token" (one token each), "finish" (a choice ended)."""

    kind: str
    choice: int
    token: int
    text: str  # whole characters that became certain, perhaps none
    logprob: float  # NaN where there is none
    top: tuple[tuple[int, float], ...]  # the most likely tokens, if asked for
    finish: str | None  # of kind "finish"
    rank: int = 0  # of kind "prompt": 1 for the token that is the most likely at its place


@dataclass(frozen=True)
class Choice:
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None
    finish: str


@dataclass(frozen=True)
class Result:
    choices: tuple[Choice, ...]
    prompt_ids: tuple[int, ...]
    seed: int
    report: Report

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text


def _ids(values: Sequence[int]) -> Any:
    try:
        return (ctypes.c_int32 * len(values))(*array.array("i", values))
    except OverflowError:
        raise _errors.InvalidArgument("a token's id is out of range") from None


class Stream:
    """A request under way: an iterator of events, `for` or `async for`.  Leaving it early cancels it.

        with model.stream("Once upon a time") as stream:
            for event in stream:
                print(event.text, end="")
        print(stream.report.cost)
    """

    def __init__(self, model: Model, options: _ffi.RequestOptions) -> None:
        # The request is not freed while one of these is held.  A signal's handler may take the second one again.
        self._pulling = threading.Lock()  # while waiting for an event
        self._using = threading.RLock()  # in calls that return immediately
        self._executor: ThreadPoolExecutor | None = None
        self._ended = False
        self._report: Report | None = None
        self._pointer = ctypes.c_void_p()
        call("request_submit", ctypes.byref(self._pointer), model._handle, ctypes.byref(options))
        n = ctypes.c_uint32()
        ids = lib.cinf_request_prompt(self._pointer, ctypes.byref(n))
        self.prompt_ids: tuple[int, ...] = tuple(ids[: n.value])
        self.seed: int = lib.cinf_request_seed(self._pointer)

    def _pull(self) -> Event | None:
        """The next event, waiting for it; None at the end."""
        e = _ffi.Event()
        while True:
            with self._pulling:
                if self._ended or not self._pointer:
                    return None
                status = lib.cinf_request_next(self._pointer, _SLICE_NS, ctypes.byref(e))
                if status == 0:
                    kind = _KINDS[e.kind]
                    if kind == "end":
                        self._ended = True
                        if _ffi.FINISHES[e.finish] == "failed":
                            raise _errors.DeviceError(text(lib.cinf_request_failure(self._pointer)))
                        return None
                    top = tuple((e.top[i].token, e.top[i].logprob) for i in range(e.n_top))
                    return Event(kind, e.choice, e.token, text(ctypes.string_at(e.text, e.text_bytes)), e.logprob, top,
                                 _ffi.FINISHES[e.finish] if kind == "finish" else None, e.rank)
                error = _ffi.error(status)
            if not isinstance(error, _errors.NothingYet):
                raise error

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._pull()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        # One thread per stream waits for it.  The notify hook would need the interpreter's lock, and the scheduler
        # must not wait for that.
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "costinfer-stream")
        event = await asyncio.get_running_loop().run_in_executor(self._executor, self._pull)
        if event is None:
            raise StopAsyncIteration
        return event

    def cancel(self) -> None:
        """Ends the request before the next step; what was computed is billed.  Any thread may call it."""
        with self._using:
            if self._pointer:
                lib.cinf_request_cancel(self._pointer, _ffi.FINISHES.index("cancelled"))

    def pause(self) -> None:
        """Until resume(), the request keeps its place, enters no step and costs nothing; its timeout continues."""
        self._pause(True)

    def resume(self) -> None:
        self._pause(False)

    def _pause(self, pause: bool) -> None:
        with self._using:
            if self._pointer:
                lib.cinf_request_pause(self._pointer, pause)

    @property
    def report(self) -> Report:
        """The report so far, or the final one."""
        with self._using:
            if self._report:
                return self._report
            r = _ffi.Report()
            lib.cinf_request_report(self._pointer, ctypes.byref(r))
            return report_of(r)

    def close(self) -> None:
        """Cancels the request if it runs, and releases it; the report stays readable."""
        if not getattr(self, "_pointer", None):
            return
        self.cancel()
        with self._pulling:
            if self._pointer:
                end = _ffi.Event()
                # The report is final with the last event.
                while (lib.cinf_request_next(self._pointer, _ffi.FOREVER, ctypes.byref(end)) == 0
                       and _KINDS[end.kind] != "end"):
                    pass
                with self._using:
                    self._report = self.report
                    pointer, self._pointer = self._pointer, ctypes.c_void_p()
                    lib.cinf_request_free(pointer)
        if self._executor:
            self._executor.shutdown(wait=False)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None,
                        trace: TracebackType | None) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __del__(self) -> None:
        self.close()


class Model:
    """A loaded model.  Many threads may call its methods concurrently."""

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        self._pointer = pointer

    @property
    def _handle(self) -> ctypes.c_void_p:
        if not self._pointer:
            raise _errors.Closed("the model was released")
        return self._pointer

    @property
    def info(self) -> ModelInfo:
        i = _ffi.ModelInfo()
        lib.cinf_model_info(self._handle, ctypes.byref(i))
        return ModelInfo(text(i.name), text(i.folder), text(i.notes), text(lib.cinf_weights_name(i.weights)),
                         i.parameters, i.slots, i.loaded, i.config.vocab_size, i.config.n_positions)

    @property
    def name(self) -> str:
        return self.info.name

    def stream(self, prompt: Prompt = "", *, max_tokens: int = 0, stop: Sequence[str] = (), n: int = 1,
               temperature: float = 0.0, top_k: int = 0, top_p: float = 0.0, min_p: float = 0.0,
               typical_p: float = 0.0, repetition_penalty: float = 0.0, presence_penalty: float = 0.0,
               frequency_penalty: float = 0.0, logit_bias: Mapping[int, float] | None = None, seed: int = 0,
               logprobs: bool = False, top_logprobs: int = 0, prompt_logprobs: bool = False,
               ignore_eos: bool = False, special: bool = False, timeout: float | None = None,
               unread_max: int = 0, min_tokens: int = 0, stop_token_ids: Sequence[int] = (),
               payer: str | None = None) -> Stream:
        """Submits a request and returns its events as they come.

        max_tokens 0: until the text or the context ends.  temperature 0: greedy.  seed 0: drawn at random.
        special: "<|endoftext|>" and other special tokens in the prompt are tokens; not for untrusted text.
        timeout: in seconds.  unread_max: with this many unread events the request pauses; 0: no limit.
        min_tokens: nothing but max_tokens ends the text before so many.  stop_token_ids: end it, and are not part
        of it.  payer: who pays; None: anonymous."""
        o = _ffi.RequestOptions(max_tokens=max_tokens, n=n, temperature=temperature, top_k=top_k, top_p=top_p,
                                min_p=min_p, typical_p=typical_p, repetition_penalty=repetition_penalty,
                                presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, seed=seed,
                                logprobs=logprobs or top_logprobs > 0, top_logprobs=top_logprobs,
                                prompt_logprobs=prompt_logprobs, ignore_eos=ignore_eos, tokenize_flags=int(special),
                                unread_max=unread_max, min_tokens=min_tokens)
        if isinstance(prompt, (str, bytes)):
            data = prompt.encode() if isinstance(prompt, str) else prompt
            o.prompt, o.prompt_bytes = data, len(data)
        elif len(prompt):
            o.prompt_ids, o.n_prompt_ids = _ids(prompt), len(prompt)
        if any("\0" in s for s in stop):
            raise _errors.InvalidArgument("a stop string has a NUL")
        if stop:
            o.stop, o.n_stop = (ctypes.c_char_p * len(stop))(*(s.encode() for s in stop)), len(stop)
        if logit_bias:
            o.logit_bias = (_ffi.LogitBias * len(logit_bias))(*(_ffi.LogitBias(*b) for b in logit_bias.items()))
            o.n_logit_bias = len(logit_bias)
        if len(stop_token_ids):
            o.stop_token_ids, o.n_stop_token_ids = _ids(stop_token_ids), len(stop_token_ids)
        if payer is not None:
            if "\0" in payer:
                raise _errors.InvalidArgument("the payer has a NUL")
            o.payer = payer.encode()
        if timeout is not None:
            o.timeout_ns = max(1, int(min(timeout, 1e10) * 1e9))
        return Stream(self, o)

    def generate(self, prompt: Prompt = "", *, on_text: Callable[[str], object] | None = None,
                 **options: Unpack[RequestOptions]) -> Result:
        """Generates and waits.  Takes the options of stream(); calls on_text with each piece of text of the first
        choice."""
        with self.stream(prompt, **options) as stream:
            return _collect(stream, stream, on_text, options)

    async def generate_async(self, prompt: Prompt = "", **options: Unpack[RequestOptions]) -> Result:
        """Generates as generate() does, for asyncio.  Concurrent requests share the device's steps."""
        async with self.stream(prompt, **options) as stream:
            events = [event async for event in stream]
            return _collect(stream, events, None, options)

    def encode(self, value: str | bytes, *, special: bool = False) -> list[int]:
        """The token ids of a text.  special: "<|endoftext|>" and other special tokens in it are tokens."""
        data = value.encode() if isinstance(value, str) else value
        ids, n = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        call("tokenizer_encode", self._tokenizer, data, len(data), int(special), ctypes.byref(ids), ctypes.byref(n))
        try:
            return ids[: n.value]
        finally:
            lib.cinf_ids_free(ids)

    def decode(self, ids: Sequence[int]) -> str:
        out, n = ctypes.c_void_p(), ctypes.c_size_t()
        call("tokenizer_decode", self._tokenizer, _ids(ids), len(ids), ctypes.byref(out), ctypes.byref(n))
        try:
            return text(ctypes.string_at(out, n.value))
        finally:
            lib.cinf_text_free(out)

    @property
    def _tokenizer(self) -> ctypes.c_void_p:
        pointer = lib.cinf_model_tokenizer(self._handle)
        if not pointer:
            raise _errors.Unsupported("the model has no tokenizer")
        return ctypes.c_void_p(pointer)

    def score(self, ids: Sequence[int]) -> list[float]:
        """log P(ids[i] | ids before it), natural logarithm; the first is NaN."""
        out = (ctypes.c_float * len(ids))()
        call("score", self._handle, _ids(ids), len(ids), out, None)
        return list(out)

    def logits(self, ids: Sequence[int]) -> numpy.typing.NDArray[numpy.float32]:
        """The logits [len(ids), vocabulary] of every position.  Needs numpy."""
        import numpy

        out = numpy.empty((len(ids), self.info.vocab_size), dtype=numpy.float32)
        call("logits", self._handle, _ids(ids), len(ids), out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), None)
        return out

    def unload(self) -> None:
        """Refuses new requests, waits for the running ones, frees the weights.  The accounts stay."""
        call("model_unload", self._handle)

    def release(self) -> None:
        """Releases this handle; the model stays loaded."""
        lib.cinf_model_release(self._pointer)
        self._pointer = ctypes.c_void_p()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self.release()


def _collect(stream: Stream, events: Iterator[Event] | list[Event], on_text: Callable[[str], object] | None,
             options: RequestOptions) -> Result:
    n = options.get("n", 1) or 1
    texts: list[list[str]] = [[] for _ in range(n)]
    tokens: list[list[Event]] = [[] for _ in range(n)]
    finishes = [""] * n
    for event in events:
        if event.kind == "prompt":
            continue
        if event.text:
            texts[event.choice].append(event.text)
            if on_text and event.choice == 0:
                on_text(event.text)
        if event.kind == "token":
            tokens[event.choice].append(event)
        else:
            finishes[event.choice] = event.finish or ""
    n_top = options.get("top_logprobs", 0)
    logprobs = options.get("logprobs") or n_top
    choices = tuple(
        Choice("".join(texts[i]), tuple(t.token for t in tokens[i]),
               tuple(t.logprob for t in tokens[i]) if logprobs else None,
               tuple(t.top for t in tokens[i]) if n_top else None, finishes[i])
        for i in range(n))
    return Result(choices, stream.prompt_ids, stream.seed, stream.report)


class Engine:
    """One device and the models on it.

        with Engine(dollars_per_hour="0.10") as engine:
            model = engine.load("examples/models/stories-small")
            result = model.generate("Once upon a time", max_tokens=40)
            print(result.text, result.report.cost)
    """

    def __init__(self, *, device: str | None = None, threads: int = 0, kv_memory: int = 0, queue_max: int = 0,
                 prefix_reuse: bool = True, dollars_per_hour: str | None = None, basis: str = "wall",
                 kv: str = "f32", speculation: bool = True, cpu_dollars_per_hour: str | None = None,
                 gpu_dollars_per_hour: str | None = None, profile: bool = False,
                 share_prefixes: bool = False) -> None:
        """dollars_per_hour is the price; cpu_ and gpu_dollars_per_hour are prices by the kind of device.
        profile: time every kernel, where the device can, for profile().
        share_prefixes: reuse what was computed of a prompt's beginning across payers."""
        if basis not in ("wall", "cpu"):
            raise _errors.InvalidArgument(f"unknown basis {basis!r}; expected 'wall' or 'cpu'")
        kv_type = ctypes.c_uint()
        call("kv_parse", ctypes.byref(kv_type), kv.encode())
        o = _ffi.EngineOptions(threads=threads, kv_memory=kv_memory, queue_max=queue_max,
                               no_prefix_reuse=not prefix_reuse, kv=kv_type.value,
                               no_speculation=not speculation, profile=profile,
                               share_prefixes=share_prefixes)
        o.basis = ("wall", "cpu").index(basis)
        if device is not None:
            o.device = device.encode()
        if dollars_per_hour is not None:
            o.dollars_per_hour = dollars_per_hour.encode()
        if cpu_dollars_per_hour is not None:
            o.cpu_dollars_per_hour = cpu_dollars_per_hour.encode()
        if gpu_dollars_per_hour is not None:
            o.gpu_dollars_per_hour = gpu_dollars_per_hour.encode()
        self._lock = threading.Lock()  # against reading the meter while closing
        self._pointer = ctypes.c_void_p()
        call("engine_open", ctypes.byref(self._pointer), ctypes.byref(o))

    @property
    def _handle(self) -> ctypes.c_void_p:
        if not self._pointer:
            raise _errors.Closed("the engine was closed")
        return self._pointer

    def load(self, folder: str | os.PathLike[str] | None = None, *, name: str | None = None, shape: str | None = None,
             weights: str = "auto", slots: int = 0) -> Model:
        """Loads a checkpoint's folder, or synthetic weights of a published shape ("gpt2"), while other models serve."""
        kind = ctypes.c_uint()
        call("weights_parse", ctypes.byref(kind), weights.encode())
        o = _ffi.ModelOptions(weights=kind.value, slots=slots)
        if name is not None:
            o.name = name.encode()
        if folder is not None:
            o.folder = os.fsencode(folder)
        if shape is not None:
            o.shape = shape.encode()
        pointer = ctypes.c_void_p()
        call("model_load", ctypes.byref(pointer), self._handle, ctypes.byref(o))
        return Model(pointer)

    def find(self, name: str) -> Model:
        pointer = ctypes.c_void_p()
        call("model_find", ctypes.byref(pointer), self._handle, name.encode())
        return Model(pointer)

    @property
    def models(self) -> list[Model]:
        """The loaded models, oldest first."""
        pointers = (ctypes.c_void_p * 1024)()
        n = lib.cinf_model_list(self._handle, pointers, len(pointers))
        return [Model(ctypes.c_void_p(p)) for p in pointers[: min(n, len(pointers))]]

    @property
    def device(self) -> Device:
        i = _ffi.DeviceInfo()
        lib.cinf_engine_device(self._handle, ctypes.byref(i))
        return Device(text(i.name), text(i.description), text(i.reason), i.is_gpu, i.threads, i.memory_total,
                      i.memory_used, text(lib.cinf_kv_name(i.kv)), i.speculation)

    def profile(self) -> list[Kernel]:
        """The kernels, the longest first.  Unsupported without `profile`, and on a device that cannot time them."""
        rows, n = (_ffi.ProfileRow * 256)(), ctypes.c_uint32()
        call("engine_profile", ctypes.byref(n), self._handle, rows, len(rows))
        return [Kernel(text(row.name), row.launches, row.device_ns) for row in rows[: n.value]]

    def set_price(self, dollars_per_hour: str | None) -> None:
        """Sets the price from the next boundary on; time that was measured keeps its price."""
        call("engine_set_price", self._handle, dollars_per_hour.encode() if dollars_per_hour is not None else None)

    def costs(self) -> Costs:
        """Who used the machine, as one consistent snapshot."""
        with self._lock:
            return costs_of(lib.cinf_engine_meter(self._handle))

    def metrics(self, accept: str | None = None) -> tuple[str, str]:
        """(content type, page) for Prometheus; `accept` is the scraper's Accept header."""
        with self._lock:
            return exposition_of(lib.cinf_engine_meter(self._handle), accept)

    def close(self) -> None:
        """Cancels what runs, unloads the models and gives the device back."""
        with self._lock:
            pointer, self._pointer = self._pointer, ctypes.c_void_p()
        lib.cinf_engine_close(pointer)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self.close()
