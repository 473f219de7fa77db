"""The tables of legal moves, and the page that is printed from them."""

from pathlib import Path

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.errors import InvariantBroken
from atoll.model import lifecycle
from atoll.model.lifecycle import ALL, ATTEMPT, NODE, SLOT, step

PAGE = Path(__file__).resolve().parents[4] / "docs" / "lifecycles.md"


def test_the_page_is_printed_from_the_tables() -> None:
    assert PAGE.read_text() == lifecycle.page(), "run: python -m atoll.model.lifecycle > docs/lifecycles.md"


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.title)
def test_every_state_can_be_reached_and_moves_stay_inside(one: lifecycle.Lifecycle) -> None:
    reached, todo = {one.start}, [one.start]
    while todo:
        for after in one.moves[todo.pop()] - reached:
            reached.add(after)
            todo.append(after)
    assert reached == set(one.moves) == set(one.names)


@pytest.mark.parametrize(
    ("one", "enum"),
    [
        (SLOT, objects_pb2.SlotState),
        (NODE, objects_pb2.NodeState),
        (lifecycle.REGION, objects_pb2.RegionState),
        (ATTEMPT, agent_pb2.AttemptPhase),
    ],
)
def test_every_value_of_the_message_is_in_its_table(one: lifecycle.Lifecycle, enum: object) -> None:
    assert set(one.moves) == set(enum.values()) - {0}  # type: ignore[attr-defined]


def test_a_closed_attempt_never_moves_again() -> None:
    assert not ATTEMPT.moves[agent_pb2.ATTEMPT_PHASE_CLOSED]
    with pytest.raises(InvariantBroken, match="no move from closed to running"):
        step(ATTEMPT, agent_pb2.ATTEMPT_PHASE_CLOSED, agent_pb2.ATTEMPT_PHASE_RUNNING)


def test_a_bound_slot_is_never_reserved_and_a_lost_node_never_suspect() -> None:
    step(SLOT, objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_WAITING)
    with pytest.raises(InvariantBroken):
        step(SLOT, objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_RESERVED)
    with pytest.raises(InvariantBroken):
        step(NODE, objects_pb2.NODE_STATE_LOST, objects_pb2.NODE_STATE_SUSPECT)
