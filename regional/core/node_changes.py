"""What operators ask of a node: cordon, drain, labels, taints.

Each change is one guarded transaction on the node's record, which remembers the last requests by id: one asked again is
answered, never done twice. A BIND compares the same record, so nothing is bound to a node by a decision from before its
cordon. Wishes are absolute and live in the record: they outlast leaders, agents and their hellos. What becomes of the
work on the node is decided in draining.py.
"""

import hashlib
from collections.abc import Iterable
from typing import cast

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import Conflict, Mistake, NotFound, require
from atoll.model.costs import mistake_in_cost
from atoll.model.names import (
    mistake_in_label_key,
    mistake_in_label_value,
    mistake_in_name,
    mistake_in_request_id,
)
from regional.core import node_life, transactions, views
from regional.core.commands import Announce, Reply
from regional.core.events import NodeChangeAsked
from regional.core.records import NodeEntry
from regional.core.state import State, Turn
from regional.core.transactions import ChangeNode

SERVE, CORDON, DRAIN = regional_pb2.NODE_DUTY_SERVE, regional_pb2.NODE_DUTY_CORDON, regional_pb2.NODE_DUTY_DRAIN
LONGEST_DEADLINE_S = 30 * 86_400
_LONGEST_REASON = 256
_MOST_LABELS, _MOST_TAINTS, _MOST_CHANGES = 64, 32, 128
_REQUESTS = 16  # remembered by a record

Request = regional_pb2.UpdateNodeRequest | regional_pb2.RemoveNodeRequest


def mistakes(request: Request) -> list[Mistake]:
    """What is wrong with a request in itself."""
    found = [Mistake(path, mistake) for path, mistake in _named(request) if mistake]
    if len(request.reason) > _LONGEST_REASON:
        found.append(Mistake("reason", f"has {len(request.reason)} characters, at most {_LONGEST_REASON}"))
    if isinstance(request, regional_pb2.RemoveNodeRequest):
        if request.destroyed and not request.reason:
            found.append(Mistake("reason", "is missing: who vouches for a destroyed machine says why"))
        return found
    if request.duty == DRAIN and not request.reason:
        found.append(Mistake("reason", "is missing: a drain says what it is for"))
    if not 0 <= request.deadline_s <= LONGEST_DEADLINE_S:
        found.append(Mistake("deadline_s", f"must be 1 to {LONGEST_DEADLINE_S}, or 0 for the region's default"))
    lists = (request.set_labels, request.remove_labels, request.set_taints, request.remove_taints)
    if max(map(len, lists)) > _MOST_CHANGES:
        return [*found, Mistake("", f"more than {_MOST_CHANGES} changes at once")]
    return found + _mistakes_in_marks(request)


def _named(request: Request) -> Iterable[tuple[str, str | None]]:
    yield "name", mistake_in_name(request.name)
    yield "request_id", mistake_in_request_id(request.request_id)


def _mistakes_in_marks(request: regional_pb2.UpdateNodeRequest) -> list[Mistake]:
    found = []
    for i, label in enumerate(request.set_labels):
        mistake = mistake_in_label_key(label.key) or mistake_in_label_value(label.value)
        if mistake := mistake or mistake_in_cost(label.key, label.value):
            found.append(Mistake(f"set_labels[{i}]", mistake))
    for name, taints in (("set_taints", request.set_taints), ("remove_taints", request.remove_taints)):
        for i, taint in enumerate(taints):
            if mistake := mistake_in_label_key(taint.key) or mistake_in_label_value(taint.value):
                found.append(Mistake(f"{name}[{i}]", mistake))
            if taint.effect not in objects_pb2.TaintEffect.values() or (name == "set_taints" and not taint.effect):
                found.append(Mistake(f"{name}[{i}].effect", "is none of NoSchedule, PreferNoSchedule, NoExecute"))
    keys = [label.key for label in request.set_labels] + list(request.remove_labels)
    if len(set(keys)) < len(keys):
        found.append(Mistake("set_labels", "a key stands twice"))
    return found


def digest(request: Request) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def ask(state: State, event: NodeChangeAsked, *, first: bool = False) -> None:
    removes = isinstance(event.request, regional_pb2.RemoveNodeRequest)
    waiting = state.removals_asked if removes else state.node_changes
    waiting.insert(0 if first else len(waiting), event)


def next_change(state: State, lane: int, turn: Turn) -> ChangeNode | None:
    """The next change whose node has no other write under way; those that need no write are answered on the way."""
    for asked in list(state.node_changes):
        node = state.nodes.get(asked.request.name)
        if node and node.busy:
            continue
        state.node_changes.remove(asked)
        if node is None or not node.mod_revision:
            turn.do(Reply(asked.reply_to, 0, refusal=unknown_node(state, asked.request.name)))
        elif refusal := reused(asked.request, node.record.requests):
            turn.do(Reply(asked.reply_to, 0, refusal=refusal))
        elif was_answered(asked.request, node.record.requests):
            _answer(state, node, asked, node.mod_revision, turn)
        elif operation := _change(state, lane, node, asked, turn):
            return operation
    return None


def _change(state: State, lane: int, node: NodeEntry, asked: NodeChangeAsked, turn: Turn) -> ChangeNode | None:
    require(isinstance(asked.request, regional_pb2.UpdateNodeRequest), "a removal is asked of removal.py")
    record = _changed(state, node, cast("regional_pb2.UpdateNodeRequest", asked.request), turn.now_ms)
    if isinstance(record, Conflict):
        turn.do(Reply(asked.reply_to, 0, refusal=record))
        return None
    node.busy = True
    return transactions.change_node(lane, node, record, asked)


