"""Plans that share a transaction: what may, and that each is answered and placed as if it had been alone."""

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import AtollError, Invalid, QuotaExceeded
from atoll.lane import MOST_COMPARES, MOST_WRITES, Plan, Rejected
from atoll.store.store import Delete, Put, mod_is
from global_cp.core import commands, events
from global_cp.core.bundles import MOST_BYTES, MOST_PLANS, Bundle
from tests.support.global_core import NOTHING, UNIT, GlobalCore, workload

REJECT = objects_pb2.ON_QUOTA_REJECT
EVENLY = objects_pb2.Spread(strategy=objects_pb2.SPREAD_STRATEGY_EVEN)


def plan(name: bytes, *compared: bytes, operation: str = "ADMIT", size: int = 1) -> Plan:
    return Plan(operation, tuple(mod_is(key, 7) for key in (name, *compared)), (Put(name, bytes(size)),))


def core_of(**rooms: int) -> GlobalCore:
    """Regions of these names with room for so many, and a tenant with enough."""
    core = GlobalCore()
    core.elect()
    for session, (name, room) in enumerate(rooms.items(), 1):
        core.connect(session, name)
        free = (UNIT * room).to_proto()
        core.say(session, summary=objects_pb2.RegionSummary(nodes_ready=1, largest_node=free, free=free))
    core.tenant(quota=UNIT * 50)
    return core


def ask(core: GlobalCore, *names: str, replicas: int = 1, **spec: object) -> list[int]:
    return [
        core.start(global_pb2.ApplyWorkloadRequest(workload=workload(name, replicas, **spec)))  # type: ignore[arg-type]
        for name in names
    ]


def finish(core: GlobalCore) -> None:
    core.hold_commits = False
    core.release()
    core.pass_time(1_000)
    core.clean()


def settle(core: GlobalCore, rejected: Rejected) -> commands.Commit:
    """The plan in flight is refused; the next one."""
    core.post(events.PlanSettled(core.held.popleft().plan_id, rejected, core.now_ms))
    core.pass_time(core.settings.refused_pause_ms)
    return core.held[0]


def written(command: commands.Commit) -> int:
    """How many workloads it writes."""
    return sum(write.key.startswith(b"/g/workload/") for write in command.plan.writes)


def test_a_bundle_is_of_one_operation_and_compares_what_they_share_once() -> None:
    bundle = Bundle(plan(b"a", b"tenant"))
    assert not bundle.takes(plan(b"b", operation="DELETE"))
    assert bundle.takes(plan(b"b", b"tenant")) and bundle.takes(plan(b"c", b"tenant"))
    whole = bundle.plan()
    assert whole.operation == "ADMIT" and [write.key for write in whole.writes] == [b"a", b"b", b"c"]
    assert [compare.key for compare in whole.compares] == [b"a", b"tenant", b"b", b"c"]


def test_a_bundle_takes_nothing_that_writes_what_another_rests_on() -> None:
    bundle = Bundle(plan(b"a", b"tenant"))
    assert not bundle.takes(plan(b"a")) and not bundle.takes(plan(b"tenant")) and not bundle.takes(plan(b"b", b"a"))
    assert not bundle.takes(Plan("ADMIT", (), (Delete(b"tenant"),)))


def test_a_bundle_has_bounds() -> None:
    bundle, taken = Bundle(plan(b"first")), 1
    while bundle.takes(plan(b"%d" % taken)):
        taken += 1
    assert taken == MOST_PLANS and bundle.is_full
    assert not Bundle(plan(b"a", size=MOST_BYTES - 1)).takes(plan(b"b", size=2))
    assert Bundle(plan(b"a", size=2 * MOST_BYTES)).is_full
    assert not Bundle(plan(b"a", *(b"%d" % index for index in range(MOST_COMPARES - 1)))).takes(plan(b"b"))
    many = Plan("ADMIT", (), tuple(Put(b"%d" % index, b"") for index in range(MOST_WRITES)))
    assert not Bundle(many).takes(plan(b"b")) and not Bundle(plan(b"b")).takes(many)


def test_many_regions_get_the_shares_of_many_workloads() -> None:
    core = core_of(**{f"region-{index}": 50 for index in range(9)})
    core.hold_commits = True
    ask(core, *(f"w{index}" for index in range(25)), replicas=9, spread=EVENLY)
    finish(core)
    assert len(core.records.shares) == 25 * 9


