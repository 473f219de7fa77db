"""The museum's fourth room: naive versions of gangs and of preemption. MUTANTS here are those of all rooms."""

from dataclasses import replace
from typing import Any

import pytest

from regional.core import gang_placing, gangs, making_room, making_way, reservations, takeover
from regional.core.state import State
from tests.simulation.job_mutants import MUTANTS as MUTANTS
from tests.simulation.mutants import mutant


@mutant("I12")
def a_gang_takes_what_room_there_is(patch: pytest.MonkeyPatch) -> None:
    """Members that fit are placed, the others come later."""
    place = gang_placing.place

    def some(state: State, gang: Any, members: Any, turn: Any) -> Any:
        refused = place(state, gang, members, turn)
        for task, indices in members if refused else ():
            for count in range(len(indices) - 1, 0, -1):
                if place(state, gang, [(task, indices[:count])], turn) is None:
                    return None
        return refused

    patch.setattr(gang_placing, "place", some)
    waiting = gang_placing.waiting
    patch.setattr(
        gang_placing,
        "waiting",
        lambda gang: [] if any(e.reserved for e in gang.owner.entries()) else waiting(gang),
    )


@mutant("I12", events=6_000)
def members_are_bound_as_they_are_reserved(patch: pytest.MonkeyPatch) -> None:
    """GANG-COMMIT is left out: each member is bound by itself."""

    def bind(lane: int, gang: Any, record: Any) -> Any:
        entries = [e for e in gang.owner.entries() if e.reserved]
        for entry in entries:
            entry.busy = True
        return reservations.bind_reserved(lane, gang, [(e, gangs.bound_record(e.record)) for e in entries])

    patch.setattr(reservations, "commit_gang", bind)


@mutant("I12", events=6_000, leader_crash_every_ms=1_500, slow_store=0.8, slow_disk=0.0)
def a_new_leader_sweeps_every_reservation(patch: pytest.MonkeyPatch) -> None:
    """It does not look whether the gang was committed, and neither does the transaction."""
    patch.setattr(takeover, "_READERS", {kind: read for kind, read in takeover._READERS.items() if kind != b"gang"})
    sweep = reservations.sweep

    def unseen(root: bytes, lane: int, gang: Any, *rest: Any) -> Any:
        operation = sweep(root, lane, gang, *rest)
        compares = tuple(c for c in operation.plan.compares if c.key != gang.key)
        return replace(operation, plan=operation.plan._replace(compares=compares))

    patch.setattr(reservations, "sweep", unseen)


@mutant("preemption", events=8_000)
def equals_are_stopped_too(patch: pytest.MonkeyPatch) -> None:
    may_stop = making_room.Asker.may_stop
    patch.setattr(making_room.Asker, "may_stop", lambda self, entry: may_stop(self._replace(band=self.band + 1), entry))


@mutant("capacity", events=8_000)
def a_preemptor_does_not_wait_for_its_victims(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(making_way, "pending", lambda state, entry: [])
