"""Money, reports, snapshots, and a meter for programs with their own inference."""
from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any

from . import _errors, _ffi
from ._ffi import call, lib, text

_UNITS_PER_DOLLAR = 3600 * 10**18  # nanoseconds x nano-dollars an hour
_DECIMALS = Decimal("1e-12")


@dataclass(frozen=True, order=True)
class Cost:
    """An exact amount of money; amounts add without rounding."""

    units: int = 0  # nanoseconds x nano-dollars an hour

    @classmethod
    def of(cls, ns: int, dollars_per_hour: str) -> Cost:
        """What `ns` nanoseconds cost at a price: the time times the rate, divided by an hour."""
        price = ctypes.c_uint64()
        call("price_parse", ctypes.byref(price), dollars_per_hour.encode())
        return cls(ns * price.value)

    @property
    def fraction(self) -> Fraction:
        """Dollars, exactly."""
        return Fraction(self.units, _UNITS_PER_DOLLAR)

    @property
    def dollars(self) -> Decimal:
        """Dollars with 12 decimals, rounded half up."""
        # 128 bits of units have 39 digits: with 60 no step before the last rounds what matters.
        exact = Context(prec=60)
        return exact.divide(Decimal(self.units), Decimal(_UNITS_PER_DOLLAR)).quantize(
            _DECIMALS, rounding=ROUND_HALF_UP, context=exact)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.units + other.units)

    def __float__(self) -> float:
        return float(self.fraction)

    def __str__(self) -> str:
        return f"{self.dollars:f}"


def _cost(c: Any) -> Cost:
    return Cost((c.hi << 64) | c.lo)


@dataclass(frozen=True)
class Report:
    """What one request used: integers, in nanoseconds and tokens."""

    finish: str  # "running", "stop", "length", "cancelled", "client_gone", "timeout", "failed"
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_ns: int
    latency_ns: int
    first_token_ns: int
    device_ns: int
    prefill_ns: int
    decode_ns: int
    unpriced_ns: int
    cost: Cost
    drafted_tokens: int = 0  # draft tokens that speculation computed
    accepted_tokens: int = 0  # of these, accepted as output
    lost_ns: int = 0  # part of latency_ns in which the process could not run; charged to no request
    start_ns: int = 0  # when latency_ns begins, since the meter was opened


def report_of(r: _ffi.Report) -> Report:
    return Report(_ffi.FINISHES[r.finish], r.input_tokens, r.cached_tokens, r.output_tokens, r.queue_ns,
                  r.latency_ns, r.first_token_ns, r.device_ns, r.prefill_ns, r.decode_ns, r.unpriced_ns,
                  _cost(r.cost), r.drafted_tokens, r.accepted_tokens, r.lost_ns, r.start_ns)


@dataclass(frozen=True)
class ModelCosts:
    """One model's account."""

    name: str
    loaded: bool
    serve_ns: int
    prefill_ns: int
    decode_ns: int
    load_ns: int
    unpriced_ns: int
    serve_cost: Cost
    load_cost: Cost
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    requests: Mapping[str, int]  # ended, by endpoint
    finished: Mapping[str, int]  # ended, by reason
    errors: Mapping[str, int]
    running: int
    waiting: int


@dataclass(frozen=True)
class PayerCosts:
    """One payer's account with one model."""

    model: str
    payer: str
    serve_ns: int
    prefill_ns: int
    decode_ns: int
    unpriced_ns: int
    cost: Cost
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    requests: int


@dataclass(frozen=True)
class Costs:
    """One consistent snapshot of a device: serve_ns + load_ns + idle_ns + lost_ns + overhead_ns == as_of_ns."""

    device: str
    as_of_ns: int
    serve_ns: int
    load_ns: int
    idle_ns: int
    unpriced_ns: int
    serve_cost: Cost
    load_cost: Cost
    idle_cost: Cost
    models: Mapping[str, ModelCosts]
    lost_ns: int  # in which the process could not run
    overhead_ns: int  # CPU time of threads that are not the device's
    lost_cost: Cost
    overhead_cost: Cost
    payers: Sequence[PayerCosts]


