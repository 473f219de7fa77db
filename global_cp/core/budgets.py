"""Escrow: how much of a tenant's quota each region may spend.

Decides grants, shrinks and take-backs so that at every revision, per account and dimension and in integers ≥ 0 (I3):
    (G)  effective + extras = free + pool + Σ regions (A + B)
    (X)  C of a region ≤ A + B                                 C: what the region enforces
A grows by a grant at once. It falls only in three steps: a lower target with a new seq; the region's acknowledgement
of exactly that (epoch, seq) with its C; then A is lowered to C and the rest is free again. A newer target may replace
an older one at any time: it has a new seq, so a late acknowledgement of the old one is ignored. When a quota is lowered
`effective` falls only as budget is free or comes back ("converging"). Leaves to the region: how C falls as work drains.
"""

import itertools
from operator import attrgetter

from atoll.api.v1 import objects_pb2
from atoll.errors import require
from atoll.lane import Plan, Settled
from atoll.model.accounts import NONE, ByAccount, by_account, may_burst, summed
from atoll.model.resources import NOTHING, Vector, vector
from global_cp.config import CoreSettings
from global_cp.core import transactions
from global_cp.core.commands import Command
from global_cp.core.entitlements import AccountClaims, Claim, divided
from global_cp.core.purse import Purse, purse
from global_cp.core.records import Change, Records
from global_cp.core.reports import Reports, WorkloadPath
from global_cp.core.rounds import Rounds
from global_cp.core.topics import Proposal

_Idle = dict[str, dict[str, ByAccount]]  # tenant → region → what waits there, for long, for room


def granted(slice_: objects_pb2.Slice | None) -> ByAccount:
    """A of the slice."""
    return by_account(slice_.accounts, attrgetter("granted")) if slice_ else NONE


def shrink_target(slice_: objects_pb2.Slice | None) -> ByAccount:
    return by_account(slice_.accounts, attrgetter("target")) if slice_ else NONE


def is_current(ack: objects_pb2.SliceAck, slice_: objects_pb2.Slice | None) -> bool:
    return slice_ is not None and (ack.epoch, ack.seq) == (slice_.epoch, slice_.seq)


def acknowledged_limit(ack: objects_pb2.SliceAck) -> ByAccount:
    """C as the region enforces it."""
    return by_account(ack.uses, attrgetter("limit"))


def used_in(ack: objects_pb2.SliceAck | None) -> ByAccount:
    """U + V as the region last said."""
    return by_account(ack.uses, attrgetter("bound")) + by_account(ack.uses, attrgetter("reserved")) if ack else NONE


def _limit_in(ack: objects_pb2.SliceAck | None) -> ByAccount:
    return acknowledged_limit(ack) if ack else NONE


def taken_back(slice_: objects_pb2.Slice, ack: objects_pb2.SliceAck) -> ByAccount:
    """A after a current acknowledgement: C, but not below the target. It never rises."""
    return acknowledged_limit(ack).at_least(shrink_target(slice_)).at_most(granted(slice_))


def check_identity(records: Records, tenant: str) -> None:
    """(G) for one tenant, or the process dies."""
    money = records.budgets.meaning(purse, tenant)
    out = [records.slices.meaning(granted, tenant, region) for region in records.region_names()]
    held = money.effective == money.free + summed(out) and money.free.is_legal() and all(a.is_legal() for a in out)
    if not held:  # the words are made only then: this is asked at every step of a budget
        words = f"effective {money.effective} is not free {money.free} + granted {summed(out)}"
        require(False, f"I3 (G): tenant {tenant}: {words}")


