"""What becomes of a slot whose attempt has ended, or is taken for lost.

Proof of the end is a certificate: the agent's CLOSED, or for `exclusive` and `bounded` work the fence that has surely
passed. With proof a slot is RELEASEd to waiting or done. Work of class `keep` on a lost node has no proof: it is
REPLACEd, which leaves a zombie until the node is back and certifies. Keeps I1 and I7.
"""

from collections.abc import Iterable

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import closing, liveness, transactions
from regional.core.commands import SendToNode
from regional.core.ledger import TenantAccount
from regional.core.records import (
    CLOSED,
    COMPLETED,
    DONE,
    NEVER,
    NODE_LOST,
    STOPPED,
    WAITING,
    NodeEntry,
    SlotEntry,
)
from regional.core.state import State, Turn
from regional.core.transactions import Release, Released

_LONGEST_REASON, _LONGEST_MESSAGE = 64, 1_024  # of what an agent says: both are stored
_S_IN_MS = 1_000


def next_release(state: State, lane: int, turn: Turn) -> Release | None:
    """Slots whose certificate has come, as many as one transaction takes."""
    released: list[Released] = []
    tenants: set[str] = set()  # each is one write more
    while state.releases and len(released) < state.settings.release_batch_slots:
        if len(released) + len(tenants) + 2 > transactions.WRITES:
            break
        entry = state.releases.pop(next(iter(state.releases)))
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


def _credits(state: State, released: Iterable[Released]) -> list[tuple[TenantAccount, Vector]]:
    sums: dict[str, Vector] = {}
    for r in released:
        tenant = r.entry.task.owner.tenant
        sums[tenant] = sums.get(tenant, Vector()) - r.entry.vector
    return [(state.account(tenant), credit) for tenant, credit in sums.items()]


def _mark(released: Iterable[Released], busy: bool) -> None:
    for r in released:
        r.entry.busy = busy


def _after(state: State, entry: SlotEntry, now_ms: int) -> objects_pb2.Slot:
    """The record of a slot whose attempt has surely ended."""
    exit_ = _exit(entry, now_ms)
    tries, not_before_ms, done = entry.record.tries, 0, not entry.wanted
    if entry.outdated:
        tries = 0
    elif entry.wanted and exit_.reason not in (STOPPED, NODE_LOST):
        done = _final(state, entry, exit_)
        tries += 1
        if not done:
            pause = min(state.settings.retry_first_ms << min(tries - 1, 30), state.settings.retry_longest_ms)
            not_before_ms = now_ms + pause
    return _record(entry, DONE if done else WAITING, tries, not_before_ms, exit_)


def _exit(entry: SlotEntry, now_ms: int) -> objects_pb2.Exit:
    """How it ended. What was asked to stop was stopped, unless it completed just then."""
    if not entry.status or entry.status.phase != CLOSED:
        return objects_pb2.Exit(reason=NODE_LOST, message="its fence has passed", at_ms=now_ms)
    said = entry.status.exit
    reason, message = said.reason[:_LONGEST_REASON] or STOPPED, said.message[:_LONGEST_MESSAGE]
    if entry.closing and reason != COMPLETED:
        reason, message = STOPPED, entry.closing
    return objects_pb2.Exit(code=said.code, reason=reason, message=message, at_ms=said.at_ms or now_ms)


def _final(state: State, entry: SlotEntry, exit_: objects_pb2.Exit) -> bool:
    """Whether a replica that ended by itself is not tried again."""
    if exit_.reason == COMPLETED:
        return entry.completes
    return entry.restarts == NEVER or (entry.is_job and entry.record.tries + 1 >= state.settings.job_tries)


def _moved(entry: SlotEntry) -> objects_pb2.Slot:
    state = WAITING if entry.wanted else DONE
    return _record(entry, state, entry.record.tries, 0, objects_pb2.Exit(reason=NODE_LOST))


def _record(
    entry: SlotEntry,
    state: "objects_pb2.SlotState.ValueType",
    tries: int,
    not_before_ms: int,
    exit_: objects_pb2.Exit,
) -> objects_pb2.Slot:
    before = entry.record
    return objects_pb2.Slot(
        id=before.id,
        state=state,
        node=before.node,
        node_incarnation=before.node_incarnation,
        attempt=before.attempt,
        generation=before.generation,
        epoch=before.epoch,
        account=before.account,
        vector=before.vector,
        tries=tries,
        not_before_ms=not_before_ms,
        exit=exit_,
        decision_id=before.decision_id,
        uid=before.uid,
        run_class=before.run_class,
        bounded_s=before.bounded_s,
    )


def _zombie(state: State, entry: SlotEntry) -> tuple[bytes, objects_pb2.Zombie]:
    record = entry.record
    zombie = objects_pb2.Zombie(
        slot=record.id,
        node=record.node,
        node_incarnation=record.node_incarnation,
        attempt=record.attempt,
        account=record.account,
        vector=record.vector,
    )
    return keys.zombie(state.root, record.node, record.id, record.attempt), zombie


def release_committed(state: State, operation: Release, revision: int, turn: Turn) -> None:
    """The slots are free: they wait again, or are done; their room and quota may cure others."""
    for tenant, credit in operation.credits:
        account = state.account(tenant)
        account.commit_on_lane(operation.lane, credit)
        state.unsettled_slices[tenant] = account
    for r in operation.released:
        entry = r.entry
        entry.busy = False
        outdated = entry.outdated
        state.put_slot(entry.task, entry.index, r.record, revision)
        if r.zombie:
            zombie = state.put_zombie(*r.zombie, revision)
            stop = closing.stop_message(state, r.record.id, r.record.attempt, "replaced")
            closing.send_stop(state, state.nodes[zombie.record.node], stop, turn)
        requeue(state, entry, turn.now_ms)
        if outdated:
            closing.roll(state, entry.task, turn)
    records = [r.record for r in operation.released if not r.zombie]
    closing.settled(state, [(record.node, record.id, record.attempt) for record in records], turn)


def release_rejected(state: State, operation: Release, turn: Turn) -> None:
    """Still bound. Certificates stay good; lost nodes are looked at again."""
    _mark(operation.released, False)
    for r in operation.released:
        node = state.nodes.get(r.entry.record.node)
        if not r.entry.bound or node is None:
            continue
        if r.zombie is None or (r.entry.status and r.entry.status.phase == CLOSED):
            state.releases[r.entry.key] = r.entry
        elif node.record.state == objects_pb2.NODE_STATE_LOST:
            state.lost[node.name] = node
        elif node.welcomed and not r.entry.closing:
            assign = agent_pb2.RegionMessage(assign=closing.assignment(state, r.entry))
            turn.do(SendToNode(node.session, assign))


def requeue(state: State, entry: SlotEntry, now_ms: int) -> None:
    """Puts a slot that has a record and no binding where it belongs: the queue, its back-off, or to be forgotten."""
    task, record = entry.task, entry.record
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
        return
    if not entry.waits:
        return
    failed = record.state == WAITING and not entry.outdated and record.exit.reason not in ("", STOPPED, NODE_LOST)
    avoid = record.node if failed else ""
    if failed and record.not_before_ms > now_ms:
        state.queue.delay(task.cls, entry.index, record.not_before_ms, avoid)
    else:
        state.queue.put(task.cls, (entry.index,), now_ms, avoid)
