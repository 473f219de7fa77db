"""The life cycles of slots, nodes, regions and attempts, as tables of legal moves.

The diagrams in docs/lifecycles.md are printed from these tables (`python -m atoll.model.lifecycle`). A move that is not
in its table is a broken invariant. A self-move is written only where the record is really written again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.errors import InvariantBroken


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """`names[value]` for people, `moves[value]` the values that may follow. `start` is the state of what is absent."""

    title: str
    start: int
    names: Mapping[int, str]
    moves: Mapping[int, frozenset[int]]


def _lifecycle(
    title: str, start: int, prefix: str, names: Mapping[str, int], moves: Mapping[int, set[int]]
) -> Lifecycle:
    shown = {value: name.removeprefix(prefix).lower() for name, value in names.items() if value in moves}
    table = MappingProxyType({state: frozenset(following) for state, following in moves.items()})
    return Lifecycle(title, start, MappingProxyType(shown), table)


_W, _V, _B, _D = (
    objects_pb2.SLOT_STATE_WAITING,
    objects_pb2.SLOT_STATE_RESERVED,
    objects_pb2.SLOT_STATE_BOUND,
    objects_pb2.SLOT_STATE_DONE,
)
SLOT = _lifecycle(
    "Slot",
    _W,
    "SLOT_STATE_",
    dict(objects_pb2.SlotState.items()),
    {
        _W: {_V, _B},
        _V: {_B, _W},
        _B: {_W, _D},  # RELEASE by certificate; REPLACE puts a zombie for the old attempt
        _D: {_V, _B},  # a newer generation, or a task scaled up again, runs it anew
    },
)

_READY, _SUSPECT, _LOST = objects_pb2.NODE_STATE_READY, objects_pb2.NODE_STATE_SUSPECT, objects_pb2.NODE_STATE_LOST
NODE = _lifecycle(
    "Node",
    _READY,
    "NODE_STATE_",
    dict(objects_pb2.NodeState.items()),
    {_READY: {_READY, _SUSPECT, _LOST}, _SUSPECT: {_READY, _LOST}, _LOST: {_READY}},
)

REGION = _lifecycle(
    "Region",
    objects_pb2.REGION_STATE_ACTIVE,
    "REGION_STATE_",
    dict(objects_pb2.RegionState.items()),
    {
        objects_pb2.REGION_STATE_ACTIVE: {objects_pb2.REGION_STATE_SUSPECT},
        objects_pb2.REGION_STATE_SUSPECT: {objects_pb2.REGION_STATE_ACTIVE, objects_pb2.REGION_STATE_LOST},
        objects_pb2.REGION_STATE_LOST: {objects_pb2.REGION_STATE_ACTIVE, objects_pb2.REGION_STATE_FENCED},
        objects_pb2.REGION_STATE_FENCED: {objects_pb2.REGION_STATE_REJOINING},
        objects_pb2.REGION_STATE_REJOINING: {objects_pb2.REGION_STATE_ACTIVE, objects_pb2.REGION_STATE_SUSPECT},
    },
)

_ACCEPTED, _STARTING, _RUNNING, _BACKOFF, _STOPPING, _CLOSED = (
    agent_pb2.ATTEMPT_PHASE_ACCEPTED,
    agent_pb2.ATTEMPT_PHASE_STARTING,
    agent_pb2.ATTEMPT_PHASE_RUNNING,
    agent_pb2.ATTEMPT_PHASE_BACKOFF,
    agent_pb2.ATTEMPT_PHASE_STOPPING,
    agent_pb2.ATTEMPT_PHASE_CLOSED,
)
ATTEMPT = _lifecycle(
    "Attempt",
    _ACCEPTED,
    "ATTEMPT_PHASE_",
    dict(agent_pb2.AttemptPhase.items()),
    {
        _ACCEPTED: {_STARTING, _STOPPING, _CLOSED},
        _STARTING: {_RUNNING, _BACKOFF, _STOPPING, _CLOSED},
        _RUNNING: {_BACKOFF, _STOPPING, _CLOSED},
        _BACKOFF: {_STARTING, _STOPPING, _CLOSED},
        _STOPPING: {_CLOSED},
        _CLOSED: set(),  # for ever: the certificate
    },
)

ALL = (SLOT, NODE, REGION, ATTEMPT)


def step(lifecycle: Lifecycle, before: int, after: int) -> None:
    """Dies unless `after` may follow `before`."""
    if after not in lifecycle.moves.get(before, ()):  # the words only then: each slot of a transaction takes a step
        names = lifecycle.names.get(before, before), lifecycle.names.get(after, after)
        raise InvariantBroken(f"{lifecycle.title}: no move from {names[0]} to {names[1]}")


def diagram(lifecycle: Lifecycle) -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {lifecycle.names[lifecycle.start]}"]
    for state, following in lifecycle.moves.items():
        lines += [f"    {lifecycle.names[state]} --> {lifecycle.names[after]}" for after in sorted(following)]
        if not following:
            lines.append(f"    {lifecycle.names[state]} --> [*]")
    return "\n".join(lines)


def page() -> str:
    """The text of docs/lifecycles.md."""
    parts = ["# Life cycles", "Printed from the tables in `atoll/model/lifecycle.py`; do not edit."]
    parts += [f"## {lifecycle.title}\n```mermaid\n{diagram(lifecycle)}\n```" for lifecycle in ALL]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
