"""What each tenant may still charge here: the region's side of the escrow.

Keeps (S) of docs/protocols.md at every revision: U + V <= C, in strict mode U + V + Z <= C. A charge counts from the
moment its transaction is sent until it is refused; a credit counts only when it is committed. C moves only by
APPLY-SLICE, in the order of (epoch, seq): up at once, down to max(target, what is in use), again and again as work
drains. A tenant becomes strict once what may still run of it fits. When the validity of a slice is over, C becomes what
is in use, once: releases make room for new work, until the global plane renews it. All of this holds for each account
by itself. Which of them pays: the hard one as long as it can, else the burst one, if the work may be charged to it.
"""

from dataclasses import dataclass, field
from operator import attrgetter

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import require
from atoll.model import explain
from atoll.model.accounts import BURST, HARD, NONE, Account, ByAccount, by_account, summed
from atoll.model.resources import NOTHING, Vector, vector

SLICE_AWAITED = explain.reason(explain.SLICE_AWAITED)
STRICT = objects_pb2.QUOTA_MODE_STRICT
UNLIMITED = 1 << 30
Standing = tuple[int, int, ByAccount, ByAccount, ByAccount, ByAccount, ByAccount, Vector]  # epoch, seq, limit … wanted


@dataclass(slots=True)
class TenantAccount:
    """One tenant in this region. `record` is the slice as committed."""

    tenant: str
    record: objects_pb2.RegionSlice = field(default_factory=objects_pb2.RegionSlice)
    mod_revision: int = 0
    limit: ByAccount = NONE  # C
    target: ByAccount = NONE
    bound: ByAccount = NONE  # U, as committed
    reserved: ByAccount = NONE  # V, as committed
    charging: ByAccount = NONE  # sent and not settled
    zombie: ByAccount = NONE  # Z
    surge: ByAccount = NONE  # asked of the global plane beside what shares need: see surging.py
    wanted: Vector = NOTHING  # of burst: see bursting.py
    wishes_since_ms: int = 0  # since when some of it is waited for, and nothing else; 0 = none is
    stamp: regional_pb2.SliceStamp | None = None  # newer than `record`, to be applied
    applying: objects_pb2.RegionSlice | None = None  # sent and not settled
    told_strict: bool = False  # by the newest slice; in force once what may still run fits, see `next_record`
    lane_use: dict[int, ByAccount] = field(default_factory=dict)  # as committed, by lane
    reported: Standing | None = None  # as last sent up

    @property
    def strict(self) -> bool:
        """Already while it is being stored: a BIND that is sent now may apply after it."""
        return STRICT in (self.record.mode, self.applying.mode if self.applying else 0)

    @property
    def weight(self) -> int:
        return self.record.weight or 1

    @property
    def protected(self) -> Vector:
        """What the region keeps for the tenant, used or not."""
        return vector(self.record.protected)

    @property
    def is_idle(self) -> bool:
        """No slice was ever stored or is on its way, and no lane has a sum."""
        granted = self.mod_revision or self.stamp or self.applying
        return not granted and not self.lane_use and not self.in_use() + self.zombie

    @property
    def held(self) -> ByAccount:
        """U + V, as committed."""
        return self.bound + self.reserved

    def in_use(self) -> ByAccount:
        """What C may not fall below: everything that is, or may already be, charged."""
        use = self.held + self.charging
        return use + self.zombie if self.strict else use

    def adopt(self, record: objects_pb2.RegionSlice, mod_revision: int) -> None:
        """The slice as now stored."""
        self.record = record
        self.mod_revision = mod_revision
        self.limit, self.target = _limits(record)
        if self.stamp and not is_newer(self.stamp, record):
            self.stamp = None

    def ceiling(self) -> ByAccount:
        """What may be charged in all: a draining slice gives nothing above its target, and a lower limit on its way
        binds already, for it may apply after a BIND that is sent now."""
        ceiling = self.limit.at_most(self.target)
        return ceiling.at_most(_limits(self.applying)[0]) if self.applying else ceiling

    def payer(self, request: Vector, may_burst: bool) -> tuple[Account, int]:
        """Which account is charged for more of `request`, and for how many at most now."""
        if not self.mod_revision:
            return HARD, 0
        ceiling, in_use = self.ceiling(), self.in_use()
        count = fitting(ceiling.hard - in_use.hard, request)
        if count or not may_burst:
            return HARD, count
        return BURST, fitting(ceiling.burst - in_use.burst, request)

    def affordable(self, request: Vector, may_burst: bool) -> int:
        """How many more of `request` may be charged now, at once to one account."""
        return self.payer(request, may_burst)[1]

    def missing(self, request: Vector, account: Account = HARD) -> Vector:
        """What one more of `request` lacks, in the dimensions it lacks anything."""
        return (self.in_use().of(account) + request - self.ceiling().of(account)).at_least(NOTHING)

    @property
    def frozen(self) -> str:
        """For people: empty, or that this is why there is no more."""
        return ", frozen until the global plane renews it" if self.record.frozen else ""

    @property
    def awaits_slice(self) -> bool:
        """Nothing of the quota is here at all. That is no verdict on it: a slice may be on its way."""
        return not (self.ceiling() or self.in_use() or self.record.frozen)

    def refusal(self, request: Vector, may_burst: bool, asked: str = "") -> objects_pb2.PendingReason:
        """Why no more of `request` may be charged; `asked`: a word on it before the amounts."""
        if self.awaits_slice:
            return SLICE_AWAITED
        return explain.reason(explain.QUOTA, detail=asked + self.shortage(request, may_burst))

    def shortage(self, request: Vector, may_burst: bool) -> str:
        """What one more of `request` lacks, for people."""
        ceiling, burst = self.ceiling(), ""
        if may_burst and self.limit.burst:
            burst = f", and {self.missing(request, BURST)} of burst {ceiling.burst}"
        return f"{self.missing(request)} missing of {ceiling.hard}{burst}{self.frozen}"

    def expired(self, now_ms: int) -> bool:
        """Whether the slice is to be frozen: its validity is over, and it is not frozen yet."""
        until_ms = self.record.valid_until_ms
        return 0 < until_ms <= now_ms and not self.record.frozen

    def next_record(self, now_ms: int) -> objects_pb2.RegionSlice | None:
        """The slice to be stored next, or None when the stored one is right."""
        if self.applying:
            return None
        if self.stamp:
            return self._applied(self.stamp)
        if self.expired(now_ms):
            frozen = self._with_limit(self.record, self.limit.at_most(self.in_use()), self.target)
            frozen.frozen = True
            return frozen
        lower = self.limit.at_most(self.target.at_least(self.in_use()))
        becomes_strict = self.told_strict and not self.strict and self._may_run().fits(lower)
        if not self.mod_revision or (lower == self.limit and not becomes_strict):
            return None
        record = self._with_limit(self.record, lower, self.target)
        record.mode = STRICT if becomes_strict else record.mode
        return record

    def _may_run(self) -> ByAccount:
        """U + V + Z, with what is sent."""
        return self.held + self.charging + self.zombie

    def _applied(self, stamp: regional_pb2.SliceStamp) -> objects_pb2.RegionSlice:
        granted, target = _grants(stamp.slice)
        becomes_strict = stamp.slice.mode == STRICT and not self.strict
        limit = granted.at_most(target.at_least(self._may_run() if becomes_strict else self.in_use()))
        waits = becomes_strict and not self._may_run().fits(limit)
        record = objects_pb2.RegionSlice(
            tenant=self.tenant,
            epoch=stamp.slice.epoch,
            seq=stamp.slice.seq,
            mode=self.record.mode if waits else stamp.slice.mode,
            weight=stamp.slice.weight,
            protected=stamp.slice.protected if stamp.slice.HasField("protected") else None,
            store_life=stamp.store_life,
            global_term=stamp.global_term,
            global_revision=stamp.global_revision,
            valid_until_ms=stamp.slice.valid_until_ms,
        )
        return self._with_limit(record, limit, target)

    @staticmethod
    def _with_limit(base: objects_pb2.RegionSlice, limit: ByAccount, target: ByAccount) -> objects_pb2.RegionSlice:
        record = objects_pb2.RegionSlice()
        record.CopyFrom(base)
        del record.limits[:]
        for account, _ in limit.at_least(target).written():
            record.limits.add(account=account, limit=limit.of(account).to_proto(), target=target.of(account).to_proto())
        return record

    def lane_sum(self, lane: int, charge: ByAccount) -> objects_pb2.LaneUse:
        """The value of used/<t>/<lane> once `charge` (negative: a credit) is applied on that lane."""
        use = objects_pb2.LaneUse()
        for account, charged in (self.lane_use.get(lane, NONE) + charge).written():
            use.charges.add(account=account, charged=charged.to_proto())
        return use

    def commit_on_lane(self, lane: int, charge: ByAccount) -> None:
        self.lane_use[lane] = self.lane_use.get(lane, NONE) + charge

    def standing(self) -> Standing:
        """All that can change in an acknowledgement."""
        return (
            self.record.epoch,
            self.record.seq,
            self.limit,
            self.bound,
            self.reserved,
            self.zombie,
            self.surge,
            self.wanted,
        )

    def acknowledgement(self, region: str, term: int) -> objects_pb2.SliceAck:
        """What the global plane is told; every number in it is committed, but for what is asked for."""
        ack = objects_pb2.SliceAck(
            tenant=self.tenant, region=region, region_term=term, epoch=self.record.epoch, seq=self.record.seq
        )
        told = (self.limit, self.bound, self.reserved, self.zombie, self.surge, ByAccount(burst=self.wanted))
        for account, _ in summed(told).written():
            limit, bound, reserved, zombie, surge, wanted = (amounts.of(account) for amounts in told)
            ack.uses.add(
                account=account,
                limit=limit.to_proto(),
                bound=bound.to_proto(),
                reserved=reserved.to_proto(),
                zombie=zombie.to_proto(),
                surge=surge.to_proto() if surge else None,
                wanted=wanted.to_proto() if wanted else None,
            )
        return ack

    def check(self) -> None:
        """(S), and the sums of the lanes."""
        sums = (self.bound, self.reserved, self.charging, self.zombie)
        require(all(amount.is_legal() for amount in sums), "I3: a sum below zero")
        lanes = summed(self.lane_use.values())
        require(lanes == self.held, f"I3: lanes of {self.tenant} sum to what its slots hold")
        require((self.held + self.charging).fits(self.limit), f"I3: {self.tenant} holds at most its limit")


def is_newer(stamp: regional_pb2.SliceStamp, record: objects_pb2.RegionSlice) -> bool:
    """Whether a down-message supersedes what is stored: its place in the global store, and (epoch, seq), both newer."""
    sent = (stamp.store_life, stamp.global_term, stamp.global_revision)
    stored = (record.store_life, record.global_term, record.global_revision)
    return sent >= stored and (stamp.store_life, stamp.slice.epoch, stamp.slice.seq) > (
        record.store_life,
        record.epoch,
        record.seq,
    )


def _limits(record: objects_pb2.RegionSlice) -> tuple[ByAccount, ByAccount]:
    return by_account(record.limits, attrgetter("limit")), by_account(record.limits, attrgetter("target"))


def _grants(grant: objects_pb2.Slice) -> tuple[ByAccount, ByAccount]:
    return by_account(grant.accounts, attrgetter("granted")), by_account(grant.accounts, attrgetter("target"))


def fitting(room: Vector, request: Vector) -> int:
    return max(0, min((r // a for a, r in zip(request, room, strict=True) if a), default=UNLIMITED))
