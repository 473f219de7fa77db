"""A leader of many workloads: what it does in one go is bounded, and all of it is done in the end."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from global_cp.core.budgets import Budgets
from global_cp.core.commands import Command
from global_cp.core.events import Event
from global_cp.core.machine import Machine
from global_cp.core.reports import Reports
from global_cp.core.schedules import Schedules
from global_cp.core.shares import Shares
from global_cp.core.status import Statuses
from tests.support.global_core import DEFAULTS, UNIT, GlobalCore, report, workload

MANY = 60
SETTINGS = replace(DEFAULTS, looks_at_once=5, welcome_batch=7)


def core_of_many() -> GlobalCore:
    """A new leader that has yet to look at everything."""
    core = GlobalCore(SETTINGS)
    core.elect()
    core.connect(1)
    core.say(1, summary=objects_pb2.RegionSummary(nodes_ready=1, largest_node=UNIT.to_proto(), free=UNIT.to_proto()))
    core.tenant(quota=UNIT * MANY)
    for index in range(MANY):
        core.apply(workload(f"w{index}", replicas=1))
    core.pass_time(5_000)
    core.machine = type(core.machine)(SETTINGS)
    core.down.clear()
    return core


def looks_of(monkeypatch: pytest.MonkeyPatch, topic: type, look: str) -> list[int]:
    """How many workloads each turn of the topic looks at."""
    looks, propose, one = [0], topic.propose, getattr(topic, look)

    def counted(self: object, *args: object) -> object:
        looks[-1] += 1
        return one(self, *args)

    def turn(self: object, *args: object) -> object:
        looks.append(0)
        return propose(self, *args)

    monkeypatch.setattr(topic, look, counted)
    monkeypatch.setattr(topic, "propose", turn)
    return looks


@pytest.mark.parametrize(("topic", "look"), [(Shares, "_step"), (Statuses, "_status")])
def test_a_new_leader_looks_at_a_few_workloads_between_two_events(
    monkeypatch: pytest.MonkeyPatch, topic: type, look: str
) -> None:
    core = core_of_many()
    looks = looks_of(monkeypatch, topic, look)
    core.elect()
    core.tenant(quota=UNIT * 2 * MANY)
    core.pass_time(5_000)
    assert max(looks) <= SETTINGS.looks_at_once and sum(looks) >= MANY
    core.clean()


def _many_tenants(core: GlobalCore) -> None:
    for index in range(MANY):
        core.tenant(f"t{index}")


def _many_schedules(core: GlobalCore) -> None:
    core.tenant()
    for index in range(MANY):
        job = workload(f"nightly{index}", type=objects_pb2.WORKLOAD_TYPE_JOB)
        job.spec.schedule.cron = "@daily"
        core.apply(job)


@pytest.mark.parametrize(("topic", "make"), [(Budgets, _many_tenants), (Schedules, _many_schedules)])
def test_a_new_leader_looks_at_a_few_tenants_and_schedules_between_two_events(
    monkeypatch: pytest.MonkeyPatch, topic: type, make: Callable[[GlobalCore], None]
) -> None:
    core = GlobalCore(SETTINGS)
    core.elect()
    make(core)
    core.pass_time(5_000)
    core.machine = type(core.machine)(SETTINGS)
    looks = looks_of(monkeypatch, topic, "_step")
    core.elect()
    core.pass_time(5_000)
    assert max(looks) <= SETTINGS.looks_at_once and sum(looks) >= MANY
    core.clean()


def _all_wait(core: GlobalCore) -> None:
    for share in core.records.shares:
        said = report(share, desired=1, waiting=1)
        said.tasks.add(task="main", desired=1, waiting=1, unplaced=1)
        core.say(1, workload=said)
    core.pass_time(2 * SETTINGS.overflow_settle_ms)


def test_of_many_that_wait_for_room_a_few_are_looked_at_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they have waited for long is asked for what is idle of their budget, and for where else they could go."""
    core = core_of_many()
    core.elect()
    core.connect(1)
    _all_wait(core)
    looks, handle, stuck = [0], Machine.handle, Reports.stuck

    def turn(self: Machine, event: Event, now_ms: int) -> list[Command]:
        looks.append(0)
        return handle(self, event, now_ms)

    def look(self: Reports, share: objects_pb2.Share, task: str, now_ms: int) -> int:
        looks[-1] += 1
        return stuck(self, share, task, now_ms)

    monkeypatch.setattr(Machine, "handle", turn)
    monkeypatch.setattr(Reports, "stuck", look)
    core.pass_time(SETTINGS.overflow_settle_ms)
    assert max(looks) <= 2 * SETTINGS.looks_at_once and sum(looks) == 2 * MANY
    core.clean()


