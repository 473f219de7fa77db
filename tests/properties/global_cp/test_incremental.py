"""What is looked at only when something changed, against a look at everything: after random histories nothing is left
to do that a fresh look would find, sums are those of the records, and nothing is remembered of what is gone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.lane import Plan, Rejected
from atoll.model.resources import NOTHING, Vector
from atoll.store import keys
from atoll.store.store import Put
from global_cp.config import CoreSettings
from global_cp.core.records import Change, Records, Table
from global_cp.core.reign import Reign
from global_cp.core.reports import Reports
from tests.support.global_core import GlobalCore, tenant, workload
from tests.support.model_region import ModelRegion

UNIT = Vector(100, 10)
TENANTS, REGIONS, NAMES = ("acme", "zeta"), ("north", "south", "west"), ("web-x", "job-x", "dag-x", "nightly-x")
STRATEGIES = (objects_pb2.SPREAD_STRATEGY_PREFERRED, objects_pb2.SPREAD_STRATEGY_EVEN)
MODES = (objects_pb2.QUOTA_MODE_AVAILABLE, objects_pb2.QUOTA_MODE_STRICT)
JOB = objects_pb2.WORKLOAD_TYPE_JOB

owners, names, places = st.sampled_from(TENANTS), st.sampled_from(NAMES), st.sampled_from(REGIONS)


def _wanted(name: str, owner: str, replicas: int, **spec: object) -> objects_pb2.Workload:
    """A service, a job of which few run at once, a job of two tasks, or one with a schedule."""
    made = workload(name, replicas, UNIT, owner, **spec)
    if name != "web-x":
        made.spec.type = JOB
    if name == "job-x":
        made.spec.tasks[0].parallelism = 2
    if name == "dag-x":
        made.spec.tasks.add().CopyFrom(made.spec.tasks[0])
        made.spec.tasks[1].name = "then"
        made.spec.tasks[1].depends_on.append("main")
    if name == "nightly-x":
        made.spec.schedule.cron = "*/20 * * * *"
    return made


class Incremental(RuleBasedStateMachine):
    @initialize(lanes=st.integers(1, 2))
    def begin(self, lanes: int) -> None:
        self.core = GlobalCore(CoreSettings(lanes=lanes))
        self.core.elect()
        self.regions = {name: ModelRegion(name) for name in REGIONS}
        self.sessions = {name: index for index, name in enumerate(REGIONS)}
        for name in REGIONS:
            self.connect(name)
        for owner in TENANTS:
            self.core.tenant(owner, UNIT * 6)

    @property
    def reign(self) -> Reign:
        assert self.core.machine.reign is not None
        return self.core.machine.reign

    # ---- users and operators

    @rule(
        name=names,
        owner=owners,
        replicas=st.integers(0, 6),
        at=st.lists(places, max_size=3, unique=True),
        strategy=st.sampled_from(STRATEGIES),
    )
    def user_applies(self, name: str, owner: str, replicas: int, at: list[str], strategy: int) -> None:
        spread = objects_pb2.Spread(strategy=strategy)  # type: ignore[arg-type]  # one of them
        wanted = _wanted(name, owner, replicas, regions=at, spread=spread)
        self.core.start(global_pb2.ApplyWorkloadRequest(workload=wanted))

    @rule(name=names, owner=owners)
    def user_deletes(self, name: str, owner: str) -> None:
        self.core.start(global_pb2.DeleteWorkloadRequest(tenant=owner, name=name))

    @rule(owner=owners, quota=st.integers(0, 12), mode=st.sampled_from(MODES))
    def admin_sets_the_quota(self, owner: str, quota: int, mode: int) -> None:
        wanted = tenant(owner, UNIT * quota)
        wanted.spec.mode = mode  # type: ignore[assignment]  # one of them
        self.core.start(global_pb2.ApplyTenantRequest(tenant=wanted))

    @rule(name=places, cordoned=st.booleans(), draining=st.booleans())
    def operator_changes_a_region(self, name: str, cordoned: bool, draining: bool) -> None:
        self.core.start(global_pb2.UpdateRegionRequest(name=name, cordoned=cordoned or draining, draining=draining))

    # ---- regions, the store, time

    @rule(name=places)
    def connect(self, name: str) -> None:
        """As a region does, it tells of all it has: here, that nothing of it runs yet."""
        self.sessions[name] += len(REGIONS)
        self.core.connect(self.sessions[name], name)
        self._deliver(name)
        for share in self.regions[name].shares.values():
            self.core.say(self.sessions[name], workload=self._report(share, lambda most: 0))

    @rule(name=places, free=st.integers(0, 12))
    def region_sums_up(self, name: str, free: int) -> None:
        room = (UNIT * free).to_proto()
        summary = objects_pb2.RegionSummary(nodes_ready=1, nodes_total=1, largest_node=room, free=room)
        self.core.say(self.sessions[name], summary=summary)

    @rule(name=places, data=st.data())
    def region_reports(self, name: str, data: st.DataObject) -> None:
        """On one share as it is, or was heard of."""
        shares = [share for (region, *_), share in self.core.machine.reign.records.shares.items() if region == name]
        shares += self.regions[name].shares.values()
        if shares:
            share = data.draw(st.sampled_from(shares))
            said = self._report(share, lambda most: data.draw(st.integers(0, most)))
            self.core.say(self.sessions[name], workload=said)

    @rule(name=places, data=st.data())
    def region_acknowledges(self, name: str, data: st.DataObject) -> None:
        """What it has heard; of what it has it uses some."""
        region = self.regions[name]
        self._deliver(name)
        for owner in region.slices:
            region.release(owner, UNIT * data.draw(st.integers(0, 4)))
            region.bind(owner, UNIT * data.draw(st.integers(0, 4)))
            region.drain(owner)
            said = region.ack(owner).slice_ack
            said.uses[0].zombie.CopyFrom((UNIT * data.draw(st.integers(0, 1))).to_proto())
            self.core.say(self.sessions[name], slice_ack=said)

    @rule(hold=st.booleans(), count=st.integers(0, 3))
    def the_store_is_slow(self, hold: bool, count: int) -> None:
        self.core.hold_commits = True
        while self.core.held and count >= hold:
            self.core.release(1)
            count -= hold
        self.core.hold_commits = hold

    @rule()
    def another_leader_takes_over(self) -> None:
        self.core.elect()
        for name in REGIONS:
            self.connect(name)

    @rule(ms=st.sampled_from((100, 1_000, 10_000, 60_000, 400_000)))
    def time_passes(self, ms: int) -> None:
        self.core.pass_time(ms)

    @rule()
    def nothing_is_left_to_do(self) -> None:
        """All topics are told that everything may have changed, and want nothing."""
        self._settle()
        self._check_sums()
        records, out = self.core.records, []  # type: ignore[var-annotated]
        for topic in self.reign.topics:
            for change in _everything(records):
                topic.changed(change, out)
        for topic in self.reign.topics:
            proposal = topic.propose(self.core.now_ms, out)
            left = self._left(proposal.plan) if proposal else ""
            assert not left, f"{type(topic).__name__}: {left}"
            if proposal:
                topic.settled(proposal.item, Rejected("sealed"), out)

    # ----

    def _settle(self) -> None:
        """What is under way ends, and time has told what it can tell without news."""
        self.the_store_is_slow(hold=False, count=0)
        self.core.pass_time(2 * self.core.settings.overflow_settle_ms + self.core.settings.move_patience_ms)

    def _left(self, plan: Plan) -> str:
        """What a plan would change, for people. How much a tenant's workloads lack of its quota is told of each as of
        the last look at it."""
        tables = {kind: table for kind, table, _ in _tables(self.reign.records)}
        words = []
        for write in plan.writes:
            kind, _, path = write.key.removeprefix(keys.GLOBAL).decode().partition("/")
            after = tables[kind].parse(write.value) if isinstance(write, Put) else None
            before = tables[kind].get(*path.split("/"))
            if kind != "status" or _without_quota(before) != _without_quota(after):
                words.append(f"{plan.operation} {kind} {path}: {before}\nbecomes {after}")
        return "\n".join(words)

    def _deliver(self, name: str) -> None:
        for message in self.core.down.pop(self.sessions[name], []):
            self.regions[name].hear(message)

    def _report(self, share: objects_pb2.Share, count: Callable[[int], int]) -> regional_pb2.WorkloadReport:
        """`count`: how many of so many at most."""
        metadata, tasks = share.metadata, []
        for task in () if share.removed else share.spec.tasks:
            ended = count(task.replicas) if share.spec.type == JOB else 0
            healthy = count(task.replicas - ended)
            waiting = count(task.replicas - ended - healthy)
            tried = {("unplaced", "unpaid", "surplus")[count(2)]: waiting}
            told = regional_pb2.TaskReport(
                task=task.name, desired=task.replicas, healthy=healthy, ended=ended, waiting=waiting, succeeded=ended
            )
            told.MergeFrom(regional_pb2.TaskReport(**tried))
            tasks.append(told)
        return regional_pb2.WorkloadReport(
            tenant=metadata.tenant,
            workload=metadata.name,
            generation=metadata.generation,
            uid=metadata.uid,
            counts=objects_pb2.SlotCounts(desired=sum(task.desired for task in tasks)),
            tasks=tasks,
            closed=share.removed,
            share_revision=self.reign.records.mod(keys.share(share.region, metadata.tenant, metadata.name)),
        )

    def _check_sums(self) -> None:
        records, reports = self.core.records, self.reign.reports
        stored, heard = Records(), Reports(self.core.settings.overflow_settle_ms)
        listed = self.core.state.range(keys.GLOBAL, b"/g0")
        for item in listed.items:
            stored.adopt(item.key, item)
        for share in records.shares:
            path = (share.metadata.tenant, share.metadata.name)
            if report := reports.of(path).get(share.region):
                heard.heard(share, report, self.core.now_ms)
        for owner in TENANTS:
            assert records.asked(owner) == stored.asked(owner)
            for name in REGIONS:
                assert records.needed(owner, name) == stored.needed(owner, name)
                assert reports.ended(owner, name) == heard.ended(owner, name)
        assert set(reports.with_unplaced()) == set(heard.with_unplaced())

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.nothing_is_left_to_do()
            self._everything_ends()
            self.core.clean()

    def _everything_ends(self) -> None:
        """Every workload is deleted and closed: nothing is remembered of any, and no budget is out."""
        for owner, name in [path for path, _ in self.core.records.workloads.items()]:
            self.core.ask(global_pb2.DeleteWorkloadRequest(tenant=owner, name=name))
        self._settle()
        for (region, owner, name), share in list(self.core.records.shares.items()):
            assert share.removed, (region, owner, name)
            closed = regional_pb2.WorkloadReport(
                tenant=owner, workload=name, generation=share.metadata.generation, uid=share.metadata.uid, closed=True
            )
            self.core.say(self.sessions[region], workload=closed)
        self._settle()
        assert not len(self.core.records.workloads) and not len(self.core.records.shares)
        remembered = [self.reign.reports, self.reign.rooms, *self.reign.topics[:]]
        for part in remembered:
            for field, value in _memory_of(part).items():
                assert "-x" not in repr(value), f"{type(part).__name__}.{field}: {value}"
        assert all(self.core.records.needed(owner, name) == NOTHING for owner in TENANTS for name in REGIONS)


def _everything(records: Records) -> list[Change]:
    """Each record as if it had just been written."""
    return [
        Change(kind, path, document, document, records.revision)
        for kind, table, looked_at in _tables(records)
        if looked_at
        for path, document in table.items()
    ]


def _without_quota(status: Any) -> Any:
    bare = objects_pb2.WorkloadStatus()
    if status:
        bare.CopyFrom(status)
    for reason in [reason for reason in bare.pending if reason.code == "QuotaExhausted"]:
        bare.pending.remove(reason)
    return bare


def _tables(records: Records) -> list[tuple[str, Table[Any], bool]]:
    """Of each kind; whether topics follow it for more than what they tell regions."""
    return [
        ("region", records.regions, True),
        ("tenant", records.tenants, True),
        ("workload", records.workloads, True),
        ("status", records.statuses, True),
        ("ack", records.acks, True),
        ("share", records.shares, False),
        ("slice", records.slices, False),
        ("budget", records.budgets, False),
    ]


def _memory_of(part: object) -> Mapping[str, object]:
    """What it keeps beside the records; answers to users are kept for a day."""
    if type(part).__name__ in ("Requests", "Sweep"):
        return {}
    return {name: value for name, value in vars(part).items() if isinstance(value, dict | set | list)}


Incremental.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestIncremental = Incremental.TestCase
