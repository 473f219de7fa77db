"""The region's side of its scheduler workers: evaluates several classes at once, and goes on whatever befalls a worker.

In a round the node table's columns are copied into memory that all share, and what is known of each class beside them;
the classes are dealt to the deques of the region and its workers, and everybody takes until nothing is left. The region
waits no longer for what a worker has claimed than it would take itself; then it does that itself, from its own table,
and there is no further round until the worker has answered or is dead. One that stays silent is killed, and what has
died is replaced, after a pause that grows. So a worker costs at most the time of one class, and never an answer: what
it writes late is read by nobody.

Invariants: memory is written only while no worker has a claim; what is adopted was evaluated in this round, from the
table as it stands. Decides nothing: answers are the same to the last bit without it.
"""

import asyncio
import select
import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge

from regional.core import mirror
from regional.core.ahead import MOST_CLASSES
from regional.core.class_rows import Due
from regional.core.mirror import Job, Known
from regional.core.node_table import NodeTable
from regional.core.scores import counts_copies
from regional.workers import arena, rounds
from regional.workers.arena import Column, Layout
from regional.workers.deques import Deques, Stuck, shares
from regional.workers.member import Member

EVALUATED = Counter("atoll_region_classes_ahead", "Scheduling classes evaluated ahead of their turn, by whom.", ["by"])
STOLEN = Counter("atoll_region_classes_stolen", "Those of them that were taken from the tail of another's deque.")
WORKERS = Gauge("atoll_region_workers", "Scheduler workers that take part.")
REPLACED = Counter("atoll_region_workers_lost", "Scheduler workers that died or fell silent, and were replaced.")

OWN = 0  # the region's place
_SEND_WITHIN_S = _LOCK_WITHIN_S = 0.2
_LEAST_WAIT_S = 0.002
_TEND_S = 0.25
_REST_FIRST_S, _REST_LONGEST_S = 0.25, 60.0

log = structlog.get_logger()


