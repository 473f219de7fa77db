"""The end of attempts: who is asked to stop, what counts as proof that one has ended, and what becomes of its slot.

Proof is a certificate: the agent's CLOSED for exactly this attempt, or for `exclusive` and `bounded` work the fence
that has surely passed. With proof a slot is RELEASEd to waiting or done. Work of class `keep` on a lost node has no
proof: it is REPLACEd, which leaves a zombie until the node is back and certifies (CLEAR). Records of ended replicas
that nobody wants are forgotten (FORGET). Keeps I1, I7 and, with the rolling limit, availability during an update.
"""

from collections.abc import Iterable

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import liveness, transactions
from regional.core.commands import SendToNode
from regional.core.ledger import TenantAccount
from regional.core.state import CLOSED, DONE, WAITING, NodeEntry, SlotEntry, State, TaskEntry, Turn, WorkloadEntry
from regional.core.transactions import Clear, Forget, Release, Released

COMPLETED, STOPPED, NODE_LOST = "Completed", "Stopped", "NodeLost"
_UP = 1_000


def stop(state: State, entry: SlotEntry, reason: str, turn: Turn) -> None:
    """Asks the agent to close a bound attempt; asked again whenever its node says hello."""
    if not entry.bound or entry.closing:
        return
    entry.closing = reason
    state.retally(entry)
    node = state.nodes[entry.record.node]
    if node.welcomed:
        send_stop(state, node, entry.record.id, entry.record.attempt, _grace_ms(state, entry), reason, turn)


def send_stop(
    state: State,
    node: NodeEntry,
    slot: objects_pb2.SlotId,
    attempt: objects_pb2.Attempt,
    grace_ms: int,
    reason: str,
    turn: Turn,
) -> None:
    message = agent_pb2.Stop(token=state.token(attempt), slot=slot, grace_ms=grace_ms, reason=reason)
    turn.do(SendToNode(node.session, agent_pb2.RegionMessage(stop=message)))


def _grace_ms(state: State, entry: SlotEntry) -> int:
    spec = entry.task.spec
    return ((spec.termination_grace_s if spec else 0) or state.settings.termination_grace_s) * _UP


def stop_again(state: State, entry: SlotEntry, turn: Turn) -> None:
    """The same wish, over a new session."""
    node = state.nodes[entry.record.node]
    send_stop(state, node, entry.record.id, entry.record.attempt, _grace_ms(state, entry), entry.closing, turn)


def attempt_reported(state: State, node: NodeEntry, status: agent_pb2.AttemptStatus, turn: Turn) -> None:
    """What an agent says of one attempt. Closed is a certificate; an attempt that has no binding here is stopped."""
    entry = state.slot(status.slot)
    if entry and entry.bound and entry.record.node == node.name and entry.record.attempt == status.attempt:
        _adopt(state, entry, status, turn)
        return
    zombie = node.zombies.get(keys.zombie(state.root, node.name, status.slot, status.attempt))
    if status.phase != CLOSED:
        if status.phase != agent_pb2.ATTEMPT_PHASE_STOPPING:
            grace_ms = state.settings.termination_grace_s * _UP
            send_stop(state, node, status.slot, status.attempt, grace_ms, "no binding", turn)
    elif zombie and not zombie.busy:
        state.clears[zombie.key] = zombie


def _adopt(state: State, entry: SlotEntry, status: agent_pb2.AttemptStatus, turn: Turn) -> None:
    if entry.status and entry.status.phase == CLOSED:
        return  # for ever; what comes after is older
    was_up = entry.counted is not None and entry.counted.up
    entry.status = status
    state.retally(entry)
    if status.phase == CLOSED:
        if not entry.busy:
            state.releases[entry.key] = entry
    elif entry.outdated or (entry.task.rolling and entry.counted and bool(entry.counted.up) != bool(was_up)):
        roll(state, entry.task, turn)


