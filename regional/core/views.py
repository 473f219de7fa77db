"""What the API answers from a leader's memory: pure functions of the state which return new messages and change
nothing but remembered scores."""

from collections.abc import Iterator
from itertools import islice

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.resources import Vector
from atoll.model.slots import SlotName
from regional.core import draining, gangs, kept_room, making_way, standing_fast
from regional.core.ailing import ailment
from regional.core.next_act import next_act
from regional.core.placement import explain_node
from regional.core.reasons import gang_progress, reasons_now
from regional.core.records import COMPLETED, STOPPED, NodeEntry, TaskEntry
from regional.core.reports import summary as region_summary
from regional.core.state import State


def summary(state: State) -> objects_pb2.RegionSummary:
    return region_summary(state)


def list_nodes(
    state: State, now_ms: int, *, name: str = "", after: str = "", limit: int | None = None
) -> list[objects_pb2.Node]:
    """Nodes with their use and the age of their heartbeat, in the order of names: the first `limit` behind `after`. The
    one that is named with the names of its images; those of many would not fit into an answer."""
    named = {name: state.nodes[name]} if name in state.nodes else {} if name else state.nodes
    names = sorted(each for each, node in named.items() if node.mod_revision and each > after)
    shown = [show_node(state, state.nodes[each], now_ms) for each in names[:limit]]
    if name and shown:
        shown[0].images.extend(sorted(state.table.images.of(state.nodes[name].row)))
    return shown


def show_node(state: State, node: NodeEntry, now_ms: int) -> objects_pb2.Node:
    """The record with what only a leader knows: use, age of the heartbeat, progress of a drain."""
    view = objects_pb2.Node()
    view.CopyFrom(node.record)
    row = node.row
    interval_ms = int(state.liveness.heartbeat_ms[row])
    view.heartbeat_age_ms = max(0, now_ms - int(state.liveness.heard_ms[row]))
    silent = view.heartbeat_age_ms > state.settings.suspect_after_heartbeats * interval_ms
    if view.state == objects_pb2.NODE_STATE_READY and (silent or not state.table.ready[row]):
        view.state = objects_pb2.NODE_STATE_SUSPECT
    view.used.CopyFrom(Vector(*state.table.used[row].tolist()).to_proto())
    used = state.table.gpus.used(row)
    for gpu in view.gpus:
        gpu.used_milli = used.get(gpu.number, 0)
    view.slots = len(node.slots)
    view.metadata.revision = node.mod_revision
    view.region = state.region
    view.unfit = state.table.unfit_words.get(row, "")
    view.images_held = len(state.table.images.of(row))
    view.ClearField("requests")  # bookkeeping
    if node.record.draining:
        view.drain.progress = draining.progress(state, node, now_ms)
    return view


def list_slots(
    state: State,
    tenant: str = "",
    workload: str = "",
    *,
    node: str = "",
    after: SlotName | None = None,
    limit: int | None = None,
) -> list[regional_pb2.SlotView]:
    """Of one workload, of a tenant, or of all; waiting ones included unless a node is named; in the order of names: the
    first `limit` behind `after`."""
    found = _slots_on(state, node, tenant, workload) if node else _slots(state, tenant, workload)
    names = ((task, i) for task, i in found if after is None or _name(task, i) > after)
    slots = [_slot(task, index) for task, index in islice(names, limit)]
    for view in slots:
        view.region = state.region
    return slots


def _name(task: TaskEntry, index: int) -> SlotName:
    return SlotName(task.owner.tenant, task.owner.name, task.name, index)


def _slots(state: State, tenant: str, workload: str) -> Iterator[tuple[TaskEntry, int]]:
    for key in sorted(state.workloads):
        if tenant in ("", key[0]) and workload in ("", key[1]):
            for _, task in sorted(state.workloads[key].tasks.items()):
                for index in _indices(task):
                    yield task, index


def _slots_on(state: State, name: str, tenant: str, workload: str) -> Iterator[tuple[TaskEntry, int]]:
    node = state.nodes.get(name)
    entries = sorted(node.slots.values(), key=lambda entry: entry.name) if node else []
    for entry in entries:
        if tenant in ("", entry.name.tenant) and workload in ("", entry.name.workload):
            yield entry.task, entry.index


def _indices(task: TaskEntry) -> list[int]:
    return sorted({*task.wanted, *task.entries})


def _slot(task: TaskEntry, index: int) -> regional_pb2.SlotView:
    entry = task.entries.get(index)
    if entry:
        return regional_pb2.SlotView(slot=entry.record, attempt=entry.status)
    owner = task.owner
    waiting = objects_pb2.Slot(
        id=objects_pb2.SlotId(tenant=owner.tenant, workload=owner.name, task=task.name, index=index),
        state=objects_pb2.SLOT_STATE_WAITING,
        generation=owner.generation,
        vector=task.request.vector.to_proto(),
        uid=owner.uid,
    )
    return regional_pb2.SlotView(slot=waiting)


