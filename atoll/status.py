"""Errors on the wire: an AtollError becomes a gRPC status with an ErrorDetail beside it, and the same error again.

The detail travels in the trailing metadata `atoll-error-bin` and is kept within what any gRPC peer accepts. A status
without a detail came from the transport, not from a server of ours: nobody has answered.
"""

import contextlib
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from atoll.api.v1.global_pb2 import ErrorDetail, FieldError
from atoll.errors import (
    AtollError,
    Busy,
    Conflict,
    Expired,
    Invalid,
    JobFailed,
    Mistake,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotPlaced,
    OutcomeUnknown,
    QuotaExceeded,
    Unavailable,
)

DETAIL = "atoll-error-bin"
DETAIL_BYTES = 4096  # becomes 5.3 KiB on the wire; any gRPC peer accepts 8 KiB of metadata
TEXT_CHARS = 400  # of one message or path

STATUS: dict[type[AtollError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    JobFailed: grpc.StatusCode.FAILED_PRECONDITION,
    NotPlaced: grpc.StatusCode.FAILED_PRECONDITION,
    QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Conflict: grpc.StatusCode.ABORTED,
    NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Expired: grpc.StatusCode.OUT_OF_RANGE,
    OutcomeUnknown: grpc.StatusCode.DEADLINE_EXCEEDED,
    AtollError: grpc.StatusCode.INTERNAL,  # last: everything is one
}


def status_of(error: AtollError) -> grpc.StatusCode:
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: AtollError) -> NoReturn:
    """Ends the call with `error`."""
    summary = f"{error.code}: {_short(error.message)}"
    await context.abort(status_of(error), summary, ((DETAIL, detail_of(error).SerializeToString()),))


def error_of(error: grpc.aio.AioRpcError) -> AtollError:
    """The error that a failed call tells. One that the server raised comes back as it was. When the transport failed
    it is Unavailable with code E5002, and who sent a mutation must take that for OutcomeUnknown.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return from_detail(error.code(), ErrorDetail.FromString(value))
    return _from_transport(error.code(), error.details() or "no reason given")


def detail_of(error: AtollError) -> ErrorDetail:
    """`error` as a detail of at most DETAIL_BYTES: long texts are cut, and the last mistakes only counted."""
    detail = ErrorDetail(
        code=error.code,
        message=_short(error.message),
        hint=_short(error.hint),
        request_id=_short(error.request_id),
        retry_after_ms=error.retry_after_ms,
    )
    if isinstance(error, Unavailable):
        detail.leader_people, detail.leader_programs = _short(error.leader_people), _short(error.leader_programs)
    left_bytes = DETAIL_BYTES - detail.ByteSize() - 64  # room for the line that counts the rest
    for told, mistake in enumerate(error.mistakes):
        field = FieldError(path=_short(mistake.path), message=_short(mistake.message))
        left_bytes -= field.ByteSize() + 4  # its tag and length
        if left_bytes < 0:
            detail.fields.add(message=f"and {len(error.mistakes) - told} more")
            break
        detail.fields.append(field)
    return detail


def from_detail(status: grpc.StatusCode, detail: ErrorDetail) -> AtollError:
    """The error of `detail`: its class follows from the status, and where several share one, from the code or its
    family."""
    kinds = [kind for kind, its_status in STATUS.items() if its_status is status] or [AtollError]
    exact = (kind for kind in kinds if kind("").code == detail.code)
    family = (kind for kind in kinds if kind("").code[:2] == detail.code[:2])
    return told_as(next(exact, None) or next(family, kinds[0]), detail)


def told_as(kind: type[AtollError], detail: ErrorDetail) -> AtollError:
    """The error of `detail`, of this class."""
    error = kind(
        detail.message,
        mistakes=tuple(Mistake(field.path, field.message) for field in detail.fields),
        hint=detail.hint,
        request_id=detail.request_id,
        retry_after_ms=detail.retry_after_ms,
        code=detail.code,
    )
    if isinstance(error, Unavailable):
        error.leader_people, error.leader_programs = detail.leader_people, detail.leader_programs
    return error


def _from_transport(status: grpc.StatusCode, reason: str) -> AtollError:
    match status:
        case grpc.StatusCode.UNIMPLEMENTED:
            return Invalid(f"the server does not know this call: {reason}", code="E1015")
        case grpc.StatusCode.RESOURCE_EXHAUSTED | grpc.StatusCode.INVALID_ARGUMENT:
            return Invalid(f"the message was refused: {reason}", code="E1016")
        case grpc.StatusCode.UNAUTHENTICATED:
            return NotAuthenticated(reason)
        case grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(reason)
        case _ if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = "is the ca file the one of the cluster at this address?"
            return Unavailable(
                f"the server could not prove that it is of this cluster: {reason}", hint=hint, code="E5002"
            )
        case _:
            return Unavailable(f"no answer ({status.name.lower()}): {reason}", code="E5002")


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"
