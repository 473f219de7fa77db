"""What becomes of a slot whose attempt has ended, or is taken for lost.

Proof of the end is a certificate: the agent's CLOSED, or for `exclusive` and `bounded` work the fence that has surely
passed. With proof a slot is RELEASEd to waiting or done. Work of class `keep` on a lost node has no proof: it is
REPLACEd, which leaves a zombie until the node is back and certifies. Keeps I1 and I7.
"""

from collections.abc import Iterable
from itertools import islice

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import NONE, Account, ByAccount, charged_to
from atoll.model.pauses import stretched_ms
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import closing, gangs, indices, interactive, liveness, transactions
from regional.core.commands import SendToNode
from regional.core.indices import UNKNOWN
from regional.core.ledger import TenantAccount
from regional.core.records import (
    CLOSED,
    COMPLETED,
    DONE,
    NODE_LOST,
    STOPPED,
    WAITING,
    NodeEntry,
    SlotEntry,
)
from regional.core.retries import judge, who
from regional.core.state import State, Turn
from regional.core.transactions import Release, Released

_LONGEST_REASON, _LONGEST_MESSAGE = 64, 1_024  # of what an agent says: both are stored
_S_IN_MS = 1_000


def next_release(state: State, lane: int, turn: Turn) -> Release | None:
    """Slots whose certificate has come, as many as one transaction takes."""
    released: list[Released] = []
    tenants: set[str] = set()  # each is one write more
    most = interactive.batch_slots(state, state.settings.release_batch_slots, turn.now_ms)
    while state.releases and not released:
        for entry in list(islice(state.releases.values(), most)):
            if len(released) + len(tenants) + 2 > transactions.WRITES:
                break
            del state.releases[entry.key]
            if entry.bound and not entry.busy:
                released.append(Released(entry, _after(state, entry, turn.now_ms)))
                tenants.add(entry.task.owner.tenant)
    if not released:
        return None
    _mark(released, True)
    return transactions.release(state.root, lane, released, _credits(state, released))


def next_replace(state: State, lane: int, turn: Turn) -> Release | None:
    """`keep` work of lost nodes, a third as many: each leaves a zombie, and may be of a tenant of its own."""
    released: list[Released] = []
    nodes: dict[str, NodeEntry] = {}
    for name, node in list(state.lost.items()):
        slots = [e for e in node.slots.values() if not e.busy and e.key not in state.releases]
        movable = [e for e in slots if moves_without_proof(e)]
        room = (transactions.COMPARES - len(nodes) - 1) // 3 - len(released)
        if len(movable) <= room:
            del state.lost[name]
        for entry in movable[: max(room, 0)]:
            nodes[name] = node
            released.append(Released(entry, _moved(entry), _zombie(state, entry)))
    if not released:
        return None
    _mark(released, True)
    return transactions.replace(state.root, lane, released, _credits(state, released), nodes.values())


def moves_without_proof(entry: SlotEntry) -> bool:
    return entry.record.run_class in (objects_pb2.RUN_CLASS_UNSPECIFIED, objects_pb2.RUN_CLASS_KEEP)


def stops_itself_after_ms(state: State, entry: SlotEntry, fence_after_ms: int) -> int | None:
    """When an attempt has surely stopped, from the receipt of its node's last acknowledged heartbeat; None: never."""
    if moves_without_proof(entry):
        return None
    bounded_ms = entry.record.bounded_s * _S_IN_MS
    return liveness.surely_stopped_ms(state.settings, max(fence_after_ms, bounded_ms))


def _credits(state: State, released: Iterable[Released]) -> list[tuple[TenantAccount, ByAccount]]:
    alike: dict[tuple[str, Account, Vector], int] = {}
    for r in released:
        held = (r.entry.task.owner.tenant, r.entry.account, r.entry.vector)
        alike[held] = alike.get(held, 0) + 1
    sums: dict[str, ByAccount] = {}
    for (tenant, account, one), count in alike.items():
        sums[tenant] = sums.get(tenant, NONE) - charged_to(account, one * count)
    return [(state.account(tenant), credit) for tenant, credit in sums.items()]


def _mark(released: Iterable[Released], busy: bool) -> None:
    for r in released:
        r.entry.busy = busy


def _after(state: State, entry: SlotEntry, now_ms: int) -> objects_pb2.Slot:
    """The record of a slot whose attempt has surely ended."""
    record = _ended(entry)
    exit_ = _fill_exit(record.exit, entry, now_ms)
    done = not entry.wanted
    if entry.task.redoes(record):
        record.tries = 0
    elif entry.wanted and exit_.reason not in (STOPPED, NODE_LOST):
        record.tries, pause_ms = judge(state.settings, entry, exit_)
        done = pause_ms is None
        record.not_before_ms = now_ms + pause_ms if pause_ms is not None else 0
    elif entry.wanted and entry.grace_s and exit_.reason == STOPPED:
        record.not_before_ms = now_ms + stretched_ms(state.settings.preemption_penalty_ms, who(entry))
    record.state = DONE if done else WAITING
    return record


