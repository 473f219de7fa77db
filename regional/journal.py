"""Keeps placement decisions: in rotating files for the record, and the last one of each slot in memory for `why`.

Off the hot path: `keep` only appends to a bounded queue; a task of its own serializes and writes. What does not fit is
dropped and counted, never waited for: a decision explains, it does not bind. The file holds records of a 4-byte
big-endian length and a serialized Decision; a torn last record is what a crash leaves and is skipped by readers.
"""

import asyncio
import os
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from prometheus_client import Counter

from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName

WRITTEN = Counter("atoll_journal_written", "Decisions written to the journal's files.")
DROPPED = Counter("atoll_journal_dropped", "Decisions not kept in the files: the queue was full or the disk refused.")

_LENGTH_BYTES = 4
_BATCH = 500  # decisions serialized before the event loop runs again


class Journal:
    """Files `decisions.<n>.bin` under `folder`: a new one after `file_bytes`, the oldest deleted beyond `files`."""

    def __init__(self, folder: Path, *, file_bytes: int, files: int, queue: int, index: int) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._files = files
        self._queue: deque[objects_pb2.Decision] = deque()
        self._queue_limit = queue
        self._last: OrderedDict[SlotName, objects_pb2.Decision] = OrderedDict()
        self._index_limit = index
        self._filled = asyncio.Event()
        self._file: BinaryIO | None = None
        self._number = 0

    def keep(self, decision: objects_pb2.Decision) -> None:
        """`decision` may be about many slots of one class: those in `placed`, or only the one it names."""
        slot = decision.slot
        for index in decision.placed or (slot.index,):
            name = SlotName(slot.tenant, slot.workload, slot.task, index)
            self._last[name] = decision
            self._last.move_to_end(name)
        while len(self._last) > self._index_limit:
            self._last.popitem(last=False)
        if len(self._queue) >= self._queue_limit:
            DROPPED.inc()
            return
        self._queue.append(decision)
        self._filled.set()

    def last(self, slot: SlotName) -> objects_pb2.Decision | None:
        """The newest decision about `slot`, told of it alone; None when so many others came after that it was
        forgotten."""
        kept = self._last.get(slot)
        if kept is None:
            return None
        alone = objects_pb2.Decision()
        alone.CopyFrom(kept)
        alone.slot.index = slot.index
        if slot.index in kept.placed:
            place = list(kept.placed).index(slot.index)
            alone.node = kept.placed_on[place]
            alone.attempt.n += place
        alone.ClearField("placed")
        alone.ClearField("placed_on")
        return alone

    async def run(self) -> None:
        """Writes until cancelled; what is queued then is written before it ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        writer = ThreadPoolExecutor(1, "journal")  # one thread: batches stay in order
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while batch := self._take():
                    await asyncio.get_running_loop().run_in_executor(writer, self._write, *batch)
        finally:
            while batch := self._take():
                writer.submit(self._write, *batch)
            writer.submit(self._close)
            writer.shutdown(wait=True)

    def _take(self) -> tuple[bytes, int] | None:
        count = min(_BATCH, len(self._queue))
        if not count:
            return None
        parts: list[bytes] = []
        for _ in range(count):
            body = self._queue.popleft().SerializeToString(deterministic=True)
            parts += (len(body).to_bytes(_LENGTH_BYTES, "big"), body)
        return b"".join(parts), count

    def _write(self, data: bytes, count: int) -> None:
        """A disk that refuses costs this batch, not the scheduler; the next batch tries a new file."""
        try:
            file = self._open()
            file.write(data)
            file.flush()
        except OSError:
            DROPPED.inc(count)
            self._close()
            return
        WRITTEN.inc(count)
        if file.tell() >= self._file_bytes:
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file:
            with suppress(OSError):  # what could not be flushed was counted as dropped
                file.close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            kept = journal_files(self._folder)
            self._number = max(self._number, _number(kept[-1]) if kept else 0) + 1
            for old in kept[: max(0, len(kept) + 1 - self._files)]:
                old.unlink()
            descriptor = os.open(
                self._folder / f"decisions.{self._number:08d}.bin", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600
            )
            self._file = os.fdopen(descriptor, "wb")
        return self._file


def journal_files(folder: Path) -> list[Path]:
    """The journal's files, oldest first."""
    return sorted(folder.glob("decisions.*.bin"), key=_number)


def _number(file: Path) -> int:
    return int(file.name.split(".")[1])
