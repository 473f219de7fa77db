import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName
from regional.journal import DROPPED, Journal, journal_files
from tests.support.wait import until

LENGTH_BYTES = 4


def read_journal(file: Path) -> Iterator[objects_pb2.Decision]:
    """Every whole record of one file, oldest first: its length, big-endian, and the message."""
    content = file.read_bytes()
    while len(content) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "big")
        if len(content) < end:
            return
        yield objects_pb2.Decision.FromString(content[LENGTH_BYTES:end])
        content = content[end:]


def decision(index: int, node: str = "n1") -> objects_pb2.Decision:
    slot = objects_pb2.SlotId(tenant="t", workload="w", task="main", index=index)
    return objects_pb2.Decision(id=f"d{index}", slot=slot, node=node, result="Bound")


def name(index: int) -> SlotName:
    return SlotName("t", "w", "main", index)


def journal(folder: Path, **limits: int) -> Journal:
    return Journal(folder, **{"file_bytes": 1 << 20, "files": 3, "queue": 1_000, "index": 100, **limits})


async def written(journal: Journal) -> None:
    """Runs the journal's task to its end: cancelled, it writes what is queued."""
    task = asyncio.create_task(journal.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_decision_kept_is_read_back_in_order(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    for i in range(700):
        kept.keep(decision(i))
    await written(kept)
    (file,) = journal_files(tmp_path)
    assert list(read_journal(file)) == [decision(i) for i in range(700)]
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_running_journal_writes_without_being_ended(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    task = asyncio.create_task(kept.run())
    kept.keep(decision(1))
    await until(lambda: [d for file in journal_files(tmp_path) for d in read_journal(file)])
    task.cancel()


async def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    for i in range(6):
        kept = journal(tmp_path, file_bytes=1)
        kept.keep(decision(i))
        await written(kept)
    assert [d.id for file in journal_files(tmp_path) for d in read_journal(file)] == ["d3", "d4", "d5"]


async def test_a_torn_last_record_is_skipped(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.keep(decision(1))
    kept.keep(decision(2))
    await written(kept)
    (file,) = journal_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-3])
    assert [d.id for d in read_journal(file)] == ["d1"]


async def test_what_does_not_fit_is_dropped_and_counted_but_still_indexed(tmp_path: Path) -> None:
    kept, before = journal(tmp_path, queue=2), DROPPED._value.get()
    for i in range(5):
        kept.keep(decision(i))
    assert DROPPED._value.get() - before == 3
    assert kept.last(name(4)) == decision(4)


async def test_a_folder_that_cannot_be_written_costs_decisions_not_the_task(tmp_path: Path) -> None:
    kept, before = journal(tmp_path / "journal"), DROPPED._value.get()
    task = asyncio.create_task(kept.run())
    await asyncio.sleep(0)
    (tmp_path / "journal").rmdir()
    kept.keep(decision(1))
    await until(lambda: DROPPED._value.get() > before)
    assert not task.done()
    task.cancel()


def test_a_decision_about_many_slots_is_told_of_each_alone(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    many = decision(3, node="n3")
    many.attempt.n = 8
    many.placed.extend((3, 4))
    many.placed_on.extend(("n3", "n4"))
    kept.keep(many)
    told = kept.last(name(4))
    assert told is not None
    assert (told.slot.index, told.node, told.attempt.n) == (4, "n4", 9)
    assert not told.placed
    assert not told.placed_on
    assert kept.last(name(5)) is None
    assert len(many.placed) == 2


def test_the_index_keeps_the_newest_decision_of_the_newest_slots(tmp_path: Path) -> None:
    kept = journal(tmp_path, index=2)
    kept.keep(decision(1))
    kept.keep(decision(2))
    kept.keep(decision(1, node="n2"))
    kept.keep(decision(3))
    assert kept.last(name(1)) == decision(1, node="n2")
    assert kept.last(name(2)) is None
