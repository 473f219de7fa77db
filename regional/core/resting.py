"""Nodes that get no new work for a while, because what was tried with them keeps failing.

A node rests after three failed starts in a row, of two workloads at least: one broken workload never takes nodes out of
use. It rests as well when three plans were refused because its record was not as known. Rests double while starts go
on failing, and end with the first start that succeeds. At most a fifth of the nodes rest, and never the last that takes
work. Memory only: a new leader tries again.
"""

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.pauses import doubled_ms
from regional.core.commands import Announce
from regional.core.records import CLOSED, NodeEntry, SlotEntry
from regional.core.state import State, Turn

RUNNING = agent_pb2.ATTEMPT_PHASE_RUNNING
START_FAILED = "StartFailed"
_OF_NODES = 5  # one in so many may rest


def reported(
    state: State, node: NodeEntry, entry: SlotEntry, before: agent_pb2.AttemptStatus | None, turn: Turn
) -> None:
    """An attempt's status is another one than before."""
    status = entry.status
    if status is None or (before is not None and before.phase == status.phase):
        return
    if status.phase == RUNNING:
        node.failed_starts.clear()
        node.rests = 0
    elif status.phase == CLOSED and status.exit.reason == START_FAILED and not entry.closing:
        node.failed_starts.append(entry.name.workload)
        settings = state.settings
        if len(node.failed_starts) >= settings.rest_after and len(set(node.failed_starts)) > 1:
            node.rests += 1
            _rest(
                state, node, doubled_ms(settings.rest_first_ms, settings.rest_longest_ms, node.rests, node.name), turn
            )


def missed(state: State, node: NodeEntry, turn: Turn) -> None:
    """A plan was refused because the node's record was not the one known."""
    node.misses += 1
    if node.misses >= state.settings.rest_after:
        _rest(state, node, state.settings.rest_first_ms, turn)


def _rest(state: State, node: NodeEntry, for_ms: int, turn: Turn) -> None:
    table = state.table
    node.failed_starts.clear()
    node.misses = 0
    takes = table.present & table.ready & ~table.cordoned & ~table.resting & ~table.unfit
    others = int(takes.sum()) - int(takes[node.row])
    if not others or len(state.resting) >= max(1, len(state.nodes) // _OF_NODES):
        return
    state.resting[node.name] = turn.now_ms + for_ms
    table.set_resting(node.row, True)
    state.nodes_changed = True  # its domain may no longer count for topology spread
    told = objects_pb2.Event(
        at_ms=turn.now_ms,
        type="NodeResting",
        object=f"node/{node.name}",
        message=f"no new work for {for_ms // 1_000} s",
        region=state.region,
    )
    turn.do(Announce(told))


def check(state: State, turn: Turn) -> None:
    for name, until_ms in list(state.resting.items()):
        if turn.now_ms >= until_ms:
            del state.resting[name]
            state.table.set_resting(state.nodes[name].row, False)
            state.nodes_changed = True
