"""The global core end to end, without a loop: what users and regions ask, what is stored, sent and published."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Conflict, NotFound, OutcomeUnknown, Unavailable
from atoll.lane import Deposed, Rejected
from atoll.model.resources import Vector
from atoll.store import keys
from atoll.store.store import Delete, Txn
from global_cp.config import CoreSettings
from global_cp.core import events
from tests.support.global_core import GlobalCore, ack, granted, report, tenant, workload

UNIT = Vector(500, 256)


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    yield world
    world.release()
    world.clean()


def test_a_standby_answers_nothing_and_takes_no_session() -> None:
    core = GlobalCore()
    answer = core.tenant()
    core.connect(1)
    assert isinstance(answer, Unavailable) and core.closed[1] == "this is a standby"
    assert core.machine.next_deadline() is None


def test_a_workload_gets_a_share_a_grant_and_a_status(core: GlobalCore) -> None:
    core.connect(1)
    core.tenant()
    answer = core.apply(workload())
    assert isinstance(answer, global_pb2.ApplyWorkloadResponse) and answer.outcome == "created"
    assert answer.workload.metadata.generation == 1 and answer.revision == answer.workload.metadata.revision
    share = core.records.shares.get("north", "acme", "web")
    slice_ = core.records.slices.get("acme", "north")
    assert share is not None and share.spec.tasks[0].replicas == 2
    assert granted(slice_) == UNIT * 2
    kinds = [message.WhichOneof("body") for message in core.down[1]]
    assert kinds[:3] == ["welcome", "tokens", "listed"] and sorted(kinds[3:]) == ["share", "slice_stamp"]
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "web")
    assert status is not None and status.conditions[0].type == "Admitted"
    revisions = [event.revision for event in core.published]
    assert revisions == sorted(revisions) and core.published[-1].workload.status == status


def test_the_same_spec_again_is_unchanged_and_labels_alone_raise_no_generation(core: GlobalCore) -> None:
    core.tenant()
    core.apply(workload())
    again = core.apply(workload())
    assert isinstance(again, global_pb2.ApplyWorkloadResponse) and again.outcome == "unchanged"
    labelled = workload()
    labelled.metadata.labels.add(key="a", value="b")
    changed = core.apply(labelled)
    assert isinstance(changed, global_pb2.ApplyWorkloadResponse) and changed.outcome == "updated"
    assert changed.workload.metadata.generation == 1
    scaled = core.ask(global_pb2.ScaleWorkloadRequest(tenant="acme", name="web", replicas=5))
    assert isinstance(scaled, global_pb2.ApplyWorkloadResponse) and scaled.workload.metadata.generation == 2
    assert list(scaled.workload.metadata.labels) == list(labelled.metadata.labels)


def test_a_request_id_gives_one_answer_also_after_a_takeover(core: GlobalCore) -> None:
    core.tenant()
    request = global_pb2.ApplyWorkloadRequest(workload=workload(), request_id="deploy-1")
    first = core.ask(request)
    core.ask(global_pb2.ScaleWorkloadRequest(tenant="acme", name="web", replicas=5))
    assert core.ask(request) == first
    core.elect()
    assert core.ask(request) == first
    other = global_pb2.ApplyWorkloadRequest(workload=workload(replicas=9), request_id="deploy-1")
    refused = core.ask(other)
    assert isinstance(refused, Conflict) and refused.code == "E3003"
    stored = core.records.workloads.get("acme", "web")
    assert stored is not None and stored.spec.tasks[0].replicas == 5


def test_the_same_request_waits_for_the_first_while_it_is_under_way(core: GlobalCore) -> None:
    core.tenant()
    core.hold_commits = True
    request = global_pb2.ApplyWorkloadRequest(workload=workload(), request_id="deploy-1")
    first, second = core.start(request), core.start(request)
    assert first not in core.replies and second not in core.replies
    core.hold_commits = False
    core.release()
    assert core.replies[first].answer == core.replies[second].answer
    assert not core.replies[first].replayed and core.replies[second].replayed


def test_lost_leadership_tells_what_may_have_happened(core: GlobalCore) -> None:
    core.tenant()
    core.hold_commits = True
    sent = core.start(global_pb2.ApplyWorkloadRequest(workload=workload("a")))
    queued = core.start(global_pb2.ApplyWorkloadRequest(workload=workload("b")))
    core.post(events.LeadershipLost("the lease is gone"))
    assert isinstance(core.replies[sent].answer, OutcomeUnknown)
    assert type(core.replies[queued].answer) is Unavailable
    core.held.clear()


def test_a_deposed_leader_resigns_and_closes_its_sessions(core: GlobalCore) -> None:
    core.connect(1)
    core.hold_commits = True
    asked = core.start(global_pb2.ApplyTenantRequest(tenant=tenant()))
    command = core.held.popleft()
    core.post(events.PlanSettled(command.plan_id, Deposed("another term"), core.now_ms))
    assert core.resigned == ["another term"] and 1 in core.closed and core.machine.reign is None
    assert isinstance(core.replies[asked].answer, OutcomeUnknown)


def test_deletion_ends_when_the_region_has_closed_every_slot(core: GlobalCore) -> None:
    core.connect(1)
    core.tenant()
    core.apply(workload())
    first = core.records.shares.get("north", "acme", "web")
    assert first is not None
    core.say(1, workload=report(first, closed=True))  # a share that is not removed cannot be closed
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    share = core.records.shares.get("north", "acme", "web")
    stored = core.records.workloads.get("acme", "web")
    assert share is not None and share.removed and stored is not None and stored.metadata.deleted_ms
    again = core.apply(workload())
    assert isinstance(again, Conflict) and again.code == "E3004"
    core.say(1, workload=report(share, closed=True))
    assert core.records.workloads.get("acme", "web") is None
    assert core.records.shares.get("north", "acme", "web") is None
    assert core.published[-1].type == global_pb2.EVENT_TYPE_DELETED
    recreated = core.apply(workload())
    assert isinstance(recreated, global_pb2.ApplyWorkloadResponse) and recreated.outcome == "created"
    assert recreated.workload.metadata.uid != share.metadata.uid


def test_a_region_hears_everything_again_in_a_new_session_and_the_older_one_is_closed(core: GlobalCore) -> None:
    core.connect(1, term=5)
    core.tenant()
    core.apply(workload())
    core.connect(2, term=4)
    assert "higher term" in core.closed[2]
    core.connect(3, term=6)
    assert "newer session" in core.closed[1]
    kinds = [message.WhichOneof("body") for message in core.down[3]]
    assert kinds == ["welcome", "tokens", "slice_stamp", "share", "listed"]
    (share,) = core.sent(3, "share")
    assert share.global_revision and share.global_term  # type: ignore[attr-defined]
    core.say(1, summary=objects_pb2.RegionSummary(nodes_total=3))
    assert core.machine.reign is not None and not core.machine.reign.regions.summaries


def test_a_region_of_a_later_epoch_is_not_led_by_an_older_store(core: GlobalCore) -> None:
    core.connect(1)
    core.connect(2, epoch=7, term=9)
    assert "older" in core.closed[2] and 1 not in core.closed


def test_a_region_that_has_heard_a_newer_leader_gets_no_welcome_and_a_deposed_one_ends(core: GlobalCore) -> None:
    core.connect(1)
    newer = core.state.revision + 100
    core.connect(2, region="south", heard=(0, newer))
    assert f"term {newer}" in core.closed[2] and not core.sent(2, "welcome")
    assert not core.resigned, "the true leader proves itself: a region's word alone deposes nobody"
    core.connect(3, region="south", heard=(1, 1))
    assert 3 in core.closed, "of a newer life of the store"
    core.state.transact(Txn((), (Delete(keys.leader(keys.GLOBAL)),)))
    assert core.machine.reign, "it does not know yet"
    core.connect(4, region="south", heard=(0, newer))
    assert core.resigned and core.machine.reign is None
    assert core.closed[1] == "leadership was lost"


def test_a_region_speaks_only_for_itself(core: GlobalCore) -> None:
    core.connect(1, "north")
    core.connect(2, "south")
    core.tenant()
    core.apply(workload(regions=["north"]))
    slice_ = core.records.slices.get("acme", "north")
    assert slice_ is not None
    core.say(2, slice_ack=ack(slice_, Vector()))
    core.say(2, workload=report(core.records.shares.get("north", "acme", "web") or objects_pb2.Share(), bound=2))
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "web")
    assert core.records.acks.get("north", "acme") is None
    assert status is not None and status.counts.bound == 0


def test_several_lanes_never_touch_one_key_together() -> None:
    core = GlobalCore(CoreSettings(lanes=4))
    core.elect()
    core.tenant()
    core.connect(1)
    core.hold_commits = True
    for index in range(12):
        core.start(global_pb2.ApplyWorkloadRequest(workload=workload(f"w{index % 3}", replicas=index)))
    rounds = 0
    while core.held:
        rounds += 1
        touched: list[bytes] = []
        for command in core.held:
            touched += {c.key for c in command.plan.compares} | {w.key for w in command.plan.writes}
        assert len(touched) == len(set(touched))
        core.release(1)
    core.hold_commits = False
    core.pass_time(2_000)
    assert rounds > 12 and len(core.records.workloads) == 3
    assert all(not isinstance(reply.answer, Exception) for reply in core.replies.values())
    core.clean()


def test_old_request_records_are_swept(core: GlobalCore) -> None:
    core.tenant()
    for index in range(150):
        core.apply(workload(f"w{index}", replicas=0))
    assert len(core.records.requests) == 151
    core.pass_time(core.settings.request_keep_ms + 2 * core.settings.sweep_interval_ms)
    assert len(core.records.requests) == 0


def test_a_full_intake_says_busy_with_a_time() -> None:
    core = GlobalCore(CoreSettings(intake_limit=2))
    core.elect()
    core.tenant()
    core.hold_commits = True
    answers = [core.start(global_pb2.ApplyWorkloadRequest(workload=workload(f"w{i}"))) for i in range(3)]
    refused = core.replies[answers[2]].answer
    assert getattr(refused, "retry_after_ms", 0) > 0 and getattr(refused, "code", "") == "E5008"


def test_a_flood_of_one_tenant_keeps_no_other_out_of_the_intake() -> None:
    core = GlobalCore(CoreSettings(intake_limit=4))
    core.elect()
    for owner in ("flood", "other"):
        core.tenant(owner)
    core.hold_commits = True

    def ask(owner: str, count: int) -> list[int]:
        wanted = [workload(f"w{core.now_ms}-{index}", owner=owner) for index in range(count)]
        return [core.start(global_pb2.ApplyWorkloadRequest(workload=each)) for each in wanted]

    flood, other = ask("flood", 9), ask("other", 9)
    operator = core.start(global_pb2.UpdateRegionRequest(name="none", cordoned=True))
    answered = [core.replies[each].answer for each in (*flood, *other) if each in core.replies]
    assert [getattr(answer, "code", "") for answer in answered] == ["E5008"] * 12 and operator not in core.replies
    core.hold_commits = False
    core.release()
    assert isinstance(core.replies[operator].answer, NotFound) and len(core.records.workloads) == 6
    again = ask("flood", 9)
    assert all(isinstance(core.replies[each].answer, global_pb2.ApplyWorkloadResponse) for each in again)


def test_a_dry_run_tells_the_answer_and_writes_nothing(core: GlobalCore) -> None:
    core.tenant()
    before = core.state.revision
    answer = core.apply(workload(), dry_run=True)
    assert isinstance(answer, global_pb2.ApplyWorkloadResponse) and answer.outcome == "created"
    assert answer.workload.spec.tasks[0].restart.local_limit == 3
    assert core.state.revision == before


def test_a_plan_the_store_refuses_is_answered_and_the_core_pauses_before_the_next(core: GlobalCore) -> None:
    core.tenant()
    core.hold_commits = True
    asked = core.start(global_pb2.ApplyWorkloadRequest(workload=workload()))
    other = core.start(global_pb2.ApplyWorkloadRequest(workload=workload("b")))
    command = core.held.popleft()
    core.post(events.PlanSettled(command.plan_id, Rejected("denied: permission denied"), core.now_ms))
    refused = core.replies[asked].answer
    assert isinstance(refused, Unavailable) and refused.code == "E5009" and "permission" in refused.message
    assert not core.held and core.machine.next_deadline() == core.now_ms + core.settings.refused_pause_ms
    core.pass_time(core.settings.refused_pause_ms)
    core.hold_commits = False
    core.release()
    assert isinstance(core.replies[other].answer, global_pb2.ApplyWorkloadResponse)


def test_a_sealed_plan_is_planned_again_and_a_stale_one_from_what_is_there_now(core: GlobalCore) -> None:
    core.tenant()
    core.hold_commits = True
    asked = core.start(global_pb2.ApplyWorkloadRequest(workload=workload()))
    command = core.held.popleft()
    core.post(events.PlanSettled(command.plan_id, Rejected("sealed"), core.now_ms))
    again = core.held.popleft()
    assert again.plan.operation == "ADMIT" and asked not in core.replies
    key = again.plan.compares[0].key
    core.post(events.PlanSettled(again.plan_id, Rejected("stale", ((key, core.state.get(key)),)), core.now_ms))
    core.hold_commits = False
    core.release()
    assert isinstance(core.replies[asked].answer, global_pb2.ApplyWorkloadResponse)


def test_a_tenants_mode_and_weight_reach_its_slices(core: GlobalCore) -> None:
    core.connect(1)
    core.tenant()
    core.apply(workload())
    strict = tenant()
    strict.spec.mode, strict.spec.weight = objects_pb2.QUOTA_MODE_STRICT, 7
    core.ask(global_pb2.ApplyTenantRequest(tenant=strict))
    slice_ = core.records.slices.get("acme", "north")
    assert slice_ is not None and (slice_.mode, slice_.weight) == (objects_pb2.QUOTA_MODE_STRICT, 7)
    assert granted(slice_) == UNIT * 2


def test_events_are_published_in_order_though_lanes_answer_in_any() -> None:
    core = GlobalCore(CoreSettings(lanes=2))
    core.elect()
    core.tenant("acme")
    core.tenant("best")
    core.hold_commits = True
    core.start(global_pb2.ApplyWorkloadRequest(workload=workload("a", owner="acme")))
    core.start(global_pb2.ApplyWorkloadRequest(workload=workload("b", owner="best")))
    first, second = core.held.popleft(), core.held.popleft()
    reign = core.machine.reign
    assert reign is not None
    before = reign.complete_revision
    settled = []
    for command in (first, second):
        outcome = core.lanes[command.lane].settle(core.state.transact(core.lanes[command.lane].begin(command.plan)))
        settled.append(events.PlanSettled(command.plan_id, outcome, core.now_ms))  # type: ignore[arg-type]
    core.post(settled[1])
    assert not core.published and reign.complete_revision == before
    core.post(settled[0])
    assert [event.workload.metadata.name for event in core.published] == ["a", "b"]
    core.hold_commits = False
    core.release()
    core.pass_time(1_000)
    revisions = [event.revision for event in core.published]
    assert revisions == sorted(revisions) and {e.workload.metadata.name for e in core.published} == {"a", "b"}
    core.clean()
