"""The accounts of a tenant's budget: what is counted for each of them by itself, and who may be charged to which.

Hard is the quota. Burst is a part beside it, half as much at most: what runs by it gives its room to whoever has hard
quota for it, and so it pays only for work that may be stopped for others: of priority low and below, and in no gang,
whose members are not stopped. Work is charged to burst only when the hard account does not pay for it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING, Vector, vector

Account: TypeAlias = objects_pb2.Account.ValueType
HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST
ACCOUNTS = (HARD, BURST)
BURST_PERCENT = 50  # of the quota, unless the tenant says less; more is not allowed

_Part = TypeVar("_Part")


class ByAccount(NamedTuple):
    """An amount for each account. Arithmetic is by account, as that of vectors is by dimension."""

    hard: Vector = NOTHING
    burst: Vector = NOTHING

    def __add__(self, other: "ByAccount") -> "ByAccount":  # type: ignore[override]
        return _both(self, other, Vector.__add__)

    def __sub__(self, other: "ByAccount") -> "ByAccount":
        return _both(self, other, Vector.__sub__)

    def __neg__(self) -> "ByAccount":
        return ByAccount(-self.hard, -self.burst)

    def __bool__(self) -> bool:
        return bool(self.hard) or bool(self.burst)

    def at_most(self, other: "ByAccount") -> "ByAccount":
        return _both(self, other, Vector.at_most)

    def at_least(self, other: "ByAccount") -> "ByAccount":
        return _both(self, other, Vector.at_least)

    def fits(self, limit: "ByAccount") -> bool:
        """No account exceeds its limit."""
        return self.hard.fits(limit.hard) and self.burst.fits(limit.burst)

    def is_legal(self) -> bool:
        return self.hard.is_legal() and self.burst.is_legal()

    def of(self, account: Account) -> Vector:
        return self.burst if account == BURST else self.hard

    @property
    def both(self) -> Vector:
        """What the tenant has in all."""
        return self.hard + self.burst if self.burst else self.hard

    def written(self) -> Iterator[tuple[Account, Vector]]:
        """Those that records name, in their order: a burst account with nothing in it is not."""
        yield HARD, self.hard
        if self.burst:
            yield BURST, self.burst

    def __str__(self) -> str:
        return f"{self.hard}, burst {self.burst}" if self.burst else str(self.hard)


NONE = ByAccount()


def _both(one: ByAccount, other: ByAccount, then: Callable[[Vector, Vector], Vector]) -> ByAccount:
    """Most tenants have no burst: what is nothing in both stays so, whatever is done."""
    burst = NOTHING if one[1] is NOTHING and other[1] is NOTHING else then(one[1], other[1])
    return ByAccount(then(one[0], other[0]), burst)


def charged_to(account: Account, amount: Vector) -> ByAccount:
    """A record without an account is of the time when there was but one."""
    return ByAccount(NOTHING, amount) if account == BURST else ByAccount(amount)


def by_account(parts: Iterable[_Part], read: Callable[[_Part], objects_pb2.Resources]) -> ByAccount:
    """One amount of each part of a record, by the account that the part is of."""
    found = NONE
    for part in parts:
        said: Any = part
        found += charged_to(said.account, vector(read(part)))
    return found


def summed(amounts: Iterable[ByAccount]) -> ByAccount:
    return sum(amounts, NONE)


def may_burst(priority: int, gang: bool) -> bool:
    """Whether the burst account may pay for such work."""
    return not gang and (priority or objects_pb2.PRIORITY_DEFAULT) <= objects_pb2.PRIORITY_LOW


def limits(spec: objects_pb2.TenantSpec) -> ByAccount:
    """What a tenant may use of each account. One that was stored before there was a burst account has none."""
    quota = vector(spec.quota)
    return ByAccount(quota, Vector(*(amount * spec.burst_percent // 100 for amount in quota)))


def missing(asked: Vector, firm: Vector, limit: ByAccount) -> Vector:
    """What of all that is asked for no account pays for; `firm`: the part of it that burst may not pay for."""
    return (firm - limit.hard).at_least(asked - limit.both).at_least(NOTHING)