def unknown_node(state: State, name: str) -> NotFound:
    return NotFound(f"region {state.region} has no node {name}")


def was_answered(request: Request, answered: Iterable[objects_pb2.AnsweredRequest]) -> bool:
    return any(one.id == request.request_id and one.body_digest == digest(request) for one in answered)


def reused(request: Request, answered: Iterable[objects_pb2.AnsweredRequest]) -> Conflict | None:
    """The refusal of a request id that was used for something else."""
    if any(one.id == request.request_id and one.body_digest != digest(request) for one in answered):
        return Conflict("the request id was used for something else", request_id=request.request_id, code="E3003")
    return None


def noted(record: objects_pb2.Node, request: Request) -> None:
    """Remembers the request in the record it makes; the oldest are forgotten."""
    record.requests.add(id=request.request_id, body_digest=digest(request))
    del record.requests[:-_REQUESTS]


def _changed(
    state: State, node: NodeEntry, request: regional_pb2.UpdateNodeRequest, now_ms: int
) -> objects_pb2.Node | Conflict:
    record = objects_pb2.Node()
    record.CopyFrom(node.record)
    if request.duty:
        record.cordoned, record.draining = request.duty != SERVE, request.duty == DRAIN
        if request.duty == DRAIN:
            record.drain.reason = request.reason
            record.drain.since_ms = record.drain.since_ms or now_ms
            record.drain.deadline_ms = now_ms + (request.deadline_s or state.settings.drain_deadline_s) * 1_000
        else:
            record.ClearField("drain")
    _set_labels(record, request)
    _set_taints(record, request, now_ms)
    if len(record.operator_labels) > _MOST_LABELS or len(record.taints) > _MOST_TAINTS:
        return Conflict(f"a node has at most {_MOST_LABELS} labels of operators and {_MOST_TAINTS} taints")
    noted(record, request)
    return record


def _set_labels(record: objects_pb2.Node, request: regional_pb2.UpdateNodeRequest) -> None:
    mine = {label.key: label.value for label in record.operator_labels}
    for key in request.remove_labels:
        mine.pop(key, None)
    mine.update({label.key: label.value for label in request.set_labels})
    del record.operator_labels[:]
    record.operator_labels.extend(objects_pb2.Label(key=k, value=v) for k, v in sorted(mine.items()))
    node_life.merge_labels(record)


def _set_taints(record: objects_pb2.Node, request: regional_pb2.UpdateNodeRequest, now_ms: int) -> None:
    """A taint set again as it is keeps its time."""
    removed = {(t.key, t.effect) for t in request.remove_taints}
    kept = {(t.key, t.effect): t for t in record.taints}
    kept = {name: t for name, t in kept.items() if name not in removed and (name[0], 0) not in removed}
    for taint in request.set_taints:
        before = kept.get((taint.key, taint.effect))
        since_ms = before.since_ms if before and before.value == taint.value else now_ms
        kept[taint.key, taint.effect] = objects_pb2.Taint(
            key=taint.key, value=taint.value, effect=taint.effect, since_ms=since_ms
        )
    taints = [kept[name] for name in sorted(kept)]
    del record.taints[:]
    record.taints.extend(taints)


def change_committed(state: State, operation: ChangeNode, revision: int, turn: Turn) -> None:
    node, request = operation.node, operation.asked.request
    node.busy, node.next_record = False, None  # what was to be written came from the record before: found anew
    state.put_node(node, operation.record, revision)
    _announce(state, request, turn)
    _answer(state, node, operation.asked, revision, turn)
    node_life.consider(state, node, turn)


def change_rejected(state: State, operation: ChangeNode, turn: Turn) -> None:
    """Certainly not written: tried again on the record as it is."""
    operation.node.busy = False
    ask(state, operation.asked, first=True)
    node_life.consider(state, operation.node, turn)


def _answer(state: State, node: NodeEntry, asked: NodeChangeAsked, revision: int, turn: Turn) -> None:
    answer: regional_pb2.UpdateNodeResponse | regional_pb2.RemoveNodeResponse
    if isinstance(asked.request, regional_pb2.UpdateNodeRequest):
        shown = views.show_node(state, node, turn.now_ms)
        answer = regional_pb2.UpdateNodeResponse(node=shown, revision=revision)
    else:
        answer = regional_pb2.RemoveNodeResponse(revision=revision)
    turn.do(Reply(asked.reply_to, revision, answer=answer))


def _announce(state: State, request: Request, turn: Turn) -> None:
    """One event for each kind of change."""
    kinds: list[tuple[str, str]] = []
    if isinstance(request, regional_pb2.RemoveNodeRequest):
        kinds.append(("NodeDestroyed", request.reason))
    else:
        words = {SERVE: "NodeServing", CORDON: "NodeCordoned", DRAIN: "NodeDraining"}
        if request.duty in words:
            kinds.append((words[request.duty], request.reason))
        if request.set_labels or request.remove_labels:
            said = [f"{label.key}={label.value}" for label in request.set_labels]
            kinds.append(("NodeLabeled", ", ".join(said + [f"{key}-" for key in request.remove_labels])))
        if request.set_taints or request.remove_taints:
            said = [f"{t.key}={t.value}" for t in request.set_taints] + [f"{t.key}-" for t in request.remove_taints]
            kinds.append(("NodeTainted", ", ".join(said)))
    for kind, message in kinds:
        turn.do(Announce(node_life.event(state, request.name, kind, message, turn)))
