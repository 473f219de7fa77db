"""What needs no socket in rpc.py and status.py: rates, and errors on their way over the wire and back.

The rest is tested with real connections in tests/integration/test_security.py.
"""

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll import errors
from atoll.api.v1.global_pb2 import ErrorDetail
from atoll.errors import AtollError, Busy, Mistake
from atoll.rpc import _Rates
from atoll.status import DETAIL, DETAIL_BYTES, STATUS, detail_of, error_of, from_detail, status_of

KINDS = list(STATUS)


def _over_the_wire(error: AtollError) -> AtollError:
    metadata = grpc.aio.Metadata((DETAIL, detail_of(error).SerializeToString()))
    return error_of(grpc.aio.AioRpcError(status_of(error), grpc.aio.Metadata(), metadata, "details"))


def test_every_kind_of_error_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AtollError)}
    assert set(KINDS) == kinds
    assert KINDS[-1] is AtollError


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_as_itself(kind: type[AtollError]) -> None:
    error = kind("why", (Mistake("spec.tasks[0]", "is bad"),), "do this", "id-1", 250)
    back = _over_the_wire(error)
    assert type(back) is kind
    assert vars(back) == vars(error)


def test_a_code_within_a_family_keeps_its_class() -> None:
    assert type(_over_the_wire(errors.QuotaExceeded("q", code="E2299"))) is errors.QuotaExceeded
    assert type(_over_the_wire(Busy("b", code="E5099"))) is Busy
    unheard_of = from_detail(grpc.StatusCode.NOT_FOUND, ErrorDetail(code="E9999", message="m"))
    assert (type(unheard_of), unheard_of.code) == (errors.NotFound, "E9999")


@given(message=st.text(max_size=2000), mistakes=st.lists(st.tuples(st.text(max_size=800), st.text(max_size=800))))
def test_an_error_always_fits(message: str, mistakes: list[tuple[str, str]]) -> None:
    error = errors.Invalid(message, tuple(Mistake(*mistake) for mistake in mistakes), hint=message, request_id=message)
    assert len(detail_of(error).SerializeToString()) <= DETAIL_BYTES
    assert _over_the_wire(error).code == "E1001"


def test_mistakes_that_do_not_fit_are_counted() -> None:
    error = errors.Invalid("bad", tuple(Mistake(f"spec.tasks[{n}]", "x" * 90) for n in range(500)))
    told = _over_the_wire(error).mistakes
    assert told[:-1] == error.mistakes[: len(told) - 1]
    assert told[-1] == Mistake("", f"and {500 - (len(told) - 1)} more")
    assert len(told) > 20


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable, "E5002"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Unavailable, "E5002"),
        (grpc.StatusCode.CANCELLED, errors.Unavailable, "E5002"),
        (grpc.StatusCode.UNKNOWN, errors.Unavailable, "E5002"),
        (grpc.StatusCode.INTERNAL, errors.Unavailable, "E5002"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Invalid, "E1016"),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Invalid, "E1015"),
        (grpc.StatusCode.UNAUTHENTICATED, errors.NotAuthenticated, "E4001"),
        (grpc.StatusCode.PERMISSION_DENIED, errors.NotAllowed, "E4003"),
    ],
)
def test_what_the_transport_tells(status: grpc.StatusCode, kind: type[AtollError], code: str) -> None:
    for metadata in (grpc.aio.Metadata(), grpc.aio.Metadata((DETAIL, b"\xff not a detail"))):
        told = error_of(grpc.aio.AioRpcError(status, grpc.aio.Metadata(), metadata, "text"))
        assert (type(told), told.code) == (kind, code)
        assert "text" in told.message


@given(steps=st.lists(st.integers(0, 300), max_size=200), per_s=st.integers(1, 50), burst=st.integers(1, 20))
def test_no_caller_gets_more_than_its_rate(steps: list[int], per_s: int, burst: int) -> None:
    """In any stretch of time: at most burst + rate x time. And a caller that heeds `retry_after_ms` gets in."""
    rates, now_ms, taken, since_ms = _Rates(per_s, burst), 0, 0, 0
    for step in steps:
        now_ms += step
        try:
            rates.take("a", now_ms)
            taken += 1
        except Busy as busy:
            later = now_ms + busy.retry_after_ms + 1
            rates.take("a", later)
            now_ms, taken = later, taken + 1
        assert taken <= burst + (now_ms - since_ms) * per_s / 1000 + 1e-6


def test_callers_do_not_share_and_the_quietest_is_forgotten() -> None:
    rates = _Rates(per_s=1.0, burst=1, callers=2)
    rates.take("a", 0)
    rates.take("b", 0)
    with pytest.raises(Busy):
        rates.take("a", 0)
    rates.take("c", 0)  # b has been quiet longest
    with pytest.raises(Busy):
        rates.take("a", 0)
    rates.take("b", 0)