def _ended(entry: SlotEntry) -> objects_pb2.Slot:
    """The record without what the next state sets anew."""
    record = objects_pb2.Slot()
    record.CopyFrom(entry.record)
    record.not_before_ms = 0
    record.ClearField("exit")
    record.ClearField("gpus")
    return record


def _fill_exit(exit_: objects_pb2.Exit, entry: SlotEntry, now_ms: int) -> objects_pb2.Exit:
    """How it ended. What was asked to stop was stopped, unless it completed just then."""
    status = entry.status
    if not status or status.phase != CLOSED:
        exit_.reason, exit_.message, exit_.at_ms = NODE_LOST, "its fence has passed", now_ms
        return exit_
    said = status.exit
    reason, message = said.reason[:_LONGEST_REASON] or STOPPED, said.message[:_LONGEST_MESSAGE]
    if entry.closing and reason != COMPLETED:
        reason, message = STOPPED, entry.closing
    exit_.code, exit_.reason, exit_.message, exit_.at_ms = said.code, reason, message, said.at_ms or now_ms
    return exit_


def _moved(entry: SlotEntry) -> objects_pb2.Slot:
    record = _ended(entry)
    record.state = WAITING if entry.wanted else DONE
    record.exit.reason = NODE_LOST
    return record


def _zombie(state: State, entry: SlotEntry) -> tuple[bytes, objects_pb2.Zombie]:
    record = entry.record
    zombie = objects_pb2.Zombie(
        slot=record.id,
        node=record.node,
        node_incarnation=record.node_incarnation,
        attempt=record.attempt,
        account=record.account,
        vector=record.vector,
        gpus=record.gpus,
    )
    return keys.zombie(state.root, record.node, record.id, record.attempt), zombie


def release_committed(state: State, operation: Release, revision: int, turn: Turn) -> None:
    """The slots are free: they wait again, or are done; their room and quota may cure others."""
    for tenant, credit in operation.credits:
        account = state.account(tenant)
        account.commit_on_lane(operation.lane, credit)
        state.unsettled_slices[tenant] = account
    _mark(operation.released, False)
    outdated = [r.entry.outdated for r in operation.released]
    state.put_slots([r.stored for r in operation.released], revision)
    for r in operation.released:
        if r.entry.task.speculation is not None:  # which copies are wanted has changed, before anything is queued
            r.entry.task.wanted = indices.again(r.entry.task)
            r.entry.derive()
            state.retally(r.entry)
    for r, was_outdated in zip(operation.released, outdated, strict=True):
        if r.zombie:
            zombie = state.put_zombie(*r.zombie, revision)
            stop = closing.stop_message(state, r.record.id, r.record.attempt, "replaced")
            closing.send_stop(state, state.nodes[zombie.record.node], stop, turn)
        requeue(state, r.entry, turn.now_ms)
        if was_outdated:
            closing.roll(state, r.entry.task, turn)
    records = [r.record for r in operation.released if not r.zombie]
    closing.settled(state, [(record.node, record.id, record.attempt) for record in records], turn)


def release_rejected(state: State, operation: Release, turn: Turn) -> None:
    """Still bound. Certificates stay good; lost nodes are looked at again."""
    _mark(operation.released, False)
    for r in operation.released:
        node = state.nodes.get(r.entry.record.node)
        if not r.entry.bound or node is None:
            continue
        if r.zombie is None:
            state.releases[r.entry.key] = r.entry
        elif not closing.look_again(state, r.entry) and node.welcomed and not r.entry.closing:
            turn.do(SendToNode(node.session, closing.assign_message(state, r.entry)))


def requeue(state: State, entry: SlotEntry, now_ms: int, since_ms: int | None = None) -> None:
    """Puts a slot that has a record and no binding where it belongs: the queue, its back-off, or to be forgotten.
    `since_ms`: since when its class waits, if not from now on."""
    task, record = entry.task, entry.record
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
        return
    if gangs.together(task):
        gangs.look(state, task.owner)  # what has ended for good may be the last that the others' new start waits for
        return
    if not entry.waits:
        return
    failed = record.state == WAITING and not entry.outdated and entry.exit_reason not in ("", STOPPED, NODE_LOST)
    avoid = record.node if failed else ""
    if UNKNOWN in task.surges.values():  # which may take its place: see surging.py
        state.queue.delay(task.cls, entry.index, now_ms + 2 * state.settings.node_check_ms, avoid, ran=entry.ran)
        return
    preempted = record.state == WAITING and record.not_before_ms > 0 and entry.exit_reason == STOPPED
    if (failed or preempted) and record.not_before_ms > now_ms:
        state.queue.delay(task.cls, entry.index, record.not_before_ms, avoid, ran=entry.ran)
    else:
        queued_ms = now_ms if since_ms is None else since_ms
        state.queue.put(task.cls, (entry.index,), queued_ms, avoid, ran=entry.ran)
