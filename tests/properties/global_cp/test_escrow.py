"""The budget escrow against modelled regions over a network that loses, copies and reorders: (G) and (X) at every step.

The same machine is run against every naive variant of the protocol, and must fail for each: so the checker bites.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.errors import InvariantBroken
from atoll.model.accounts import ByAccount
from atoll.model.resources import Vector, vector
from atoll.store import keys
from global_cp.core import budgets
from global_cp.core.purse import Purse, purse
from global_cp.core.topics import Proposal
from tests.support.global_core import GlobalCore, workload
from tests.support.model_region import ModelRegion, granted, shrink_target

UNIT = Vector(100, 10)
TENANT = "acme"
ROUNDS = 30
REGIONS = ("north", "south", "west")
STRATEGIES = (objects_pb2.SPREAD_STRATEGY_PREFERRED, objects_pb2.SPREAD_STRATEGY_EVEN)
Document = TypeVar("Document", bound=Message)
QUIET = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class World:
    """One tenant, three regions, a few workloads that move between them.

    `up` and `down` hold messages until the network delivers them.
    """

    def start(self, quota: int, region: type[ModelRegion] = ModelRegion) -> None:
        self.core = GlobalCore()
        self.core.elect()
        self.regions = {name: region(name) for name in REGIONS}
        self.sessions = {name: index for index, name in enumerate(REGIONS)}
        self.up: list[tuple[str, regional_pb2.UplinkMessage]] = []
        self.down: list[tuple[str, regional_pb2.DownlinkMessage]] = []
        self.core.after_commit = self.check
        self.core.tenant(TENANT, UNIT * quota)
        for name in REGIONS:
            self.connect(name)

    def carry(self) -> None:
        """What the core sent is on the wires now."""
        for name, session in self.sessions.items():
            self.down += [(name, message) for message in self.core.down.pop(session, [])]

    def connect(self, name: str) -> None:
        self.sessions[name] += len(REGIONS)
        self.core.connect(self.sessions[name], name)
        self.carry()

    def want(
        self, name: str, replicas: int, regions: Sequence[str] = ("north",), strategy: int = STRATEGIES[0]
    ) -> None:
        spread = objects_pb2.Spread(strategy=strategy)  # type: ignore[arg-type]  # one of them
        self.core.apply(workload(name, replicas, UNIT, TENANT, regions=regions, spread=spread))
        self.carry()

    def drain_region(self, name: str, draining: bool) -> None:
        self.core.ask(global_pb2.UpdateRegionRequest(name=name, draining=draining, cordoned=draining))
        self.carry()

    def hear(self, name: str, message: regional_pb2.DownlinkMessage) -> None:
        self.up += [(name, answer) for answer in self.regions[name].hear(message)]

    def say(self, name: str, message: regional_pb2.UplinkMessage) -> None:
        kind = str(message.WhichOneof("body"))
        self.core.say(self.sessions[name], **{kind: getattr(message, kind)})
        self.carry()

    def deliver_down(self) -> None:
        down, self.down = self.down, []
        for wire in down:
            self.hear(*wire)

    def deliver_up(self) -> None:
        up, self.up = self.up, []
        for wire in up:
            self.say(*wire)

    def deliver_all(self) -> None:
        for _ in range(40):
            if self.down or self.up:
                self.deliver_down()
                self.deliver_up()

    def stored(self, key: bytes, kind: type[Document]) -> Document:
        item = self.core.state.get(key)
        return kind.FromString(item.value) if item else kind()

    def check(self) -> None:
        """At the store's present revision: (G), (X), (S), and so nobody spends more than is effective."""
        money = purse(self.stored(keys.budget(TENANT), objects_pb2.Budget))
        slices = {name: self.stored(keys.slice_(TENANT, name), objects_pb2.Slice) for name in REGIONS}
        assert money.effective.hard == sum(map(granted, slices.values()), start=money.free.hard), "(G)"
        assert money.free.is_legal() and all(granted(slice_).is_legal() for slice_ in slices.values())
        for name, region in self.regions.items():
            have = granted(slices[name])
            limit, used = region.limit.get(TENANT, Vector()), region.used.get(TENANT, Vector())
            assert limit.fits(have), f"(X) {name} enforces {limit}, granted {have}"
            assert used.fits(limit), f"(S) {name} uses {used} of {limit}"
        used_in_all = sum((region.used.get(TENANT, Vector()) for region in self.regions.values()), start=Vector())
        assert used_in_all.fits(money.effective.hard), "I3"

    def check_convergence(self) -> None:
        """With a network that delivers and regions that drain, effective becomes the quota, nothing is held back, and
        every move has ended."""
        for _ in range(ROUNDS):
            self.core.pass_time(self.core.settings.move_patience_ms // 2)
            self.carry()
            for name, region in self.regions.items():
                self.connect(name)
                region.run_everything()
            self.deliver_all()
        records = self.core.records
        money = purse(records.budgets.get(TENANT))
        document = records.tenants.get(TENANT)
        assert document is not None and money.effective.hard == vector(document.spec.quota), "converged"
        for name in REGIONS:
            slice_ = records.slices.get(TENANT, name) or objects_pb2.Slice()
            assert granted(slice_) == shrink_target(slice_), "every shrink has ended"
            more = (records.needed(TENANT, name) - granted(slice_)).at_least(Vector())
            assert not more.at_most(money.free.hard), "budget is free while a region needs it"
        for wanted in records.workloads:
            if not wanted.metadata.deleted_ms:
                self.check_spread(wanted)
        self.core.clean()

    def check_spread(self, document: objects_pb2.Workload) -> None:
        """All that is asked for is told, and to regions that the workload may use; none that drains keeps any, if
        another takes them."""
        shares = self.core.records.shares_of(TENANT, document.metadata.name)
        told = {name: share.spec.tasks[0].replicas for name, share in shares.items() if not share.removed}
        open_ = [
            name for name in document.spec.regions if not self.stored(keys.region(name), objects_pb2.Region).draining
        ]
        if open_:
            assert sum(told.values()) == document.spec.tasks[0].replicas, told
            assert {name for name, count in told.items() if count} <= set(open_), f"{told}, open are {open_}"
        assert not any(share.targets for share in shares.values()) or not open_, f"half-way: {told}"


class Escrow(World, RuleBasedStateMachine):
    @initialize(quota=st.integers(0, 8))
    def begin(self, quota: int) -> None:
        self.start(quota)

    @rule(
        name=st.sampled_from("ab"),
        replicas=st.integers(0, 6),
        regions=st.lists(st.sampled_from(REGIONS), min_size=1, unique=True),
        strategy=st.sampled_from(STRATEGIES),
    )
    def user_applies(self, name: str, replicas: int, regions: list[str], strategy: int) -> None:
        self.want(name, replicas, regions, strategy)

    @rule(name=st.sampled_from(REGIONS), draining=st.booleans())
    def operator_drains(self, name: str, draining: bool) -> None:
        self.drain_region(name, draining)

    @rule(quota=st.integers(0, 8), memory=st.integers(0, 8))
    def admin_sets_the_quota(self, quota: int, memory: int) -> None:
        self.core.tenant(TENANT, Vector(UNIT.cpu_milli * quota, UNIT.memory_mib * memory))
        self.carry()

    @rule(name=st.sampled_from("ab"))
    def user_deletes(self, name: str) -> None:
        self.core.ask(global_pb2.DeleteWorkloadRequest(tenant=TENANT, name=name))
        self.carry()

    @rule(data=st.data(), again=st.booleans())
    def network_delivers_down(self, data: st.DataObject, again: bool) -> None:
        """Any message, any number of times, in any order."""
        if self.down:
            index = data.draw(st.integers(0, len(self.down) - 1))
            self.hear(*(self.down[index] if again else self.down.pop(index)))

    @rule(data=st.data(), again=st.booleans())
    def network_delivers_up(self, data: st.DataObject, again: bool) -> None:
        if self.up:
            index = data.draw(st.integers(0, len(self.up) - 1))
            self.say(*(self.up[index] if again else self.up.pop(index)))

    @rule()
    def network_loses_everything(self) -> None:
        self.up.clear()
        self.down.clear()

    @rule()
    def network_delivers_everything(self) -> None:
        self.deliver_all()

    @rule(name=st.sampled_from(REGIONS))
    def region_reconnects(self, name: str) -> None:
        self.connect(name)

    @rule()
    def another_leader_takes_over(self) -> None:
        self.core.elect()
        for name in REGIONS:
            self.connect(name)

    @rule(name=st.sampled_from(REGIONS), count=st.integers(1, 4))
    def region_binds(self, name: str, count: int) -> None:
        self.regions[name].bind(TENANT, UNIT * count)

    @rule(name=st.sampled_from(REGIONS), count=st.integers(1, 4))
    def region_releases(self, name: str, count: int) -> None:
        region = self.regions[name]
        region.release(TENANT, UNIT * count)
        region.drain(TENANT)
        if TENANT in region.slices:
            self.up.append((name, region.ack(TENANT)))

    @invariant()
    def identities_hold(self) -> None:
        if hasattr(self, "core"):
            self.check()

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.check_convergence()


Escrow.TestCase.settings = QUIET
TestEscrow = Escrow.TestCase


# ---- naive variants, each of which must be caught


class DeltaRegion(ModelRegion):
    """Adds up differences instead of keeping absolute values."""

    def _hear_slice(self, stamp: regional_pb2.SliceStamp) -> list[regional_pb2.UplinkMessage]:
        owner = stamp.slice.tenant
        known = self.slices.get(owner)
        grown = granted(stamp.slice) - (granted(known.slice) if known else Vector())
        self.slices[owner] = stamp
        self.limit[owner] = self.limit.get(owner, Vector()) + grown.at_least(Vector())
        return [self.ack(owner)]


class ForgetfulRegion(ModelRegion):
    """Takes every slice it hears for the newest."""

    def is_newer(self, stamp: regional_pb2.SliceStamp, known: regional_pb2.SliceStamp) -> bool:
        return True


def _lower_at_once(
    self: Any, owner: Any, region: Any, current: Any, entitled: ByAccount, claim: Any, money: Any, now: int
) -> Any:
    """A falls when the shrink is wanted, not when it is acknowledged."""
    have = budgets.granted(current)
    if entitled.fits(have) and entitled != have:
        after = self._rewritten(current, entitled, entitled)
        budget = money.returned(have - entitled).to_proto(owner.metadata.name)
        return Proposal(budgets.transactions.move_budget(self._records, "TARGET", budget, after), None)
    return _slice_step(self, owner, region, current, entitled, claim, money, now)


_slice_step = budgets.Budgets._slice_step


# ---- the shortest traces that break them; the real protocol passes each


def _copies_out_of_order(region: type[ModelRegion]) -> None:
    world = World()
    world.start(8, region)
    world.deliver_all()
    world.want("a", 4)
    four = list(world.down)
    world.want("a", 6)
    for wire in [*world.down, *four, *world.down]:
        world.hear(*wire)
        world.check()


def _an_old_grant_after_a_shrink(region: type[ModelRegion]) -> None:
    world = World()
    world.start(8, region)
    world.want("a", 4)
    old = list(world.down)
    world.deliver_all()
    world.want("a", 1)
    world.deliver_all()
    for wire in old:
        world.hear(*wire)
        world.check()


def _an_old_acknowledgement_after_a_newer_target() -> None:
    world = World()
    world.start(8)
    world.want("a", 4)
    world.deliver_all()
    world.want("a", 0)
    world.deliver_down()
    late, world.up = world.up, []
    world.want("a", 4)
    world.deliver_down()
    for wire in late:
        world.say(*wire)
        world.check()


def _a_shrink_nobody_has_heard_of() -> None:
    world = World()
    world.start(8)
    world.want("a", 4)
    world.deliver_all()
    world.want("a", 1)
    world.check()


def _a_lower_quota_while_all_is_granted() -> None:
    world = World()
    world.start(4)
    world.want("a", 4)
    world.deliver_all()
    world.core.tenant(TENANT, UNIT)
    world.check()
    world.check_convergence()


CAUGHT = pytest.raises((AssertionError, InvariantBroken))


def test_relative_deltas_are_caught() -> None:
    _copies_out_of_order(ModelRegion)
    with CAUGHT:
        _copies_out_of_order(DeltaRegion)


def test_a_region_without_an_order_of_slices_is_caught() -> None:
    _an_old_grant_after_a_shrink(ModelRegion)
    with CAUGHT:
        _an_old_grant_after_a_shrink(ForgetfulRegion)


def test_acknowledgements_without_a_seq_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _an_old_acknowledgement_after_a_newer_target()
    monkeypatch.setattr(budgets, "is_current", lambda ack, slice_: slice_ is not None)
    monkeypatch.setattr(
        budgets, "taken_back", lambda slice_, ack: budgets.acknowledged_limit(ack).at_most(budgets.granted(slice_))
    )
    with CAUGHT:
        _an_old_acknowledgement_after_a_newer_target()


def test_lowering_a_before_the_acknowledgement_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _a_shrink_nobody_has_heard_of()
    monkeypatch.setattr(budgets.Budgets, "_slice_step", _lower_at_once)
    with CAUGHT:
        _a_shrink_nobody_has_heard_of()


def test_budget_that_never_comes_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _a_lower_quota_while_all_is_granted()
    monkeypatch.setattr(budgets, "taken_back", lambda slice_, ack: budgets.granted(slice_))
    with CAUGHT:
        _a_lower_quota_while_all_is_granted()


def test_a_quota_that_is_effective_at_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(self: Any, target: ByAccount) -> Any:
        return Purse(target, target, self.free + target - self.effective)

    monkeypatch.setattr(Purse, "with_target", at_once)
    with CAUGHT:
        _a_lower_quota_while_all_is_granted()