def _model_costs(m: Any, endpoints: Sequence[str]) -> ModelCosts:
    return ModelCosts(
        text(m.name), m.loaded, m.serve_ns, m.prefill_ns, m.decode_ns, m.load_ns, m.unpriced_ns, _cost(m.serve_cost),
        _cost(m.load_cost), m.input_tokens, m.cached_tokens, m.output_tokens, dict(zip(endpoints, m.requests)),
        dict(list(zip(_ffi.FINISHES, m.finished))[1:]), dict(zip(_ffi.ERROR_KINDS, m.errors)), m.running, m.waiting)


def costs_of(meter: int) -> Costs:
    s = _ffi.Snapshot()
    call("meter_snapshot", ctypes.byref(s), meter)
    try:
        endpoints = [text(s.endpoints[i]) for i in range(s.n_endpoints)]
        models = [_model_costs(s.models[i], endpoints) for i in range(s.n_models)]
        payers = [PayerCosts(models[p.model].name, text(p.payer), p.serve_ns, p.prefill_ns, p.decode_ns, p.unpriced_ns,
                             _cost(p.cost), p.input_tokens, p.cached_tokens, p.output_tokens, p.requests)
                  for p in (s.payers[i] for i in range(s.n_payers))]
        return Costs(text(s.device), s.as_of_ns, s.serve_ns, s.load_ns, s.idle_ns, s.unpriced_ns, _cost(s.serve_cost),
                     _cost(s.load_cost), _cost(s.idle_cost), {m.name: m for m in models}, s.lost_ns, s.overhead_ns,
                     _cost(s.lost_cost), _cost(s.overhead_cost), payers)
    finally:
        lib.cinf_snapshot_free(ctypes.byref(s))


def exposition_of(meter: int, accept: str | None) -> tuple[str, str]:
    """(content type, text) of a page for Prometheus."""
    format_ = lib.cinf_exposition_negotiate(accept.encode() if accept is not None else None)
    page = ctypes.c_void_p()
    call("exposition_new", ctypes.byref(page), format_)
    try:
        call("exposition_meter", page, meter)
        out, length = ctypes.c_char_p(), ctypes.c_size_t()
        call("exposition_finish", page, ctypes.byref(out), ctypes.byref(length))
        return text(lib.cinf_exposition_content_type(format_)), text(ctypes.string_at(out, length.value))
    finally:
        lib.cinf_exposition_free(page)


class Bill:
    """One request that a Meter charges.  Close it with its reason ("stop", "length", "cancelled" …); a bill that is
    collected while it is open is closed as cancelled."""

    def __init__(self, meter: Meter, model: str, endpoint: int = 0, payer: str | None = None) -> None:
        self._meter = meter
        self._pointer = ctypes.c_void_p()
        self._open = False
        if payer is not None and "\0" in payer:
            raise _errors.InvalidArgument("the payer has a NUL")
        call("bill_open_for", ctypes.byref(self._pointer), meter._pointer, meter.account(model), endpoint,
             payer.encode() if payer is not None else None)
        self._open = True
        meter._bills.add(self._pointer.value)

    def close(self, finish: str = "stop") -> Report:
        if finish not in _ffi.FINISHES[1:]:
            raise _errors.InvalidArgument(f"unknown finish {finish!r}; expected {', '.join(_ffi.FINISHES[1:])}")
        with self._meter._moving:
            if self._open:
                lib.cinf_bill_close(self._pointer, _ffi.FINISHES.index(finish))
                self._open = False
        return self.report

    def count_drafts(self, drafted: int, accepted: int) -> None:
        """Counts, before a charge, the draft tokens of its work and how many of them were accepted."""
        with self._meter._moving:
            lib.cinf_bill_count_drafts(self._pointer, drafted, accepted)

    @property
    def report(self) -> Report:
        r = _ffi.Report()
        lib.cinf_bill_read(self._pointer, ctypes.byref(r))
        return report_of(r)

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            if self._open:
                self.close("cancelled")
            with self._meter._moving:
                self._meter._bills.discard(self._pointer.value)
                lib.cinf_bill_free(self._pointer)
                self._meter._free()


