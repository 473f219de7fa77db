"""What this node will never run: the durable memory of tokens and closed attempts.

Decides: whether a command is obeyed (never one of a lower store life, epoch or term than any obeyed before), which
attempt of a slot is wanted, which are closed, and what must be on disk before an effect.

Invariants:
- `highest` and `closed` of a slot never go back; every attempt ≤ `closed` is refused for ever, and so is every attempt
  below `highest`: the newest attempt of a slot is the only one that may run.
- a record is forgotten only under the floor: attempts ≤ the floor are refused for slots without a record.
- nothing that rests on a record happens before `is_durable` says so. The disk may hold more than `durable` (a write
  that failed half-way): more marks only refuse more.

Leaves to others: what runs (slots.py), the disk (the shell, through WriteCheckpoint).
"""

from dataclasses import dataclass, replace

from agent.core.runs import LOWEST, Exit, Rank
from atoll.api.v1 import agent_pb2
from atoll.model.slots import FencingToken, SlotName

MOST_CERTIFICATES = 8  # kept for one slot
MOST_IDLE_RECORDS = 512  # slots without work, kept before the floor takes their place


@dataclass(frozen=True, slots=True, order=True)
class Authority:
    """Who commands: compared field by field."""

    store_life: int = 0
    epoch: int = 0
    term: int = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """An attempt that will never run again here. Told until the region shows that its end is committed."""

    rank: Rank
    generation: int
    exit: Exit
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """`assign` is the attempt wanted here, with rank `highest`; None = none."""

    slot: SlotName
    highest: Rank = LOWEST
    closed: Rank = LOWEST
    assign: agent_pb2.Assign | None = None
    certificates: tuple[Certificate, ...] = ()  # in order of rank

    @property
    def idle(self) -> bool:
        return self.assign is None and not self.certificates


@dataclass(frozen=True, slots=True)
class Saved:
    """All that must survive a crash of the agent."""

    authority: Authority = Authority()
    floor: Rank = LOWEST
    records: tuple[SlotRecord, ...] = ()


class Ledger:
    """The records, and which of them the disk holds."""

    def __init__(self, saved: Saved | None = None) -> None:
        saved = saved or Saved()
        self.authority = saved.authority
        self._floor = saved.floor
        self._records = {record.slot: record for record in saved.records}
        self._changed: dict[SlotName, int] = {}  # version of a record's last change; absent = durable
        self._version = 0
        self._durable = 0

    # ------------------------------------------------------------------ who is obeyed

    def obeys(self, authority: Authority) -> bool:
        """False for a stale commander. A newer one is remembered."""
        if authority < self.authority:
            return False
        if authority > self.authority:
            self.authority = authority
            self._version += 1
        return True

    def obeys_token(self, token: FencingToken) -> bool:
        return self.obeys(Authority(token.store_life, token.epoch, token.term))

    # ------------------------------------------------------------------ records

    def record(self, slot: SlotName) -> SlotRecord:
        return self._records.get(slot) or SlotRecord(slot, highest=self._floor, closed=self._floor)

    def slots(self) -> list[SlotName]:
        return list(self._records)

    def want(self, assign: agent_pb2.Assign, slot: SlotName, rank: Rank) -> None:
        """The newest attempt of its slot. The one wanted until now, if any, is closed."""
        record = self.record(slot)
        self._put(replace(record, highest=rank, closed=max(record.closed, record.highest), assign=assign))

    def close(self, slot: SlotName, rank: Rank) -> None:
        """Refuses every attempt ≤ `rank` from now on."""
        record = self.record(slot)
        if rank <= record.closed:
            return
        wanted = record.assign if rank < record.highest else None
        self._put(replace(record, highest=max(record.highest, rank), closed=rank, assign=wanted))

    def certify(self, slot: SlotName, certificate: Certificate) -> None:
        """`certificate.rank` is refused and nothing of it is alive. The first certificate of an attempt stands."""
        self.close(slot, certificate.rank)
        record = self.record(slot)
        if any(known.rank == certificate.rank for known in record.certificates):
            return
        certificates = sorted([*record.certificates, certificate], key=lambda c: c.rank)
        self._put(replace(record, certificates=tuple(certificates[-MOST_CERTIFICATES:])))

    def acknowledge(self, slot: SlotName, ranks: frozenset[Rank]) -> None:
        """Nobody needs the certificates of these any more. They stay refused."""
        record = self.record(slot)
        rest = tuple(c for c in record.certificates if c.rank not in ranks)
        if rest != record.certificates:
            self._put(replace(record, certificates=rest))

    def _put(self, record: SlotRecord) -> None:
        self._version += 1
        self._records.pop(record.slot, None)  # re-inserted last: the order of the dict is the order of last change
        self._records[record.slot] = record
        self._changed[record.slot] = self._version
        if record.idle and len(self._records) > MOST_IDLE_RECORDS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        idle = [record for record in self._records.values() if record.idle]
        for record in idle[: max(0, len(idle) - MOST_IDLE_RECORDS)]:
            self._floor = max(self._floor, record.highest)
            del self._records[record.slot]
            self._changed.pop(record.slot, None)

    # ------------------------------------------------------------------ the disk

    @property
    def version(self) -> int:
        return self._version

    @property
    def dirty(self) -> bool:
        return self._version > self._durable

    def is_durable(self, slot: SlotName) -> bool:
        return self._changed.get(slot, 0) <= self._durable

    def written(self, version: int) -> list[SlotName]:
        """The slots that became durable with `version`."""
        self._durable = max(self._durable, version)
        settled = [slot for slot, changed in self._changed.items() if changed <= self._durable]
        for slot in settled:
            del self._changed[slot]
        return settled

    def saved(self) -> Saved:
        return Saved(self.authority, self._floor, tuple(self._records.values()))
