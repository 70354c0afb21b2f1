"""The C side: finding the library, its structs, its prototypes.  Nothing here is public.

Structs are declared field by field as in the headers; a test compares every size and offset with a C
compiler's."""
from __future__ import annotations

import ctypes
import os
import pathlib
from ctypes import (CFUNCTYPE, POINTER, Structure, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32,
                    c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p)
from typing import Any

from . import _errors

FOREVER = 2**64 - 1

Notify = CFUNCTYPE(None, c_void_p)
Progress = CFUNCTYPE(None, c_void_p, c_uint64, c_uint64)
Clock = CFUNCTYPE(c_uint64, c_void_p)


class Checked(Structure):
    """A struct whose integers must fit: ctypes would cut them to their fields' sizes."""

    def __init__(self, *values: Any, **fields: Any) -> None:
        kinds = {name: kind for name, kind, *_ in self._fields_}
        for name, value in (*zip(kinds, values), *fields.items()):
            kind = kinds[name]
            if kind in (c_int32, c_uint, c_uint32, c_uint64, c_size_t) and kind(value).value != value:
                raise _errors.InvalidArgument(f"{name} is {value}, which is out of range")
        super().__init__(*values, **fields)


class Sized(Checked):
    """One that begins with its size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(ctypes.sizeof(type(self)), **fields)


class Cost(Structure):
    _fields_ = [("hi", c_uint64), ("lo", c_uint64)]


class MeterOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("device", c_char_p), ("basis", c_uint), ("dollars_per_hour", c_char_p),
                ("endpoints", POINTER(c_char_p)), ("n_endpoints", c_uint32), ("latency_buckets", POINTER(c_double)),
                ("n_latency_buckets", c_uint32), ("clock_ns", Clock), ("clock_context", c_void_p),
                ("stalled_ns", Clock), ("device_cpu_ns", Clock), ("device_cpu_context", c_void_p)]


class EngineOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("device", c_char_p), ("threads", c_uint32), ("kv", c_uint),
                ("kv_memory", c_uint64), ("queue_max", c_uint32), ("prefill_rows", c_uint32),
                ("no_prefix_reuse", c_bool), ("no_speculation", c_bool), ("profile", c_bool),
                ("dollars_per_hour", c_char_p), ("cpu_dollars_per_hour", c_char_p),
                ("gpu_dollars_per_hour", c_char_p), ("basis", c_uint), ("endpoints", POINTER(c_char_p)),
                ("n_endpoints", c_uint32), ("latency_buckets", POINTER(c_double)), ("n_latency_buckets", c_uint32),
                ("clock_ns", Clock), ("clock_context", c_void_p), ("share_prefixes", c_bool)]


class DeviceInfo(Sized):
    _fields_ = [("struct_size", c_size_t), ("name", c_char * 96), ("description", c_char * 160),
                ("reason", c_char * 256), ("is_gpu", c_bool), ("threads", c_uint32), ("memory_total", c_uint64),
                ("memory_used", c_uint64), ("as_per_flop", c_uint64), ("as_per_byte", c_uint64),
                ("kv", c_uint), ("speculation", c_bool)]


class ProfileRow(Structure):
    _fields_ = [("name", c_char * 48), ("launches", c_uint64), ("device_ns", c_uint64)]


class ModelOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("name", c_char_p), ("folder", c_char_p), ("shape", c_char_p),
                ("weights", c_uint), ("slots", c_uint32), ("untied_head", c_bool), ("progress", Progress),
                ("progress_context", c_void_p), ("replace", c_bool)]


class Config(Structure):
    _fields_ = [("vocab_size", c_uint32), ("n_positions", c_uint32), ("n_embd", c_uint32), ("n_layer", c_uint32),
                ("n_head", c_uint32), ("n_inner", c_uint32), ("activation", c_uint), ("layer_norm_epsilon", c_float),
                ("scale_attn_weights", c_bool), ("scale_attn_by_inverse_layer_idx", c_bool),
                ("tie_word_embeddings", c_bool), ("n_eos", c_uint32), ("eos", c_int32 * 16), ("bos", c_int32)]


class ModelInfo(Sized):
    _fields_ = [("struct_size", c_size_t), ("name", c_char_p), ("folder", c_char_p), ("notes", c_char_p),
                ("account", c_uint32), ("config", Config), ("weights", c_uint), ("parameters", c_uint64),
                ("slots", c_uint32), ("loaded", c_bool), ("loaded_at", c_int64), ("weight_bytes", c_uint64),
                ("greedy_bytes", c_uint64), ("fingerprint", c_char_p), ("identity", c_char_p)]


class LogitBias(Checked):
    _fields_ = [("token", c_int32), ("bias", c_float)]


class RequestOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("prompt", c_char_p), ("prompt_bytes", c_size_t),
                ("prompt_ids", POINTER(c_int32)), ("n_prompt_ids", c_uint32), ("tokenize_flags", c_uint),
                ("max_tokens", c_uint32), ("prompt_only", c_bool), ("ignore_eos", c_bool),
                ("stop", POINTER(c_char_p)), ("n_stop", c_uint32), ("n", c_uint32),
                ("logit_bias", POINTER(LogitBias)), ("n_logit_bias", c_uint32), ("repetition_penalty", c_float),
                ("presence_penalty", c_float), ("frequency_penalty", c_float), ("temperature", c_float),
                ("top_k", c_uint32), ("top_p", c_float), ("min_p", c_float), ("seed", c_uint64),
                ("logprobs", c_bool), ("top_logprobs", c_uint32), ("prompt_logprobs", c_bool),
                ("prompt_logits", POINTER(c_float)), ("endpoint", c_uint32), ("timeout_ns", c_uint64),
                ("notify", Notify), ("notify_context", c_void_p), ("unread_max", c_uint32), ("payer", c_char_p),
                ("stop_token_ids", POINTER(c_int32)), ("n_stop_token_ids", c_uint32), ("min_tokens", c_uint32),
                ("typical_p", c_float), ("note", c_void_p)]


class Logprob(Structure):
    _fields_ = [("token", c_int32), ("logprob", c_float)]


class Event(Sized):
    _fields_ = [("struct_size", c_size_t), ("kind", c_uint), ("choice", c_uint32), ("token", c_int32),
                ("logprob", c_float), ("text", c_char_p), ("text_bytes", c_size_t), ("top", POINTER(Logprob)),
                ("n_top", c_uint32), ("finish", c_uint), ("rank", c_uint32)]


class Report(Sized):
    _fields_ = [("struct_size", c_size_t), ("finish", c_uint), ("model", c_uint32), ("input_tokens", c_uint32),
                ("cached_tokens", c_uint32), ("output_tokens", c_uint32), ("queue_ns", c_uint64),
                ("latency_ns", c_uint64), ("first_token_ns", c_uint64), ("device_ns", c_uint64),
                ("prefill_ns", c_uint64), ("decode_ns", c_uint64), ("unpriced_ns", c_uint64), ("cost", Cost),
                ("drafted_tokens", c_uint32), ("accepted_tokens", c_uint32), ("lost_ns", c_uint64),
                ("start_ns", c_uint64)]


class Share(Checked):
    _fields_ = [("bill", c_void_p), ("prefill_weight", c_uint64), ("decode_weight", c_uint64),
                ("input_tokens", c_uint32), ("cached_tokens", c_uint32), ("output_tokens", c_uint32)]


class ModelTotals(Structure):
    _fields_ = [("name", c_char_p), ("loaded", c_bool), ("serve_ns", c_uint64), ("prefill_ns", c_uint64),
                ("decode_ns", c_uint64), ("load_ns", c_uint64), ("unpriced_ns", c_uint64), ("serve_cost", Cost),
                ("load_cost", Cost), ("input_tokens", c_uint64), ("cached_tokens", c_uint64),
                ("output_tokens", c_uint64), ("requests", c_uint64 * 16), ("finished", c_uint64 * 7),
                ("finished_ns", c_uint64 * 7), ("errors", c_uint64 * 7), ("running", c_uint64),
                ("waiting", c_uint64)]


class PricePeriod(Structure):
    _fields_ = [("from_ns", c_uint64), ("priced", c_bool), ("nanodollars_per_hour", c_uint64),
                ("serve_ns", c_uint64), ("load_ns", c_uint64), ("idle_ns", c_uint64),
                ("model_serve_ns", POINTER(c_uint64)), ("model_load_ns", POINTER(c_uint64))]


class PriceSums(Structure):
    _fields_ = [("n_periods", c_uint64), ("lost_ns", c_uint64), ("overhead_ns", c_uint64), ("unpriced_ns", c_uint64),
                ("serve_cost", Cost), ("load_cost", Cost), ("idle_cost", Cost), ("lost_cost", Cost),
                ("overhead_cost", Cost)]


class PayerTotals(Structure):
    _fields_ = [("model", c_uint32), ("payer", c_char_p), ("serve_ns", c_uint64), ("prefill_ns", c_uint64),
                ("decode_ns", c_uint64), ("unpriced_ns", c_uint64), ("cost", Cost), ("input_tokens", c_uint64),
                ("cached_tokens", c_uint64), ("output_tokens", c_uint64), ("requests", c_uint64)]


class Snapshot(Sized):
    _fields_ = [("struct_size", c_size_t), ("device", c_char_p), ("basis", c_uint), ("as_of_ns", c_uint64),
                ("serve_ns", c_uint64), ("load_ns", c_uint64), ("idle_ns", c_uint64), ("unpriced_ns", c_uint64),
                ("serve_cost", Cost), ("load_cost", Cost), ("idle_cost", Cost), ("n_endpoints", c_uint32),
                ("endpoints", POINTER(c_char_p)), ("n_models", c_uint32), ("models", POINTER(ModelTotals)),
                ("n_prices", c_uint32), ("prices", POINTER(PricePeriod)), ("memory", c_void_p),
                ("lost_ns", c_uint64), ("overhead_ns", c_uint64), ("lost_cost", Cost), ("overhead_cost", Cost),
                ("stalls", c_uint64), ("clock_steps", c_uint64), ("price_sums", POINTER(PriceSums)),
                ("n_payers", c_uint32), ("payers", POINTER(PayerTotals))]


def _load() -> ctypes.CDLL:
    """$COSTINFER_LIBRARY, else the library in the wheel, else the one that the system's loader finds."""
    bundled = pathlib.Path(__file__).with_name("libcostinfer.so.0")
    name = os.environ.get("COSTINFER_LIBRARY") or (str(bundled) if bundled.exists() else "libcostinfer.so.0")
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(f"cannot load libcostinfer: {error}. Install it, or set COSTINFER_LIBRARY to the path "
                          "of libcostinfer.so.0") from None