@dataclass(frozen=True)
class Share:
    """One bill's part in an interval; the weights are the time that its work would have taken alone."""

    bill: Bill
    prefill_weight: int = 0
    decode_weight: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Meter:
    """A timeline of one device, for programs that run models by themselves.  Many threads may use it concurrently."""

    def __init__(self, *, device: str = "cpu", dollars_per_hour: str | None = None) -> None:
        options = _ffi.MeterOptions(device=device.encode())
        if dollars_per_hour is not None:
            options.dollars_per_hour = dollars_per_hour.encode()
        # Only one thread at a time may advance time, and a collected bill is closed by whichever thread collects it.
        self._moving = threading.RLock()
        self._accounts: dict[str, int] = {}
        self._bills: set[int | None] = set()  # the addresses of the existing ones
        self._collected = False
        self._pointer = ctypes.c_void_p()
        call("meter_new", ctypes.byref(self._pointer), ctypes.byref(options))

    def account(self, model: str) -> int:
        """The number of a model's account, which is created for a new name."""
        with self._moving:
            if model not in self._accounts:
                number = ctypes.c_uint32()
                call("meter_add_model", self._pointer, model.encode(), ctypes.byref(number))
                self._accounts[model] = number.value
            return self._accounts[model]

    def open_bill(self, model: str, payer: str | None = None) -> Bill:
        """Opens the bill of a request.  payer: who pays, a name known before the request; None: "anonymous"."""
        return Bill(self, model, payer=payer)

    def busy(self) -> None:
        with self._moving:
            lib.cinf_meter_busy(self._pointer)

    def idle(self) -> None:
        with self._moving:
            lib.cinf_meter_idle(self._pointer)

    def charge(self, *shares: Share) -> int:
        """Charges the time since the last boundary to the shares; returns it in nanoseconds."""
        parts = (_ffi.Share * len(shares))(*(
            _ffi.Share(s.bill._pointer, s.prefill_weight, s.decode_weight, s.input_tokens, s.cached_tokens,
                       s.output_tokens) for s in shares))
        with self._moving:
            if any(not s.bill._open or s.bill._meter is not self for s in shares):
                raise _errors.InvalidArgument("a share's bill is closed, or another meter's")
            if len({id(s.bill) for s in shares}) < len(shares):
                raise _errors.InvalidArgument("a bill stands in two shares of one interval")
            ns: int = lib.cinf_meter_charge(self._pointer, parts, len(shares))
        return ns

    def set_price(self, dollars_per_hour: str | None) -> None:
        """Sets the price from now on; time that was measured keeps its price.  None: unpriced."""
        with self._moving:
            call("meter_set_price", self._pointer, dollars_per_hour.encode() if dollars_per_hour is not None else None)

    def set_gpu_memory(self, used_bytes: int, total_bytes: int) -> None:
        """Sets a GPU's memory as allocated by this program, and in total, for metrics()."""
        lib.cinf_meter_set_gpu_memory(self._pointer, used_bytes, total_bytes)

    def set_gpu_taken(self, used_bytes: int) -> None:
        """Sets the GPU's used memory as its driver counts it, other programs' included; 0: unknown."""
        lib.cinf_meter_set_gpu_taken(self._pointer, used_bytes)

    def costs(self) -> Costs:
        return costs_of(self._address)

    def metrics(self, accept: str | None = None) -> tuple[str, str]:
        return exposition_of(self._address, accept)

    @property
    def _address(self) -> int:
        assert self._pointer.value is not None
        return self._pointer.value

    def _free(self) -> None:
        """C's meter must outlive its bills, and objects collected together end in any order: the last one frees it."""
        if self._collected and not self._bills:
            lib.cinf_meter_free(self._pointer)

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            with self._moving:
                self._collected = True
                self._free()
