"""One exception class a status code; each is also the built-in exception that Python programs expect."""
from __future__ import annotations


class Error(Exception):
    """A call of libcostinfer failed.  `status` is its code's name, the text its one line of explanation."""

    status = "unknown status"  # a code of a later library


class InvalidArgument(Error, ValueError):
    status = "CINF_EINVAL"


class OutOfMemory(Error, MemoryError):
    status = "CINF_ENOMEM"


class InputOutput(Error, OSError):
    status = "CINF_EIO"


class FormatError(Error, ValueError):
    status = "CINF_EFORMAT"


class Unsupported(Error, NotImplementedError):
    status = "CINF_EUNSUPPORTED"


class NotFound(Error, LookupError):
    status = "CINF_ENOTFOUND"


class AlreadyExists(Error):
    status = "CINF_EEXIST"


class Busy(Error):
    status = "CINF_EBUSY"


class Full(Error):
    status = "CINF_EFULL"


class ContextLength(Error, ValueError):
    status = "CINF_ECONTEXT"


class DeviceError(Error, RuntimeError):
    status = "CINF_EDEVICE"


class Cancelled(Error):
    status = "CINF_ECANCELLED"


class Closed(Error):
    status = "CINF_ECLOSED"


class NothingYet(Error):
    status = "CINF_EAGAIN"


# In the order of enum cinf_status, from CINF_EINVAL = 1.
BY_STATUS: tuple[type[Error], ...] = (
    InvalidArgument, OutOfMemory, InputOutput, FormatError, Unsupported, NotFound, AlreadyExists, Busy, Full,
    ContextLength, DeviceError, Cancelled, Closed, NothingYet,
)