def test_what_waits_for_room_is_planned_again_only_when_another_region_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = core_of_many()
    core.elect()
    core.connect(1)
    core.connect(2, "south")
    _all_wait(core)
    plans = looks_of(monkeypatch, Shares, "_step")
    core.pass_time(2 * SETTINGS.overflow_settle_ms)
    assert sum(plans) == 0
    room = (UNIT * 7).to_proto()
    core.say(2, summary=objects_pb2.RegionSummary(nodes_ready=1, largest_node=room, free=room))
    core.pass_time(2 * SETTINGS.overflow_settle_ms)
    assert max(plans) <= SETTINGS.looks_at_once
    assert len([path for path, share in core.records.shares.items() if path[0] == "south" and not share.removed]) == 7
    core.clean()


def test_a_region_that_is_back_is_told_all_in_parts_and_then_that_it_was_all() -> None:
    core = core_of_many()
    core.elect()
    core.hold_commits = True
    core.connect(2)
    assert len(core.sent(2, "share")) <= 2 * SETTINGS.welcome_batch and not core.sent(2, "listed")
    core.hold_commits = False
    core.release()
    core.pass_time(1_000)
    told = [message.WhichOneof("body") for message in core.down[2]]
    assert told.count("listed") == 1
    assert told[: told.index("listed")].count("share") == MANY
    core.clean()


def test_what_changes_while_a_region_is_told_everything_is_told_at_once() -> None:
    core = core_of_many()
    core.elect()
    core.hold_commits = True
    core.connect(2)
    core.hold_commits = False
    core.apply(workload("w3", replicas=4))
    core.release()
    core.pass_time(1_000)
    last = {share.metadata.name: share for share in core.sent(2, "share")}  # type: ignore[attr-defined]
    assert len(last) == MANY and last["w3"].spec.tasks[0].replicas == 4  # type: ignore[attr-defined]
    assert len(core.sent(2, "listed")) == 1


def test_a_session_that_ends_while_it_is_told_everything_is_told_no_more() -> None:
    core = core_of_many()
    core.elect()
    core.hold_commits = True
    core.connect(2)
    core.connect(3)
    before = len(core.down[2])
    core.hold_commits = False
    core.release()
    core.pass_time(1_000)
    assert len(core.down[2]) == before and len(core.sent(3, "share")) >= MANY
    share = core.records.shares.get("north", "acme", "w0")
    assert share is not None
    core.say(3, workload=report(share, desired=1, bound=1))


def test_a_topic_that_waits_for_its_own_plan_asks_for_no_turn_before_that_is_settled() -> None:
    """While the store is silent: else a leader with a free lane would plan the same a thousand times a second."""
    core = core_of_many()
    core.settings = replace(SETTINGS, lanes=2)
    core.machine = Machine(core.settings)
    core.elect()
    core.connect(1)
    core.hold_commits = True
    core.start(global_pb2.ScaleWorkloadRequest(tenant="acme", name="w7", replicas=0))
    core.release(1)
    core.crash(applied=0)  # its share is not told
    core.elect()
    core.pass_time(1_000)
    turns, handle = [0], core.machine.handle

    def counted(event: Event, now_ms: int) -> list[Command]:
        turns[0] += 1
        return handle(event, now_ms)

    core.machine.handle = counted  # type: ignore[method-assign]
    core.pass_time(5_000)
    assert core.held and turns[0] < 20
    core.hold_commits = False
    core.release()
    core.pass_time(1_000)
    share = core.records.shares.get("north", "acme", "w7")
    assert share is not None and not share.spec.tasks[0].replicas
    core.clean()
