"""Classes evaluated by real processes: the same answers, whatever befalls a worker; and none is left behind."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from regional.core.class_row import ClassRow
from regional.core.class_rows import Due
from regional.workers.crew import Crew
from regional.workers.deques import Deques, shares
from tests.support.crews import Patient, alive, crew_of, tended
from tests.support.freeze import freeze
from tests.support.random_tables import RandomTable, same
from tests.support.regional_world import RegionalWorld
from tests.support.story import assert_same, story
from tests.support.wait import until

NODES, CLASSES = 300, 24


class Twice:
    """The same classes of a random table, evaluated inline and by a crew."""

    def __init__(self, seed: int) -> None:
        self.random = RandomTable(seed, NODES)
        self.requests = [self.random.request() for _ in range(CLASSES)]
        self.own, self.others = ([ClassRow(self.random.table, one) for one in self.requests] for _ in range(2))

    def evaluate(self, crew: Crew) -> None:
        crew.evaluate([Due(row, self.random.copies) for row in self.others])
        for one, other in zip(self.own, self.others, strict=True):
            one.refresh(self.random.copies)
            same(one, other)

    def change(self) -> None:
        for _ in range(self.random.draw.randint(1, 30)):
            self.random.change()
        self.random.copies = dict(self.random.copies)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def evaluated() -> float:
    return counted("atoll_region_classes_ahead_total", by="worker")


def lost() -> float:
    return counted("atoll_region_workers_lost_total")


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with crew_of(3, silence_s=0.5) as crew:
        yield crew


@pytest.mark.parametrize("places", [2, 3])
def test_answers_and_decisions_are_the_same_by_however_many(places: int) -> None:
    with crew_of(places, kind=Patient) as crew:
        pids = crew.pids
        for seed in (1, 2):  # another table is another reign: nothing of the one before counts
            twice, before = Twice(seed), evaluated()
            for _ in range(4):
                twice.evaluate(crew)
                twice.change()
            assert evaluated() > before
        before = evaluated()
        assert_same(plain(), story(0, crew))
        assert evaluated() > before
    assert not any(map(alive, pids))
    assert crew.processes() == 1
    Twice(3).evaluate(crew)  # who is alone evaluates alone


@functools.cache
def plain() -> RegionalWorld:
    return story(0, None)


@pytest.mark.parametrize("strike", [freeze, lambda pid: os.kill(pid, signal.SIGKILL)], ids=["stopped", "killed"])
def test_a_worker_struck_in_a_round_costs_no_answer_and_is_replaced(
    crew: Crew, strike: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has claimed something by then, or holds a lock."""
    tended(crew, lambda: len(crew.pids) == 2)
    twice, before, pids = Twice(4), lost(), crew.pids
    take = Deques.take
    (member_place,) = (member.place for member in crew._members if member.pid == pids[0])
    begun = shares(CLASSES, [0, 1, 2], 3)[member_place].start

    def struck(deques: Deques, place: int, round_: int, places: int) -> int | None:
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            _, head, end = deques._deques[member_place].tolist()
            if head > begun or head >= end:  # it has taken something, or others have taken it all
                break
            time.sleep(0.0001)
        strike(pids[0])
        monkeypatch.undo()
        return take(deques, place, round_, places)

    monkeypatch.setattr(Deques, "take", struck)
    for _ in range(3):  # in the round, and while it is missed
        twice.evaluate(crew)
        twice.change()
    tended(crew, lambda: len(crew.pids) == 2 and crew.pids != pids)
    assert not alive(pids[0])
    assert lost() > before
    twice.evaluate(crew)


def test_one_that_is_stopped_while_it_waits_is_replaced_too(crew: Crew) -> None:
    tended(crew, lambda: len(crew.pids) == 2)
    twice, pids, stolen = Twice(5), crew.pids, counted("atoll_region_classes_stolen_total")
    freeze(pids[0])
    twice.evaluate(crew)
    assert counted("atoll_region_classes_stolen_total") > stolen, "what it was dealt"
    tended(crew, lambda: len(crew.pids) == 2 and crew.pids != pids)
    twice.change()
    twice.evaluate(crew)


def test_a_region_goes_on_where_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many processes")

    crew = Crew(2, 1.0)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    crew.tend()
    assert crew.processes() == 1
    Twice(6).evaluate(crew)
    monkeypatch.undo()
    tended(crew, lambda: crew.processes() == 2)
    crew.close()


def test_nobody_outlives_a_region_that_is_killed() -> None:
    """Not even who is stopped. Their memory has no name, so it goes with them."""
    with subprocess.Popen([sys.executable, "-m", "tests.support.crews"], stdout=subprocess.PIPE, text=True) as region:
        assert region.stdout is not None
        pids = [int(pid) for pid in region.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        freeze(pids[0])
        region.kill()
        asyncio.run(until(lambda: not any(map(alive, pids))))
