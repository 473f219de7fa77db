"""One tree of errors, one table of stable codes, the same in CLI, REST and SDK.

Three kinds, three treatments: an expected "no" is a value with reasons; a failing world is an exception raised only
in shells; a broken invariant is `InvariantBroken`, and the process dies. This module holds the errors that users meet:
each says whose fault it is and whether to retry.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in what the user sent, at `path` (spec.tasks[0].replicas)."""

    path: str
    message: str


@dataclass(eq=False)
class AtollError(Exception):
    """`code` is stable; `message` says what and why; `hint` what to do."""

    message: str
    mistakes: tuple[Mistake, ...] = ()
    hint: str = ""
    request_id: str = ""
    retry_after_ms: int = 0
    code: str = field(default="E6000", kw_only=True)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(eq=False)
class Invalid(AtollError):
    """The request is wrong in itself. The user's fault; do not retry."""

    code: str = field(default="E1001", kw_only=True)


@dataclass(eq=False)
class NotFound(AtollError):
    code: str = field(default="E1004", kw_only=True)


@dataclass(eq=False)
class NotPlaced(AtollError):
    """Accepted, but not placed or not ready in time."""

    code: str = field(default="E2103", kw_only=True)


@dataclass(eq=False)
class JobFailed(AtollError):
    """It was waited for, and it has failed: says which task, and why."""

    code: str = field(default="E2104", kw_only=True)


@dataclass(eq=False)
class QuotaExceeded(AtollError):
    """The tenant's quota does not allow it and the workload says `onQuota: reject`."""

    code: str = field(default="E2201", kw_only=True)


@dataclass(eq=False)
class Conflict(AtollError):
    """Somebody else changed it first, or the request id was used for another body. Read again, then retry."""

    code: str = field(default="E3001", kw_only=True)


@dataclass(eq=False)
class NotAuthenticated(AtollError):
    code: str = field(default="E4001", kw_only=True)


@dataclass(eq=False)
class NotAllowed(AtollError):
    code: str = field(default="E4003", kw_only=True)


@dataclass(eq=False)
class Unavailable(AtollError):
    """No answer, or not from a leader. Retry: yes; at the leader's ports, where they are told."""

    code: str = field(default="E5001", kw_only=True)
    leader_people: str = field(default="", kw_only=True)
    leader_programs: str = field(default="", kw_only=True)


@dataclass(eq=False)
class Busy(AtollError):
    """A bound was reached; retry after `retry_after_ms`."""

    code: str = field(default="E5008", kw_only=True)


@dataclass(eq=False)
class Expired(AtollError):
    """The revision asked for is gone: list again."""

    code: str = field(default="E5011", kw_only=True)


@dataclass(eq=False)
class OutcomeUnknown(AtollError):
    """The mutation may have happened. The same request id asked again gives its answer."""

    code: str = field(default="E6007", kw_only=True)


class InvariantBroken(AssertionError):
    """Something that cannot be has been seen. The process must die rather than go on."""


def require(condition: bool, invariant: str) -> None:
    """Raises InvariantBroken unless `condition`; `invariant` names it (I1 … I12) and says what was seen."""
    if not condition:
        raise InvariantBroken(invariant)