def why(
    state: State, request: regional_pb2.WhyRequest, now_ms: int, *, limit: int | None = None
) -> regional_pb2.WhyResponse:
    """Why slots are where they are, now; decisions are added by who keeps the journal. No such slot: no answer.
    What is the same for all of a task is found once."""
    workload = state.workloads.get((request.tenant, request.workload))
    if workload is None or not workload.tasks:
        return regional_pb2.WhyResponse()
    tasks = [task for name, task in workload.tasks.items() if request.task in ("", name)]
    if request.index >= 0:
        tasks = tasks[:1]
    answers = (answer for task in tasks for answer in _of_task(state, task, request, now_ms))
    return regional_pb2.WhyResponse(slots=islice(answers, limit))


def last_node(state: State, slot: objects_pb2.SlotId) -> str:
    """Where it runs, or ran last; empty: it has not run yet, or nobody knows any more."""
    workload = state.workloads.get((slot.tenant, slot.workload))
    task = workload.tasks.get(slot.task) if workload else None
    entry = task.entries.get(slot.index) if task else None
    return entry.record.node if entry else ""


def _of_task(
    state: State, task: TaskEntry, request: regional_pb2.WhyRequest, now_ms: int
) -> Iterator[regional_pb2.SlotWhy]:
    """What waits or is not well comes first."""
    common = regional_pb2.SlotWhy(region=state.region)
    if cls := gangs.stands_as(task):
        common.waiting_ms = max(0, now_ms - cls.queued_ms)
        common.queue_position = state.queue.position(cls)
        with kept_room.passing(state, cls, task.owner, now_ms):
            common.reasons.extend(reasons_now(state, task))
            lacking = any(reason.code in standing_fast.OF_ROOM for reason in common.reasons)
            if lacking and (waits := standing_fast.reason(state, task, cls, now_ms)):
                common.reasons.append(waits)
            _explain_node(state, task, request.node, common)
    else:
        _explain_node(state, task, request.node, common)
    wanted = [i for i in _indices(task) if request.index in (-1, i)]
    for index in sorted(wanted, key=lambda i: _is_well(task, i)):
        yield _why(state, task, index, common, now_ms)


def _is_well(task: TaskEntry, index: int) -> bool:
    entry = task.entries.get(index)
    if entry is None or index in task.ailing:
        return False
    return entry.bound or (entry.ended and entry.exit_reason == COMPLETED)


def _why(state: State, task: TaskEntry, index: int, common: regional_pb2.SlotWhy, now_ms: int) -> regional_pb2.SlotWhy:
    record = _slot(task, index).slot
    answer = regional_pb2.SlotWhy(id=record.id, state=record.state, region=common.region)
    answer.on_node.extend(common.on_node)
    if entry := task.ailing.get(index):
        answer.reasons.append(ailment(entry))
    if record.state == objects_pb2.SLOT_STATE_BOUND:
        answer.node, answer.account = record.node, task.entries[index].account
    elif record.state == objects_pb2.SLOT_STATE_RESERVED:
        answer.node, answer.account = record.node, task.entries[index].account
        answer.reasons.append(_reserved(state, task, index))
    elif record.not_before_ms > now_ms:
        preempted = record.exit.reason == STOPPED and record.exit.message
        told = f"{record.exit.reason}, try {record.tries}"
        code, detail = (explain.PREEMPTED, record.exit.message) if preempted else (explain.BACK_OFF, told)
        answer.reasons.append(explain.reason(code, detail=detail))
    elif record.state == objects_pb2.SLOT_STATE_DONE:
        answer.node = record.node
    else:
        answer.waiting_ms, answer.queue_position = common.waiting_ms, common.queue_position
        answer.reasons.extend(common.reasons)
    answer.next.CopyFrom(next_act(state, task, index, answer.reasons, now_ms))
    return answer


def _reserved(state: State, task: TaskEntry, index: int) -> objects_pb2.PendingReason:
    entry = task.entries[index]
    if entry.record.reservation.gang:
        return explain.reason(explain.GANG_RESERVING, detail=gang_progress(state, task))
    left, all_ = len(making_way.pending(state, entry)), len(entry.record.reservation.victims)
    return explain.reason(explain.PREEMPTING, detail=f"{all_ - left} of {all_} have gone from {entry.record.node}")


def _explain_node(state: State, task: TaskEntry, name: str, answer: regional_pb2.SlotWhy) -> None:
    if not name:
        return
    node = state.nodes.get(name)
    if node is None:
        answer.on_node.add(code="NoSuchNode", message=f"the region has no node {name}")
        return
    answer.on_node.extend(explain_node(state.class_row(task), node.row, task.around))
    for refusal in answer.on_node:
        refusal.nodes = 0  # there is but one
    if not answer.on_node:
        answer.on_node.add(code="Feasible", message="has room for one more, and refuses nothing")
