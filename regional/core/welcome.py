"""What a node is told first: Welcome, then one Sync with the whole truth for it.

What its hello proves is taken in before that, and nothing else is sent to a node until then. An agent stops by itself
what a Sync does not assign; the Sync names what it must certify besides, heard of or not, with the grace it has. So a
welcome is two messages, however much is to end.
"""

from atoll.api.v1 import agent_pb2
from atoll.model.slots import AttemptId, SlotName, attempt_id, slot_name
from regional.core import closing, liveness
from regional.core.commands import SendToNode
from regional.core.events import NodeHello
from regional.core.records import CLOSED, NodeEntry
from regional.core.state import State, Turn

_Attempts = set[tuple[SlotName, AttemptId]]


def welcome(state: State, node: NodeEntry, event: NodeHello, turn: Turn) -> None:
    node.hello = None
    for status in event.hello.inventory:
        closing.attempt_reported(state, node, status, turn)
    closed = {(slot_name(s.slot), attempt_id(s.attempt)) for s in event.hello.inventory if s.phase == CLOSED}
    held = {(slot_name(s.slot), attempt_id(s.attempt)) for s in event.hello.inventory} - closed
    for entry in list(node.slots.values()):
        if entry.outdated and (entry.name, entry.attempt) not in held | closed:
            closing.stop(state, entry, "outdated", turn)
    state.liveness.acknowledged_ms[node.row] = turn.now_ms  # not before: nothing fenced starts on less
    interval_ms = node.record.heartbeat_ms
    state.liveness.heartbeat_ms[node.row] = interval_ms
    state.liveness.fence_after_ms[node.row] = liveness.recorded_fence_ms(state.settings, node.record)
    message = agent_pb2.Welcome(
        store_life=state.authority.store_life,
        epoch=state.epoch,
        term=state.authority.term,
        heartbeat_ms=interval_ms,
        fence_after_ms=liveness.fence_ms(state.settings, interval_ms),
    )
    sync = agent_pb2.Sync(
        term=state.authority.term,
        assignments=_assignments(state, node, held, closed),
        stops=_stops(state, node, held, closed),
    )
    turn.do(SendToNode(node.session, agent_pb2.RegionMessage(welcome=message)))
    turn.do(SendToNode(node.session, agent_pb2.RegionMessage(sync=sync)))
    node.welcomed = True
    state.set_ready(node, True)


def _assignments(state: State, node: NodeEntry, held: _Attempts, closed: _Attempts) -> list[agent_pb2.Assign]:
    """Everything bound to the node and not ending. An outdated attempt is listed only where it already runs. One that
    the agent has closed is listed until it is released: it forgets the certificate of what a Sync leaves out."""
    found = []
    for entry in node.slots.values():
        known = (entry.name, entry.attempt)
        ending = entry.closing or entry.busy or entry.key in state.releases
        if known in closed or (not ending and (not entry.outdated or known in held)):
            found.append(closing.assignment(state, entry))
    return found


def _stops(state: State, node: NodeEntry, held: _Attempts, closed: _Attempts) -> list[agent_pb2.Stop]:
    """What is wanted to end and is not certified yet: attempts asked to stop, zombies, and what has no binding here."""
    found, bound = [], set()
    for entry in node.slots.values():
        bound.add((entry.name, entry.attempt))
        if entry.closing and (entry.name, entry.attempt) not in closed:
            found.append(closing.stop_of(state, entry))
    zombies = {(slot_name(z.record.slot), attempt_id(z.record.attempt)) for z in node.zombies.values()} - closed
    for reason, attempts in (("replaced", zombies), ("no binding", held - bound - zombies)):
        for slot, attempt in sorted(attempts):
            found.append(closing.stop_message(state, slot.to_proto(), attempt.to_proto(), reason))
    return found