class Crew:
    """`places`: processes, the region among them. `silence_s`: then a worker that owes something is killed."""

    def __init__(self, places: int, silence_s: float) -> None:
        self._places = places
        self._silence_s = silence_s
        self._members: list[Member] = []
        self._memory, self._locks = arena.made(), arena.made()
        self._layout: Layout = {}
        self._arrays: dict[str, Column] = {}
        self._described: tuple[NodeTable | None, int] = (None, -1)  # the table that memory shows, and its version
        self._round = 0
        self._rest_s, self._next_start_s = _REST_FIRST_S, 0.0

    # ---- the workers' lives

    async def run(self) -> None:
        """Keeps them alive until cancelled."""
        try:
            while True:
                self.tend()
                await asyncio.sleep(_TEND_S)
        finally:
            self.close()

    def tend(self) -> None:
        """Kills who is silent, forgets who is dead, starts who is missing."""
        now_s = time.monotonic()
        for member in self._members:
            member.said()
            if member.silent_since_s and now_s - member.silent_since_s > self._silence_s:
                member.strike("it does not answer")
        for member in [one for one in self._members if one.struck and one.dead]:
            self._bury(member, now_s)
        for place in sorted({*range(1, self._places)} - {member.place for member in self._members}):
            if now_s >= self._next_start_s:
                self._start(place, now_s)
        WORKERS.set(len(self._at_hand()))

    def _start(self, place: int, now_s: float) -> None:
        try:
            self._members.append(Member(place, self._memory, self._locks))
        except OSError as error:
            log.warning("a scheduler worker cannot be started", reason=str(error))
            self._rest(now_s)

    def _bury(self, member: Member, now_s: float) -> None:
        log.warning("a scheduler worker is replaced", pid=member.pid, reason=member.struck)
        REPLACED.inc()
        self._members.remove(member)
        member.close()
        if now_s - member.started_s > _REST_LONGEST_S:
            self._rest_s = _REST_FIRST_S
        self._rest(now_s)

    def _rest(self, now_s: float) -> None:
        """Before another one is started."""
        self._next_start_s, self._rest_s = now_s + self._rest_s, min(2 * self._rest_s, _REST_LONGEST_S)

    def close(self) -> None:
        for member in self._members:
            member.close()
        self._members.clear()

    @property
    def pids(self) -> list[int]:
        """Of the workers that take part."""
        return [member.pid for member in self._at_hand()]

    # ---- evaluation

    def processes(self) -> int:
        return 1 + len(self._at_hand())

    def evaluate(self, due: Sequence[Due]) -> None:
        if len(due) > 1 and (members := self._at_hand()):
            self._play(due[:MOST_CLASSES], members)
        for row, copies in due:
            row.refresh(copies)  # what the round has not brought up to date

    def _at_hand(self) -> list[Member]:
        """Those that may take part in a round; none while anybody may still write."""
        for member in self._members:
            member.said()
        if any(member.owes for member in self._members):
            return []
        return [member for member in self._members if member.ready and not member.struck]

    def _play(self, due: Sequence[Due], members: Sequence[Member]) -> None:
        table = due[0].row.table
        self._show(table)
        jobs = rounds.packed_jobs(self._ask(number, one) for number, one in enumerate(due))
        self._round += 1
        deques = Deques(self._locks, self._arrays["deques"], self._arrays["claims"], _LOCK_WITHIN_S)
        dealt = shares(len(due), [OWN, *(member.place for member in members)], self._places)
        done: set[int] = set()
        try:
            deques.deal(self._round, dealt)
            for member in members:
                self._send(member, table, jobs)
            slowest_s = self._take_part(deques, due, done)
        except Stuck as stuck:
            for member in members:
                member.strike(str(stuck))
            return
        own = len(done)
        by = {number: deques.claimed(number) for number in range(len(due)) if number not in done}
        found = self._collect(members, by, slowest_s)
        for number in found:
            due[number].row.adopt(arena.answers_of(self._arrays, number, table.size))
        EVALUATED.labels("region").inc(own)
        EVALUATED.labels("worker").inc(len(found))
        STOLEN.inc(
            sum(number not in dealt[OWN] for number in done) + sum(number not in dealt[by[number]] for number in found)
        )

    def _take_part(self, deques: Deques, due: Sequence[Due], done: set[int]) -> float:
        """Until nothing is left to take; how long the slowest class took."""
        slowest_s = _LEAST_WAIT_S
        while (number := deques.take(OWN, self._round, self._places)) is not None:
            began_s = time.monotonic()
            row, copies = due[number]
            row.refresh(copies)
            done.add(number)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        return slowest_s

    def _collect(self, members: Sequence[Member], by: dict[int, int], wait_s: float) -> list[int]:
        """Which of the classes that others claimed are evaluated: all of them, unless that takes too long."""
        found: list[int] = []
        until_s = time.monotonic() + wait_s
        readable = select.poll()
        for member in members:
            readable.register(member, select.POLLIN)
        while True:
            for member in members:
                found += [number for of, number in member.said() if of == self._round]
            owed = {place for number, place in by.items() if number not in found}
            for member in members:
                member.claims = member.place in owed
            rest_s = until_s - time.monotonic()
            if rest_s <= 0 or not any(member.owes for member in members):
                return found
            readable.poll(rest_s * 1_000)

    # ---- what is said

    def _show(self, table: NodeTable) -> None:
        """The table as it is, in memory."""
        if self._described[0] is not table:
            for member in self._members:
                member.known = member.layout = None
        use, description = mirror.use(table), mirror.description(table)
        columns = use | description
        layout = {
            **arena.control(self._places, MOST_CLASSES),
            **{name: (column.dtype.str, column.shape) for name, column in columns.items()},
            **arena.answers(MOST_CLASSES, len(table.changed)),
        }
        if layout != self._layout:
            self._layout, self._arrays = layout, arena.mapped(self._memory, layout)
            self._described = None, -1
        if self._described == (table, table.redescribed):
            columns = use
        for name, column in columns.items():
            self._arrays[name][...] = column
        self._described = table, table.redescribed

    def _ask(self, number: int, due: Due) -> Job:
        row, request = due.row, due.row.request
        size = row.table.size
        if request.image:
            self._arrays["warm"][number, :size] = row.table.images.holding(request.image, size)
        seen = row.tell(arena.answers_of(self._arrays, number, size))
        return Job(request, dict(due.copies) if counts_copies(request) else {}, seen)

    def _send(self, member: Member, table: NodeTable, jobs: bytes) -> None:
        layout = None if member.layout is self._layout else self._layout
        news = mirror.news(table, member.known or Known())
        round_ = rounds.Round(self._round, self._places, member.known is None, layout, news, jobs)
        if not member.send(self._round, rounds.packed(round_), _SEND_WITHIN_S):
            member.strike("it takes nothing in")
        member.known, member.layout = Known.of(table), self._layout