lib = _load()

_P = c_void_p
_PP = POINTER(c_void_p)
# Functions that return a status; `call` turns it into an exception.
_FALLIBLE: dict[str, list[Any]] = {
    "engine_open": [_PP, POINTER(EngineOptions)],
    "engine_set_price": [_P, c_char_p],
    "engine_profile": [POINTER(c_uint32), _P, POINTER(ProfileRow), c_uint32],
    "model_load": [_PP, _P, POINTER(ModelOptions)],
    "model_find": [_PP, _P, c_char_p],
    "model_unload": [_P],
    "weights_parse": [POINTER(c_uint), c_char_p],
    "kv_parse": [POINTER(c_uint), c_char_p],
    "request_submit": [_PP, _P, POINTER(RequestOptions)],
    "request_next": [_P, c_uint64, POINTER(Event)],
    "score": [_P, POINTER(c_int32), c_uint32, POINTER(c_float), POINTER(Report)],
    "logits": [_P, POINTER(c_int32), c_uint32, POINTER(c_float), POINTER(Report)],
    "tokenizer_encode": [_P, c_char_p, c_size_t, c_uint, POINTER(POINTER(c_int32)), POINTER(c_size_t)],
    "tokenizer_decode": [_P, POINTER(c_int32), c_size_t, _PP, POINTER(c_size_t)],
    "price_parse": [POINTER(c_uint64), c_char_p],
    "meter_new": [_PP, POINTER(MeterOptions)],
    "meter_add_model": [_P, c_char_p, POINTER(c_uint32)],
    "meter_set_price": [_P, c_char_p],
    "meter_snapshot": [POINTER(Snapshot), _P],
    "bill_open_for": [_PP, _P, c_uint32, c_uint32, c_char_p],
    "exposition_new": [_PP, c_uint],
    "exposition_meter": [_P, _P],
    "exposition_finish": [_P, POINTER(c_char_p), POINTER(c_size_t)],
}
_OTHERS: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_char_p, []),
    "last_error": (c_char_p, []),
    "engine_close": (None, [_P]),
    "engine_meter": (_P, [_P]),
    "engine_device": (None, [_P, POINTER(DeviceInfo)]),
    "model_release": (None, [_P]),
    "model_list": (c_uint32, [_P, _PP, c_uint32]),
    "model_info": (None, [_P, POINTER(ModelInfo)]),
    "model_tokenizer": (_P, [_P]),
    "weights_name": (c_char_p, [c_uint]),
    "kv_name": (c_char_p, [c_uint]),
    "request_cancel": (None, [_P, c_uint]),
    "request_pause": (None, [_P, c_bool]),
    "request_report": (None, [_P, POINTER(Report)]),
    "request_prompt": (POINTER(c_int32), [_P, POINTER(c_uint32)]),
    "request_seed": (c_uint64, [_P]),
    "request_failure": (c_char_p, [_P]),
    "request_free": (None, [_P]),
    "ids_free": (None, [POINTER(c_int32)]),
    "text_free": (None, [_P]),
    "tokenizer_end_of_text": (c_int32, [_P]),
    "finish_name": (c_char_p, [c_uint]),
    "error_kind_name": (c_char_p, [c_uint]),
    "cost_of": (Cost, [c_uint64, c_uint64]),
    "meter_free": (None, [_P]),
    "meter_busy": (None, [_P]),
    "meter_idle": (None, [_P]),
    "meter_set_gpu_memory": (None, [_P, c_uint64, c_uint64]),
    "meter_set_gpu_taken": (None, [_P, c_uint64]),
    "meter_charge": (c_uint64, [_P, POINTER(Share), c_uint32]),
    "bill_close": (None, [_P, c_uint]),
    "bill_count_drafts": (None, [_P, c_uint32, c_uint32]),
    "bill_read": (None, [_P, POINTER(Report)]),
    "bill_free": (None, [_P]),
    "snapshot_free": (None, [POINTER(Snapshot)]),
    "exposition_free": (None, [_P]),
    "exposition_negotiate": (c_uint, [c_char_p]),
    "exposition_content_type": (c_char_p, [c_uint]),
}
for _name, _arguments in _FALLIBLE.items():
    _function = getattr(lib, "cinf_" + _name)
    _function.restype, _function.argtypes = c_int, _arguments
for _name, (_result, _arguments) in _OTHERS.items():
    _function = getattr(lib, "cinf_" + _name)
    _function.restype, _function.argtypes = _result, _arguments


def text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def error(status: int) -> _errors.Error:
    kind = _errors.BY_STATUS[status - 1] if status <= len(_errors.BY_STATUS) else _errors.Error
    return kind(text(lib.cinf_last_error()))


def call(name: str, *arguments: Any) -> None:
    status: int = getattr(lib, "cinf_" + name)(*arguments)
    if status:
        raise error(status)


def names(function: str, first: int, count: int) -> tuple[str, ...]:
    return tuple(text(getattr(lib, "cinf_" + function)(i)) for i in range(first, count))


FINISHES = names("finish_name", 0, 7)
ERROR_KINDS = names("error_kind_name", 0, 7)
