"""Shares: what this region is asked to run, admitted in the global plane's order, and opened as slots.

The newest share by (store life, global term, revision) wins; older ones are ignored. From the commit of ADMIT-SHARE on
nothing of an older generation is bound (BIND compares the record); replicas of a changed template are stopped within
the rolling limit and bound anew, replicas beyond the count are stopped (those that wait go first), and a removed
workload is closed and forgotten. The policy of a share is no part of a template: by another one only later decisions
are made, and what waits keeps its place.
"""

from dataclasses import replace
from itertools import islice
from typing import Literal, get_args

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import require
from regional.core import closing, forgetting, gangs, indices, interactive, releasing, transactions
from regional.core.binding import announce
from regional.core.classes import class_of
from regional.core.filters import Request
from regional.core.records import TaskEntry, WorkloadEntry, marks_of
from regional.core.state import State, Turn
from regional.core.transactions import AdmitShares
from regional.core.typical import Shape

_RULE = Literal["replicas", "parallelism", "completions", "retries", "depends_on", "speculation"]
_NOT_OF_A_REPLICA: tuple[_RULE, ...] = get_args(_RULE)


def welcomed(state: State, welcome: regional_pb2.GlobalWelcome) -> None:
    """The uplink is up, and everything is about to be said."""
    state.uplink, state.epoch = True, max(state.epoch, welcome.epoch)
    state.unlisted = dict(state.workloads)


def listed(state: State, listed: regional_pb2.GlobalListed) -> None:
    """A share that is not named, though the list is of the same store and as new, is gone at the global plane: it was
    closed here once, and came again from a leader that had been deposed and did not know it yet. What such a leader
    leaves out is newer than its list and stays; so does what a store had before it was restored."""
    place = (listed.store_life, listed.term, listed.revision)
    for key, workload in list(state.unlisted.items()):
        known = workload.next_share or workload.share
        same_store = known.metadata.name and known.store_life == listed.store_life
        if state.workloads.get(key) is workload and same_store and not known.removed and _order(known) < place:
            gone = objects_pb2.Share()
            gone.CopyFrom(known)
            gone.removed, gone.global_term, gone.global_revision = True, listed.term, listed.revision
            note(state, gone)
    state.unlisted = {}


def share_arrived(state: State, share: objects_pb2.Share, now_ms: int) -> None:
    """A removed workload that nobody here knows is gone already: it is only to be reported so, once this leader has
    proved that it still was one when it was asked. A deposed one does not know what was admitted after it."""
    key = share.metadata.tenant, share.metadata.name
    state.heard = max(state.heard, (share.store_life, share.global_term))
    state.unlisted.pop(key, None)
    if share.removed and key not in state.workloads:
        state.changed[key] = WorkloadEntry(*key, b"", share, asked_ms=now_ms)
    else:
        note(state, share)


def note(state: State, share: objects_pb2.Share) -> None:
    """A share to be admitted, unless what is known is as new."""
    workload = state.workload(share.metadata.tenant, share.metadata.name)
    if _order(share) <= max(_order(workload.share), _order(workload.next_share or workload.share)):
        workload.report = b""  # it asks because it does not know
        state.mark_changed(workload)
        return
    workload.next_share = share
    interactive.unsettle(state, workload)


def _order(share: objects_pb2.Share) -> tuple[int, int, int]:
    return share.store_life, share.global_term, share.global_revision


def next_prompt_admission(state: State, lane: int, turn: Turn) -> AdmitShares | None:
    """Of interactive workloads alone."""
    if not state.prompt_shares:
        return None
    interactive.seen(state, turn)
    return _admit(state, lane, state.prompt_shares)


def next_admission(state: State, lane: int, turn: Turn) -> AdmitShares | None:
    return next_prompt_admission(state, lane, turn) or _admit(state, lane, state.unsettled_shares)


def _admit(state: State, lane: int, unsettled: dict[tuple[str, str], WorkloadEntry]) -> AdmitShares | None:
    """As many as one transaction takes, at least one."""
    if not unsettled:
        return None
    admitted: list[tuple[WorkloadEntry, objects_pb2.Share]] = []
    room = state.settings.admission_batch_kib * 1024
    for key in list(islice(unsettled, state.settings.admission_batch_shares)):
        workload = unsettled[key]
        if workload.next_share and not workload.busy:
            share = _stamped(workload, workload.next_share)
            room -= share.ByteSize()
            if admitted and room < 0:
                break
            workload.busy = True
            admitted.append((workload, share))
        del unsettled[key]  # of a busy one `look_again` follows
    return transactions.admit_shares(lane, admitted) if admitted else None


