"""GPT-2 inference that knows what it costs.

    from costinfer import Engine

    with Engine(dollars_per_hour="0.10") as engine:
        model = engine.load("path/to/gpt2")
        result = model.generate("Once upon a time", max_tokens=40)
        print(result.text)
        print(result.report.output_tokens, "tokens, $", result.report.cost)
        print(engine.costs().models["gpt2"].serve_cost)

Stream with `model.stream()` (`for` and `async for`), score with `model.score()`, and bill your own inference with
`Meter`.  Every failure is a subclass of `Error`."""
from ._engine import Choice, Device, Engine, Event, Kernel, Model, ModelInfo, RequestOptions, Result, Stream
from ._errors import (AlreadyExists, Busy, Cancelled, Closed, ContextLength, DeviceError, Error, FormatError, Full,
                      InputOutput, InvalidArgument, NotFound, OutOfMemory, Unsupported)
from ._ffi import lib as _lib
from ._meter import Bill, Cost, Costs, Meter, ModelCosts, Report, Share

__version__ = "0.1.0"


def library_version() -> str:
    """The version of the C library that is running."""
    version: bytes = _lib.cinf_version()
    return version.decode()


__all__ = [
    "AlreadyExists", "Bill", "Busy", "Cancelled", "Choice", "Closed", "ContextLength", "Cost", "Costs", "Device",
    "DeviceError", "Engine", "Error", "Event", "FormatError", "Full", "InputOutput", "InvalidArgument", "Kernel",
    "Meter", "Model", "ModelCosts", "ModelInfo", "NotFound", "OutOfMemory", "PayerCosts", "Report", "RequestOptions", "Result",
    "Share", "Stream", "Unsupported", "library_version",
]
