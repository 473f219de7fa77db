"""Which attempts are asked to stop, and what agents say of theirs.

A wish to stop is remembered until the certificate comes: the agent's CLOSED for exactly this attempt. An attempt
without a binding is stopped wherever it shows. During an update outdated replicas are stopped within the rolling limit;
what becomes of a slot whose attempt has ended is decided in releasing.py.
"""

from collections.abc import Iterable, Iterator

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.store import keys
from regional.core import resting
from regional.core.commands import SendToNode
from regional.core.records import CLOSED, COMPLETED, NodeEntry, SlotEntry, TaskEntry
from regional.core.state import State, Turn
from regional.core.tally import UP

_S_IN_MS = 1_000


def stop(state: State, entry: SlotEntry, reason: str, turn: Turn) -> None:
    """Asks the agent to close a bound attempt; asked again whenever its node says hello."""
    if not entry.bound or entry.closing:
        return
    entry.closing = reason
    state.retally(entry)
    send_stop(state, state.nodes[entry.record.node], stop_of(state, entry), turn)


def stop_of(state: State, entry: SlotEntry) -> agent_pb2.Stop:
    grace_s = entry.grace_s or (entry.task.spec.termination_grace_s if entry.task.spec else 0)
    return stop_message(state, entry.record.id, entry.record.attempt, entry.closing, grace_s)


def stop_message(
    state: State, slot: objects_pb2.SlotId, attempt: objects_pb2.Attempt, reason: str, grace_s: int = 0
) -> agent_pb2.Stop:
    grace_ms = (grace_s or state.settings.termination_grace_s) * _S_IN_MS
    return agent_pb2.Stop(token=state.token(attempt), slot=slot, grace_ms=grace_ms, reason=reason)


def send_stop(state: State, node: NodeEntry, stop: agent_pb2.Stop, turn: Turn) -> None:
    """At once to a node with a session; any other has it in its next Sync."""
    if node.welcomed:
        turn.do(SendToNode(node.session, agent_pb2.RegionMessage(stop=stop)))


def settled(state: State, ended: Iterable[tuple[str, objects_pb2.SlotId, objects_pb2.Attempt]], turn: Turn) -> None:
    """Tells nodes that the end of these attempts is committed: their certificates may be forgotten. A node without a
    session learns it from its next Sync, which lists them no more."""
    messages: dict[str, agent_pb2.RegionMessage] = {}
    for name, slot, attempt in ended:
        attempts = (messages.get(name) or messages.setdefault(name, agent_pb2.RegionMessage())).settled.attempts
        one = attempts.add()
        state.fill_token(one.token, attempt)
        one.slot.CopyFrom(slot)
    for name, message in messages.items():
        node = state.nodes[name]
        if node.welcomed:
            turn.do(SendToNode(node.session, message))


def attempt_reported(state: State, node: NodeEntry, status: agent_pb2.AttemptStatus, turn: Turn) -> bool:
    """What an agent says of one attempt. Closed is a certificate; an attempt that has no binding here is stopped.
    False: a certificate that nothing waits for."""
    entry = state.slot(status.slot)
    if entry and entry.bound and entry.record.node == node.name and entry.record.attempt == status.attempt:
        _adopt(state, entry, status, turn)
        return True
    zombie = node.zombies.get(keys.zombie(state.root, node.name, status.slot, status.attempt))
    if status.phase != CLOSED:
        if status.phase != agent_pb2.ATTEMPT_PHASE_STOPPING:
            send_stop(state, node, stop_message(state, status.slot, status.attempt, "no binding"), turn)
    elif zombie is None:
        return False
    elif not zombie.busy:
        state.clears[zombie.key] = zombie
    return True


