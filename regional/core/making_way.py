"""The victims of a reservation: named in it, asked to go when it is surely wanted, and gone.

The record of the reserved slot is the one place that says who is stopped for whom; a leader that takes over goes by it.
Until they are asked, nobody else counts on their room (`state.victims`), and while the RESERVE that names them is under
way they are not released. Whom to name: making_room.py.
"""

from collections import Counter
from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.store import keys
from regional.core import closing
from regional.core.announcing import announce
from regional.core.records import SlotEntry
from regional.core.state import State, Turn

_S_IN_MS = 1_000


def name(state: State, record: objects_pb2.Slot, victims: Iterable[SlotEntry]) -> None:
    """Into a record that is about to be reserved."""
    for entry in victims:
        entry.busy = True
        state.victims[entry.key] = entry
        record.reservation.victims.add(slot=entry.record.id, attempt=entry.record.attempt)


def of(state: State, record: objects_pb2.Slot) -> list[SlotEntry]:
    """Those that are remembered, whatever has become of them."""
    return [entry for victim in record.reservation.victims if (entry := state.slot(victim.slot))]


def settled(state: State, record: objects_pb2.Slot) -> None:
    """The RESERVE is: its victims may be released, by what has come in meanwhile or later."""
    for entry in of(state, record):
        entry.busy = False
        if entry.bound:
            closing.look_again(state, entry)


def forget(state: State, record: objects_pb2.Slot) -> None:
    """They are asked, or not wanted any more."""
    for victim in record.reservation.victims:
        state.victims.pop(keys.slot(state.root, victim.slot), None)


def pending(state: State, entry: SlotEntry) -> list[SlotEntry]:
    """The victims of a reserved slot that still hold their room."""
    found = ((state.slot(victim.slot), victim.attempt) for victim in entry.record.reservation.victims)
    return [e for e, attempt in found if e and e.bound and e.record.attempt == attempt]


def ask(state: State, entry: SlotEntry, turn: Turn) -> list[SlotEntry]:
    """Those that still hold their room are asked to close, with the grace of their class; once each."""
    forget(state, entry.record)
    left, owner = pending(state, entry), entry.task.owner
    for victim in left:
        if not victim.closing:
            victim.grace_s = _grace_s(state, victim)
            why = f"preempted by {owner.tenant}/{owner.name}/{entry.task.name}/{entry.index}"
            closing.stop(state, victim, why, turn)
            of_ = victim.task.owner
            text = f"{victim.task.name}/{victim.index} on {victim.record.node}, by {owner.tenant}/{owner.name}"
            announce(turn, state, of_.tenant, of_.name, "Preempted", text)
    return left


def deadline_ms(state: State, victims: Iterable[SlotEntry], now_ms: int) -> int:
    """Until when they have surely gone, if all is well."""
    grace_ms = max((_grace_s(state, entry) for entry in victims), default=0) * _S_IN_MS
    return now_ms + grace_ms + state.settings.preemption_wait_ms


def _grace_s(state: State, entry: SlotEntry) -> int:
    """How long a victim has between the word and the kill."""
    spec = entry.task.owner.share.spec
    of_class = state.settings.preemption_grace_s[(spec.priority or objects_pb2.PRIORITY_DEFAULT) - 1]
    own = entry.task.spec.termination_grace_s if entry.task.spec else 0
    return max(of_class, own)


def told(victims: Iterable[SlotEntry]) -> str:
    """For people: how many of which workload."""
    counts = Counter(f"{e.task.owner.tenant}/{e.task.owner.name}" for e in victims)
    return ", ".join(f"{explain.counted(count, 'replica')} of {owner}" for owner, count in sorted(counts.items()))