class Budgets:
    """The topic: tenants whose budget is to be looked at, and acknowledgements to be kept."""

    def __init__(self, records: Records, settings: CoreSettings, reports: Reports) -> None:
        self._records = records
        self._settings = settings
        self._reports = reports
        self._idle: _Idle = {}
        self._found: _Idle = {}  # in this round, so far
        self._claims: dict[tuple[str, str], AccountClaims] = {}  # by tenant and region, while nothing changes
        self._rounds = Rounds(settings.overflow_settle_ms, settings.looks_at_once)
        self._tenants: dict[str, None] = {}
        self._heard: dict[tuple[str, str], objects_pb2.SliceAck] = {}  # (tenant, region): the last one
        self._acks: dict[tuple[str, str], None] = {}  # those of them to be looked at
        self._renewal_ms = 0
        self._goes_on = False  # more than may be looked at before other events are handled

    def read(self, change: Change) -> None:
        self._tenants[change.path[0]] = None

    def acknowledged(self, ack: objects_pb2.SliceAck) -> str:
        """A region's SliceAck. Returns what is wrong with it: (X) is broken by the region."""
        slice_ = self._records.slices.get(ack.tenant, ack.region)
        if slice_ is None or not is_current(ack, slice_):
            return ""
        if not acknowledged_limit(ack).fits(granted(slice_)):
            return f"I3 (X): {ack.region} enforces {acknowledged_limit(ack)} of {ack.tenant}, granted {granted(slice_)}"
        self._heard[ack.tenant, ack.region] = ack
        self._acks[ack.tenant, ack.region] = None
        return ""

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        self._renew(now_ms)
        self._look_again(now_ms)
        if proposal := self._from_acks():
            return proposal
        for tenant in list(itertools.islice(self._tenants, self._settings.looks_at_once)):
            if proposal := self._step(tenant, now_ms):
                return proposal
            del self._tenants[tenant]
        self._goes_on = bool(self._acks or self._tenants) or self._rounds.goes_on
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """Nothing to do: what was rejected is still in the table it was planned from."""

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind:
            case "budget":
                check_identity(self._records, change.path[0])
                self._tenants[change.path[0]] = None
            case "slice":
                check_identity(self._records, change.path[0])
                self._claims.pop((change.path[0], change.path[1]), None)
                self._tenants[change.path[0]] = None
            case "tenant":
                self._claim_anew(change.path[0])
            case "token" if isinstance(change.before, objects_pb2.UserToken):
                self._tenants[change.before.tenant] = None
            case "ack":
                region, tenant = change.path
                self._claims.pop((tenant, region), None)
                self._tenants[tenant] = None
                if (tenant, region) in self._heard:
                    self._acks[tenant, region] = None  # it was under way when a newer one undid its reason
            case "share":
                self._claims.pop((change.path[1], change.path[0]), None)
                self._tenants[change.path[1]] = None
            case "region":
                self._tenants.update(dict.fromkeys(name for (name,), _ in self._records.tenants.items()))
            case "workload" if change.after is None:
                self._tenants[change.path[0]] = None

    def deadline(self) -> int | None:
        if self._goes_on:
            return 0
        waiting = self._idle or self._reports.with_unplaced()
        return min(self._renewal_ms, self._rounds.next_ms) if waiting else self._renewal_ms

    def reported(self, tenant: str) -> None:
        """A region said that other replicas of the tenant have ended."""
        self._claim_anew(tenant)

    def _claim_anew(self, tenant: str) -> None:
        for region in self._records.region_names():
            self._claims.pop((tenant, region), None)
        self._tenants[tenant] = None

    def _renew(self, now_ms: int) -> None:
        """Looks at every slice's validity now and then."""
        if now_ms >= self._renewal_ms:
            self._renewal_ms = now_ms + self._settings.slice_validity_ms // 8
            self._tenants.update(dict.fromkeys(tenant for (tenant, _), _ in self._records.slices.items()))

    def _look_again(self, now_ms: int) -> None:
        """What is idle, now and then: known when all who wait have been looked at."""
        if not self._rounds.is_due(now_ms):
            return
        for path in self._rounds.turns(now_ms, self._reports.with_unplaced()):
            self._add_idle(path, now_ms)
        if self._rounds.goes_on:
            return
        before, self._idle, self._found = self._idle, self._found, {}
        for tenant in before | self._idle:
            if self._idle.get(tenant) != before.get(tenant):
                self._claim_anew(tenant)

    def _add_idle(self, path: WorkloadPath, now_ms: int) -> None:
        for region, share in self._records.shares_of(*path).items():
            for task in share.spec.tasks:
                if stuck := self._reports.stuck(share, task.name, now_ms):
                    here = self._found.setdefault(path[0], {})
                    amount = vector(task.resources.requests) * stuck
                    burst = amount if may_burst(share.spec.priority, task.gang) else NOTHING
                    here[region] = here.get(region, NONE) + ByAccount(amount, burst)

    def _from_acks(self) -> Proposal | None:
        """A TAKE-BACK, or a batch of plain ACKs."""
        plain: list[objects_pb2.SliceAck] = []
        for tenant, region in list(itertools.islice(self._acks, self._settings.looks_at_once)):
            ack = self._heard[tenant, region]
            slice_ = self._records.slices.get(tenant, region)
            if slice_ is None or not is_current(ack, slice_) or ack == self._records.acks.get(region, tenant):
                del self._acks[tenant, region]
                continue
            if taken_back(slice_, ack) != granted(slice_):
                return Proposal(self._take_back(slice_, ack), None)
            plain.append(ack)
            if len(plain) == self._settings.ack_batch:
                break
        return Proposal(transactions.acknowledge(self._records, plain), None) if plain else None

    def _take_back(self, slice_: objects_pb2.Slice, ack: objects_pb2.SliceAck) -> Plan:
        keep = taken_back(slice_, ack)
        money = self._records.budgets.meaning(purse, slice_.tenant).returned(granted(slice_) - keep)
        after = self._rewritten(slice_, keep, shrink_target(slice_))
        return transactions.move_budget(self._records, "TAKE-BACK", money.to_proto(slice_.tenant), after, ack)

    def _step(self, tenant: str, now_ms: int) -> Proposal | None:
        """The first thing wrong with a tenant's slices; None when all is as it should be."""
        document = self._records.tenants.get(tenant)
        if document is None:
            return None
        slices = self._records.slices_of(tenant)
        money = self._records.budgets.meaning(purse, tenant)
        claims = {region: self._claim(tenant, region) for region in self._records.region_names()}
        entitled = divided(money.target, money.free.hard, claims)
        for (region,), of in self._records.regions.items():
            current = slices.get(region)
            if current is None and not entitled[region]:
                continue
            proposal = self._slice_step(
                document, of, current, entitled[region], claims[region].hard.protected, money, now_ms
            )
            if proposal:
                return proposal
        if document.metadata.deleted_ms and not any(granted(slice_) for slice_ in slices.values()):
            return self._forget(tenant, sorted(slices))
        return None

    def _claim(self, tenant: str, region: str) -> AccountClaims:
        """Remembered until something that it rests on changes."""
        claim = self._claims.get((tenant, region))
        if claim is None:
            claim = self._claims[tenant, region] = self._made_claim(tenant, region)
        return claim

    def _made_claim(self, tenant: str, region: str) -> AccountClaims:
        records = self._records
        idle = self._idle.get(tenant, {}).get(region, NONE)
        used = records.acks.meaning(used_in, region, tenant)
        beside, protected = records.beside(tenant, region), records.protected(tenant, region)
        have, wanted = records.slices.meaning(granted, tenant, region), records.wanted(tenant, region)
        needed = records.needed(tenant, region) - self._reports.ended(tenant, region) - used.burst
        needed = needed.at_least(protected)
        return AccountClaims(
            Claim(needed.at_least(NOTHING), have.hard, idle.hard, used.hard, beside.hard, protected),
            Claim(used.burst, have.burst, idle.burst.at_most(wanted), used.burst, beside.burst),
            wanted,
            records.acks.meaning(_limit_in, region, tenant).hard,
        )

    def _forget(self, tenant: str, regions: list[str]) -> Proposal:
        """A tenant that is being deleted and has its whole budget back. Its users' tokens go first: a later tenant of
        the same name is another one."""
        tokens = [token.id for token in self._records.tokens if token.tenant == tenant]
        if tokens:
            return Proposal(transactions.revoke(self._records, tokens[: self._settings.sweep_batch]), None)
        return Proposal(transactions.forget_tenant(self._records, tenant, regions), None)

    def _slice_step(
        self,
        tenant: objects_pb2.Tenant,
        region: objects_pb2.Region,
        current: objects_pb2.Slice | None,
        entitled: ByAccount,
        protected: Vector,
        money: Purse,
        now_ms: int,
    ) -> Proposal | None:
        have = self._records.slices.meaning(granted, tenant.metadata.name, region.metadata.name)
        grant = (entitled - have).at_least(NONE).at_most(money.free)
        if region.state != objects_pb2.REGION_STATE_ACTIVE:
            grant = NONE  # a region that may be lost gets no new budget; what it has stays charged
        after = have + grant
        target = entitled.at_most(after)
        if current is None and not grant:
            return None
        slice_ = current or self._first_slice(tenant, region)
        due = now_ms + self._settings.slice_validity_ms // 2 > slice_.valid_until_ms
        spec = tenant.spec
        terms = (spec.mode, spec.weight, protected)
        same_terms = (slice_.mode, slice_.weight, vector(slice_.protected)) == terms
        if not grant and target == shrink_target(slice_) and same_terms and not due:
            return None
        operation = "GRANT" if grant else "RENEW" if target == shrink_target(slice_) else "TARGET"
        changed = self._rewritten(slice_, after, target)
        changed.mode, changed.weight = spec.mode, spec.weight
        changed.ClearField("protected")
        if protected:
            changed.protected.CopyFrom(protected.to_proto())
        changed.valid_until_ms = now_ms + self._settings.slice_validity_ms
        budget = money.paid(grant).to_proto(tenant.metadata.name) if grant else None
        return Proposal(transactions.move_budget(self._records, operation, budget, changed), None)

    def _first_slice(self, tenant: objects_pb2.Tenant, region: objects_pb2.Region) -> objects_pb2.Slice:
        """seq starts at the store's revision: each later value of a slice costs a revision, so a tenant that is made
        again under an old name begins above every seq a region may remember."""
        return objects_pb2.Slice(
            tenant=tenant.metadata.name,
            region=region.metadata.name,
            epoch=region.epoch,
            seq=self._records.revision,
        )

    @staticmethod
    def _rewritten(slice_: objects_pb2.Slice, have: ByAccount, target: ByAccount) -> objects_pb2.Slice:
        after = objects_pb2.Slice()
        after.CopyFrom(slice_)
        del after.accounts[:]
        for account, _ in have.at_least(target).written():
            after.accounts.add(
                account=account, granted=have.of(account).to_proto(), target=target.of(account).to_proto()
            )
        after.seq += 1
        return after