def _adopt(state: State, entry: SlotEntry, status: agent_pb2.AttemptStatus, turn: Turn) -> None:
    if entry.status and entry.status.phase == CLOSED:
        return  # for ever; what comes after is older
    was_up, before = entry.marks & UP, entry.status
    entry.status = status
    state.retally(entry)
    resting.reported(state, state.nodes[entry.record.node], entry, before, turn)
    if status.phase == CLOSED:
        if status.exit.reason == COMPLETED and before and before.started_ms:  # a certificate does not say when it began
            ended_ms = status.exit.at_ms or turn.now_ms
            entry.task.took_ms.append(max(0, ended_ms - before.started_ms))
        if not entry.busy:
            state.releases[entry.key] = entry
    elif entry.outdated or (entry.task.rolling and entry.marks & UP != was_up):
        roll(state, entry.task, turn)


def look_again(state: State, entry: SlotEntry) -> bool:
    """A transaction on the slot is settled, and it is bound still. Whether its certificate has come meanwhile, or its
    node was lost: nobody says so twice."""
    node = state.nodes[entry.record.node]
    if entry.status and entry.status.phase == CLOSED:
        state.releases[entry.key] = entry
        return True
    if node.record.state == objects_pb2.NODE_STATE_LOST:
        state.lost[node.name] = node
        return True
    return False


def roll(state: State, task: TaskEntry, turn: Turn) -> None:
    """Stops outdated replicas: those that serve nobody at once, others while few enough of the task are down. What is
    ready and not for long yet serves somebody, and is not counted on."""
    outdated = [e for _, e in sorted(task.entries.items()) if e.bound and e.wanted and e.outdated and not e.closing]
    task.rolling = bool(outdated)
    for entry in outdated:
        if entry.status and not entry.status.ready and not entry.marks & UP:
            stop(state, entry, "outdated", turn)
    allowed = max(1, task.replicas * state.settings.rolling_down_percent // 100)
    budget = allowed - (task.replicas - task.tally.up)
    for entry in [e for e in outdated if not e.closing and e.status][: max(0, budget)]:
        stop(state, entry, "outdated", turn)


def assignment(state: State, entry: SlotEntry) -> agent_pb2.Assign:
    """The command to run a bound slot. Without a task when its template is no longer the workload's: such an attempt
    may go on where it runs, but is started nowhere (I9)."""
    assign = agent_pb2.Assign()
    _fill_assignment(state, entry, assign)
    return assign


def assign_message(state: State, entry: SlotEntry) -> agent_pb2.RegionMessage:
    message = agent_pb2.RegionMessage()
    _fill_assignment(state, entry, message.assign)
    return message


def assign_messages(
    state: State, started: Iterable[tuple[int, SlotEntry]]
) -> Iterator[tuple[int, agent_pb2.RegionMessage]]:
    """The commands for slots bound by one transaction, by session: one message for all of a task on a node. What the
    messages of a task have in common is put together once."""
    messages: dict[tuple[int, TaskEntry, int], agent_pb2.RegionMessage] = {}
    common: dict[tuple[TaskEntry, int], agent_pb2.Assign] = {}
    for session, entry in started:
        generation = entry.record.generation
        message = messages.get((session, entry.task, generation))
        if message is None:
            message = messages[session, entry.task, generation] = agent_pb2.RegionMessage()
            alike = common.get((entry.task, generation))
            if alike is None:
                alike = common[entry.task, generation] = assignment(state, entry)
            assign = message.assign
            assign.CopyFrom(alike)
            assign.slot.index = entry.index
            assign.token.attempt.CopyFrom(entry.record.attempt)
            if entry.vector.gpu_milli:
                assign.gpus[:] = entry.record.gpus
            continue
        one = message.assign.also.add()
        one.index = entry.index
        one.attempt.CopyFrom(entry.record.attempt)
        if entry.vector.gpu_milli:
            one.gpus.extend(entry.record.gpus)
    return ((session, message) for (session, _, _), message in messages.items())


def _fill_assignment(state: State, entry: SlotEntry, assign: agent_pb2.Assign) -> None:
    record, task = entry.record, entry.task
    state.fill_token(assign.token, record.attempt)
    assign.slot.CopyFrom(record.id)
    assign.generation, assign.run_class, assign.bounded_s = record.generation, record.run_class, record.bounded_s
    if task.spec and not entry.outdated:
        assign.task.CopyFrom(task.spec)
    assign.type = task.owner.share.spec.type
    assign.gpus.extend(record.gpus)