def test_workloads_that_wait_are_admitted_and_shared_out_together() -> None:
    core = core_of(north=20)
    core.hold_commits = True
    asked = ask(core, "first", *(f"w{index}" for index in range(5)))
    core.release(1)  # the first went alone, the others while it was under way
    operations = [core.held[0].plan.operation, written(core.held[0])]
    while core.held:
        core.release(1)
        if core.held:
            operations.append(core.held[0].plan.operation)
    assert operations[:2] in (["ADMIT", 5], ["SET-SHARE", 0])
    assert operations.count("ADMIT") == 1 and operations.count("SET-SHARE") <= 2
    finish(core)
    answers = [core.replies[each].answer for each in asked]
    assert [answer.workload.metadata.name for answer in answers if isinstance(answer, global_pb2.ApplyWorkloadResponse)]
    assert len({getattr(answer, "revision", 0) for answer in answers}) == 2
    assert len(core.records.shares) == 6


def test_of_two_changes_of_one_workload_the_second_sees_the_first() -> None:
    core = core_of(north=20)
    core.hold_commits = True
    asked = ask(core, "busy", "web") + ask(core, "web", replicas=3)
    finish(core)
    answers = [core.replies[each].answer for each in asked]
    assert [getattr(answer, "outcome", answer) for answer in answers] == ["created", "created", "updated"]


def test_a_mistake_among_them_is_told_to_its_own_user_alone() -> None:
    core = core_of(north=20)
    core.hold_commits = True
    asked = ask(core, "busy", "a", "Not A Name", "b")
    finish(core)
    answers = [core.replies[each].answer for each in asked]
    assert isinstance(answers[2], Invalid)
    assert not any(isinstance(answer, AtollError) for answer in (answers[0], answers[1], answers[3]))


def test_what_is_refused_above_the_quota_is_decided_after_all_before_it() -> None:
    core = core_of(north=100)
    core.hold_commits = True
    asked = ask(core, "busy") + ask(core, "a", "b", replicas=30, on_quota=REJECT)
    finish(core)
    answers = [core.replies[each].answer for each in asked]
    assert isinstance(answers[1], global_pb2.ApplyWorkloadResponse) and isinstance(answers[2], QuotaExceeded)


def test_each_first_share_sees_the_room_that_the_ones_before_it_leave() -> None:
    core = core_of(north=3, south=10)
    core.hold_commits = True
    ask(core, "busy", *(f"w{index}" for index in range(5)), regions=["north", "south"])
    finish(core)
    told = {share.metadata.name: share.region for share in core.records.shares if not share.removed}
    assert sorted(told.values()) == ["north"] * 3 + ["south"] * 3


def test_room_that_was_promised_to_a_plan_that_failed_is_free_again() -> None:
    core = core_of(north=2, south=10)
    core.hold_commits = True
    ask(core, "a", "b", regions=["north", "south"])
    core.release(1)
    while core.held[0].plan.operation != "SET-SHARE":
        core.release(1)
    settle(core, Rejected("sealed"))
    finish(core)
    assert {share.region for share in core.records.shares} == {"north"}
    assert core.machine.reign is not None
    assert core.machine.reign.rooms.of("north", UNIT) == 0 and core.machine.reign.rooms.of("south", UNIT, NOTHING) == 10


def test_of_those_that_the_store_refuses_together_only_the_one_at_fault_is_told() -> None:
    core = core_of(north=20)
    core.hold_commits = True
    first, *asked = ask(core, "busy", "a", "b", "c")
    core.release(1)
    while written(core.held[0]) != 3:
        core.release(1)
    assert written(settle(core, Rejected("too large: request is too large"))) == 1
    settle(core, Rejected("too large: request is too large"))
    finish(core)
    answers = [core.replies[each].answer for each in (first, *asked)]
    assert [getattr(answer, "code", "") for answer in answers] == ["", "E5009", "", ""]


def test_what_goes_goes_together() -> None:
    core = core_of(north=20)
    ask(core, "a", "b", "c")
    core.hold_commits = True
    for name in ("a", "b", "c"):
        core.start(global_pb2.DeleteWorkloadRequest(tenant="acme", name=name))
    core.release(1)
    while core.held[0].plan.operation != "DELETE":
        core.release(1)
    assert written(core.held[0]) == 2
    finish(core)