def roll(state: State, task: TaskEntry, turn: Turn) -> None:
    """Stops outdated replicas: those that serve nobody at once, others while few enough of the task are down."""
    outdated = [e for _, e in sorted(task.entries.items()) if e.bound and e.wanted and e.outdated and not e.closing]
    task.rolling = bool(outdated)
    for entry in outdated:
        if entry.status and entry.counted and not entry.counted.up:
            stop(state, entry, "outdated", turn)
    allowed = max(1, task.replicas * state.settings.rolling_down_percent // 100)
    budget = allowed - (task.replicas - task.tally.up)
    for entry in [e for e in outdated if not e.closing and e.status][: max(0, budget)]:
        stop(state, entry, "outdated", turn)


# ---- RELEASE and REPLACE


def next_release(state: State, lane: int, turn: Turn) -> Release | None:
    """Slots whose certificate has come, as many as one transaction takes."""
    released: list[Released] = []
    while state.releases and len(released) < state.settings.release_batch_slots:
        entry = state.releases.pop(next(iter(state.releases)))
        if entry.bound and not entry.busy:
            released.append(Released(entry, _after(state, entry, turn.now_ms)))
    if not released:
        return None
    _mark(released, True)
    return transactions.release(state.root, lane, released, _credits(state, released))


def next_replace(state: State, lane: int) -> Release | None:
    """`keep` work of lost nodes, half as many: each leaves a zombie record too."""
    released: list[Released] = []
    nodes: dict[str, NodeEntry] = {}
    for name, node in list(state.lost.items()):
        movable = [e for e in node.slots.values() if not e.busy and moves_without_proof(e)]
        room = (transactions.COMPARES - 2 * len(released) - len(nodes) - 1) // 2
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
    run_class = entry.task.owner.share.spec.run_class
    return run_class in (objects_pb2.RUN_CLASS_UNSPECIFIED, objects_pb2.RUN_CLASS_KEEP)


def stops_itself_after_ms(state: State, entry: SlotEntry, fence_after_ms: int) -> int | None:
    """When an attempt has surely stopped, from the receipt of its node's last acknowledged heartbeat; None: never.
    An outdated attempt was started under a run class that is no longer known."""
    if moves_without_proof(entry) or entry.outdated:
        return None
    bounded_ms = entry.task.owner.share.spec.bounded_s * _UP
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
    reason = said.reason or STOPPED
    if entry.closing and reason != COMPLETED:
        return objects_pb2.Exit(code=said.code, reason=STOPPED, message=entry.closing, at_ms=said.at_ms or now_ms)
    return objects_pb2.Exit(code=said.code, reason=reason, message=said.message, at_ms=said.at_ms or now_ms)


def _final(state: State, entry: SlotEntry, exit_: objects_pb2.Exit) -> bool:
    """Whether a replica that ended by itself is not tried again."""
    spec = entry.task.spec
    mode = spec.restart.mode if spec else objects_pb2.RESTART_MODE_NEVER
    job = entry.task.owner.share.spec.type == objects_pb2.WORKLOAD_TYPE_JOB
    if exit_.reason == COMPLETED:
        return job or mode in (objects_pb2.RESTART_MODE_ON_FAILURE, objects_pb2.RESTART_MODE_NEVER)
    return mode == objects_pb2.RESTART_MODE_NEVER or (job and entry.record.tries + 1 >= state.settings.job_tries)


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
            node = state.nodes[zombie.record.node]
            if node.welcomed:
                grace_ms = state.settings.termination_grace_s * _UP
                send_stop(state, node, r.record.id, r.record.attempt, grace_ms, "replaced", turn)
        requeue(state, entry, turn.now_ms)
        if outdated:
            roll(state, entry.task, turn)


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
            assign = agent_pb2.RegionMessage(assign=assignment(state, r.entry))
            turn.do(SendToNode(node.session, assign))


def requeue(state: State, entry: SlotEntry, now_ms: int) -> None:
    """Puts a slot that has a record and no binding where it belongs: the queue, its back-off, or to be forgotten."""
    task, record = entry.task, entry.record
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
        return
    if not is_waiting(entry):
        return
    failed = record.state == WAITING and not entry.outdated and record.exit.reason not in ("", STOPPED, NODE_LOST)
    avoid = record.node if failed else ""
    if failed and record.not_before_ms > now_ms:
        state.queue.delay(task.cls, entry.index, record.not_before_ms, avoid)
    else:
        state.queue.put(task.cls, (entry.index,), now_ms, avoid)


def is_waiting(entry: SlotEntry) -> bool:
    """Whether a wanted slot with a record is to be bound: it waits, or it ended for another template or by our wish."""
    if entry.record.state == DONE:
        return entry.outdated or entry.record.exit.reason in (STOPPED, NODE_LOST)
    return entry.record.state == WAITING


# ---- CLEAR and FORGET


def next_clear(state: State, lane: int) -> Clear | None:
    zombies = [z for z in list(state.clears.values())[: transactions.COMPARES] if not z.busy]
    for z in zombies:
        z.busy = True
        del state.clears[z.key]
    return transactions.clear(lane, zombies) if zombies else None


def clear_committed(state: State, operation: Clear) -> None:
    for zombie in operation.zombies:
        state.drop_zombie(zombie)
        tenant = zombie.record.slot.tenant
        state.unsettled_slices[tenant] = state.account(tenant)


def clear_rejected(state: State, operation: Clear) -> None:
    for zombie in operation.zombies:
        zombie.busy = False
        state.clears[zombie.key] = zombie


def next_forget(state: State, lane: int) -> Forget | None:
    """Records nobody wants, of one workload; its own record goes with the last when it is removed."""
    while state.forgettable:
        key, workload = next(iter(state.forgettable.items()))
        del state.forgettable[key]
        if workload.busy:
            continue  # `look_again` follows when that is settled
        ended = [
            e
            for e in workload.entries()
            if not e.bound and not e.busy and not e.wanted and e.index not in e.task.in_flight
        ]
        batch = ended[: transactions.COMPARES - 1]
        whole = _ends(workload, len(batch))
        if len(batch) < len(ended):
            state.forgettable[key] = workload
        if batch or whole:
            for entry in batch:
                entry.busy = True
            workload.busy = True
            return transactions.forget(lane, workload, batch, whole)
    return None


def _ends(workload: WorkloadEntry, forgotten: int) -> bool:
    """Whether nothing is left of a removed workload once so many of its slots are forgotten."""
    slots = sum(len(task.entries) for task in workload.tasks.values())
    flying = any(task.in_flight for task in workload.tasks.values())
    return workload.share.removed and not workload.next_share and slots == forgotten and not flying


def forget_committed(state: State, operation: Forget) -> None:
    workload = operation.workload
    workload.busy = False
    for entry in operation.entries:
        state.drop_slot(entry)
    if operation.whole:
        workload.mod_revision = 0
        for task in workload.tasks.values():
            if task.cls:
                state.queue.drop(task.cls)
        if not workload.next_share:
            del state.workloads[workload.tenant, workload.name]
    state.mark_changed(workload)
    look_again(state, workload)


def forget_rejected(state: State, operation: Forget) -> None:
    operation.workload.busy = False
    for entry in operation.entries:
        entry.busy = False
    look_again(state, operation.workload)


def look_again(state: State, workload: WorkloadEntry) -> None:
    """After a transaction on a workload's record: what came meanwhile, and what is left to forget."""
    key = (workload.tenant, workload.name)
    if workload.next_share:
        state.unsettled_shares[key] = workload
    elif key in state.workloads:
        state.forgettable[key] = workload


def assignment(state: State, entry: SlotEntry) -> agent_pb2.Assign:
    """The command to run a bound slot. Without a task when its template is no longer the workload's: such an attempt
    may go on where it runs, but is started nowhere (I9)."""
    spec = entry.task.owner.share.spec
    return agent_pb2.Assign(
        token=state.token(entry.record.attempt),
        slot=entry.record.id,
        generation=entry.record.generation,
        task=None if entry.outdated else entry.task.spec,
        run_class=spec.run_class,
        bounded_s=spec.bounded_s,
        type=spec.type,
    )