def _stamped(workload: WorkloadEntry, share: objects_pb2.Share) -> objects_pb2.Share:
    """The share with the generations that last changed each task's template, and its work."""
    before = workload.share
    same = before.metadata.uid == share.metadata.uid and workload.mod_revision > 0
    generations = {t.task: t for t in before.templates} if same else {}
    specs = {task.name: task for task in before.spec.tasks} if same else {}
    stamped = objects_pb2.Share()
    stamped.CopyFrom(share)
    del stamped.templates[:]
    for task in sorted(share.spec.tasks, key=lambda t: t.name):
        generation = work = share.metadata.generation
        known, spec = generations.get(task.name), specs.get(task.name)
        if known and spec and _work(before.spec, spec) == _work(share.spec, task):
            work = known.work_generation or known.generation
            generation = known.generation if _class(before.spec) == _class(share.spec) else generation
        stamped.templates.add(task=task.name, generation=generation, work_generation=work)
    return stamped


def _class(spec: objects_pb2.WorkloadSpec) -> tuple[int, int]:
    """What else a template is made of: a replica that runs is bound by it, one that has ended is not."""
    return spec.run_class, spec.bounded_s


def _work(spec: objects_pb2.WorkloadSpec, task: objects_pb2.Task) -> bytes:
    """All that a replica does: equal bytes, equal results."""
    bare = objects_pb2.Task()
    bare.CopyFrom(task)
    for name in _NOT_OF_A_REPLICA:
        bare.ClearField(name)
    return objects_pb2.WorkloadSpec(type=spec.type, tasks=[bare]).SerializeToString(deterministic=True)


def admission_committed(state: State, operation: AdmitShares, revision: int, turn: Turn) -> None:
    for workload, share in operation.admitted:
        workload.busy = False
        if workload.next_share and _order(workload.next_share) <= _order(share):
            workload.next_share = None
        for name in [name for name in share.stopped if name not in workload.share.stopped]:
            text = f"{name}: what has not ended is stopped"
            announce(turn, state, workload.tenant, workload.name, "TaskStopped", text)
        open_slots(state, workload, share, revision, turn)
        forgetting.look_again(state, workload)


def admission_rejected(state: State, operation: AdmitShares, turn: Turn) -> None:
    for workload, _ in operation.admitted:
        workload.busy = False
        forgetting.look_again(state, workload)


def open_slots(state: State, workload: WorkloadEntry, share: objects_pb2.Share, mod_revision: int, turn: Turn) -> None:
    """Makes the queue and the wishes of stopping agree with a share as stored; also the last step of a takeover."""
    require(bool(share.metadata.name), "I7: a share has a name")
    known = workload.mod_revision > 0
    workload.admit(share, mod_revision)
    specs = {} if share.removed else {task.name: task for task in share.spec.tasks}
    templates = {template.task: template for template in share.templates}
    anew = objects_pb2.TaskTemplate(generation=share.metadata.generation)
    for name in dict.fromkeys((*workload.tasks, *specs)):
        task = state.task(workload, name)
        before, template = task.replicas, task.template_generation
        task.admit(specs.get(name), templates.get(name, anew))
        if known and template != task.template_generation:
            task.surges.clear()  # they are made of another one than what follows
        _want(state, task, first=not known)
        state.neighbours.admit(task)
        if task.replicas > before:
            state.table.demand.add(shape_of(task.request), task.replicas - before)
        if task.speculation is not None:
            state.speculating[task] = None
        else:
            state.speculating.pop(task, None)
        open_task(state, task, turn)
    gangs.opened(state, workload, turn)
    state.mark_changed(workload)


def shape_of(request: Request) -> Shape:
    """What of a request counts for what is typical."""
    return Shape(request.vector.cpu_milli, request.vector.gpu_milli, request.gpu_models)


def _without_strategy(request: Request) -> Request:
    return replace(request, strategy="", weights=())


def _want(state: State, task: TaskEntry, *, first: bool) -> None:
    """Which indices are wanted: those that make up the count, and surges for some of them (surging.py)."""
    going = {i for i, entry in task.entries.items() if entry.bound and entry.record.node in state.leaving}
    if first:
        indices.pair(task)
        if task.surges:
            state.surging[task] = None
    task.wanted = indices.wanted(task, going)


def open_task(state: State, task: TaskEntry, turn: Turn) -> None:
    """Queues and stops what is to be, of the indices that are wanted."""
    old, since_ms = task.cls, turn.now_ms
    if old:
        state.queue.drop(old)
        if old.size and _without_strategy(old.request) == _without_strategy(task.request):
            since_ms = old.queued_ms
    task.cls = class_of(task) if task.spec else None
    if task.cls and not gangs.together(task):
        fresh = [i for i in task.wanted if i not in task.entries and i not in task.in_flight]
        state.queue.put(task.cls, fresh, since_ms)
    for index in sorted(task.entries):
        entry = task.entries[index]
        entry.derive()
        before, entry.marks = entry.marks, marks_of(entry)
        if before != entry.marks:
            task.tally.move(before, entry.marks)
        if not entry.placed:
            if index not in task.in_flight:
                releasing.requeue(state, entry, turn.now_ms, since_ms)
        elif entry.bound and not entry.wanted:
            closing.stop(state, entry, "not wanted", turn)
    closing.roll(state, task, turn)
