"""Nodes that go: removed by an operator, or lost for so long that nobody waits for them any more.

A node goes in one transaction that deletes its record and puts `removed/<n>`: from its commit on its certificates are
refused, until the last of them has expired. Only a node that holds nothing goes, and only one that gets nothing
(cordoned, draining or LOST as committed): every BIND compares its record, so none from before can still apply. What may
still run on a lost machine is cleared by its certificate, or when an operator vouches that the machine is destroyed.
Keeps I7.
"""

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import AtollError, Conflict
from atoll.model import explain
from regional.core import draining, node_changes, node_life, relocation, resting, transactions
from regional.core.commands import Announce, CloseSession, Reply
from regional.core.events import NodeChangeAsked
from regional.core.records import NodeEntry
from regional.core.state import State, Turn
from regional.core.transactions import ChangeNode, RemoveNode

LOST = objects_pb2.NODE_STATE_LOST
_S_IN_MS = 1_000


def check(state: State, turn: Turn) -> None:
    """Work leaves first; then what goes by itself is noted: destroyed machines once they are empty, and nodes lost
    long ago. Removals whose certificates have expired are forgotten with the next one that is written."""
    relocation.check(state, turn)
    resting.check(state, turn)
    for node in state.nodes.values():
        record = node.record
        if record.state != LOST:
            continue
        if record.destroyed:
            state.clears.update((key, zombie) for key, zombie in node.zombies.items() if not zombie.busy)
        long_ago = turn.now_ms - record.state_since_ms > state.settings.forget_lost_after_s * _S_IN_MS
        if (record.destroyed or long_ago) and node.name not in state.going and draining.is_empty(state, node):
            state.going[node.name] = None


def next_removal(state: State, lane: int, turn: Turn) -> RemoveNode | ChangeNode | None:
    """What an operator asked for first, then what goes by itself."""
    for asked in list(state.removals_asked):
        node = state.nodes.get(asked.request.name)
        if node and node.busy:
            continue
        state.removals_asked.remove(asked)
        operation = _asked(state, lane, node, asked, turn)
        if operation:
            return operation
    while state.going:
        node = state.nodes.get(name := next(iter(state.going)))
        del state.going[name]
        if node and not node.busy and _hindrance(state, node) is None:
            said = "destroyed" if node.record.destroyed else "lost long ago"
            return _remove(state, lane, node, None, said, turn)
    return None


def _asked(
    state: State, lane: int, node: NodeEntry | None, asked: NodeChangeAsked, turn: Turn
) -> RemoveNode | ChangeNode | None:
    request = asked.request
    assert isinstance(request, regional_pb2.RemoveNodeRequest)
    gone = state.removed.get(request.name)
    answered = [gone[0].request] if gone else []
    refusal: AtollError | None = None
    if node_changes.was_answered(request, answered):
        turn.do(Reply(asked.reply_to, 0, answer=regional_pb2.RemoveNodeResponse(gone=True)))
        return None
    if node is None or not node.mod_revision:
        refusal = node_changes.unknown_node(state, request.name)
    elif found := node_changes.reused(request, (*answered, *node.record.requests)):
        refusal = found
    elif node_changes.was_answered(request, node.record.requests):
        turn.do(Reply(asked.reply_to, node.mod_revision, answer=regional_pb2.RemoveNodeResponse()))
        return None
    elif (hindrance := _hindrance(state, node)) is None:
        return _remove(state, lane, node, asked, request.reason, turn)
    elif request.destroyed and node.record.state == LOST:
        record = objects_pb2.Node()
        record.CopyFrom(node.record)
        record.destroyed = True
        node_changes.noted(record, request)
        node.busy = True
        return transactions.change_node(lane, node, record, asked)
    else:
        refusal = hindrance
    turn.do(Reply(asked.reply_to, 0, refusal=refusal))
    return None


def _hindrance(state: State, node: NodeEntry) -> Conflict | None:
    """Why a node cannot go now."""
    record = node.record
    if record.state != LOST and not record.cordoned:
        return Conflict(f"node {node.name} may get work", hint=f"atoll node drain {node.name} --reason TEXT")
    if node.slots:
        hint = "wait, its work is being moved" if record.draining else f"atoll node drain {node.name} --reason TEXT"
        return Conflict(f"node {node.name} has {explain.counted(len(node.slots), 'replica')}", hint=hint)
    if node.zombies:
        hint = "wait until it is back; or, if the machine is gone for good, vouch for it with --destroyed"
        return Conflict(f"{explain.counted(len(node.zombies), 'replica')} may still run on node {node.name}", hint=hint)
    if not draining.is_empty(state, node):
        return Conflict(f"a replica is being bound to node {node.name}", hint="ask again")
    return None


def _remove(
    state: State, lane: int, node: NodeEntry, asked: NodeChangeAsked | None, reason: str, turn: Turn
) -> RemoveNode:
    record = objects_pb2.RemovedNode(
        name=node.name,
        at_ms=turn.now_ms,
        until_ms=turn.now_ms + state.settings.node_certificate_s * _S_IN_MS,
        reason=reason,
    )
    if asked:
        record.request.id = asked.request.request_id
        record.request.body_digest = node_changes.digest(asked.request)
    expired = [(name, mod) for name, (gone, mod) in state.removed.items() if gone.until_ms < turn.now_ms]
    expired = [one for one in expired if one[0] != node.name][: transactions.COMPARES - 2]
    node.busy = True
    return transactions.remove_node(state.root, lane, node, record, expired, asked)


def removal_committed(state: State, operation: RemoveNode, revision: int, turn: Turn) -> None:
    node, record = operation.node, operation.record
    if node.session:
        turn.do(CloseSession(node.session, "the node was removed"))
    state.drop_node(node)
    for name in operation.expired:
        del state.removed[name]
    state.removed[node.name] = (record, revision)
    turn.do(Announce(node_life.event(state, node.name, "NodeRemoved", record.reason, turn)))
    if operation.asked:
        answer = regional_pb2.RemoveNodeResponse(revision=revision, gone=True)
        turn.do(Reply(operation.asked.reply_to, revision, answer=answer))


def removal_rejected(state: State, operation: RemoveNode, turn: Turn) -> None:
    """Certainly not written: what was asked is tried again, what goes by itself is noted by the next check."""
    operation.node.busy = False
    if operation.asked:
        node_changes.ask(state, operation.asked, first=True)
    node_life.consider(state, operation.node, turn)
