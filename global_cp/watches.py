"""Watching workloads: a ring of the last events, from which every watcher reads at its own pace.

Decides what can be resumed: a revision from which every later event is still in the ring, else Expired, and the client
lists again. One ring a reign: it begins at the revision the leader listed, and its watchers are sent away when the
reign ends. Invariant: events are in order of revision, and a watcher sees each once.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from atoll.api.v1 import global_pb2
from atoll.errors import Expired, Unavailable
from global_cp.core import views
from global_cp.core.records import Records

Event = global_pb2.WorkloadEvent


class WatchRing:
    def __init__(self, records: Records, revision: Callable[[], int], *, size: int, progress_s: float) -> None:
        """`revision`: up to which every event has been published."""
        self._records = records
        self._revision = revision
        self._size = size
        self._progress_s = progress_s
        self._events: deque[Event] = deque()
        self._dropped = 0  # events that left the ring
        self._complete_after = revision()  # every event of a later revision is, or was, in the ring
        self._news = asyncio.Event()
        self._ended = False

    def publish(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > self._size:
            self._complete_after = self._events.popleft().revision
            self._dropped += 1
        self._wake()

    def end(self) -> None:
        """The reign is over."""
        self._ended = True
        self._wake()

    async def follow(self, tenant: str, since_revision: int) -> AsyncGenerator[Event, None]:
        """Events of the tenant ("" = all) after `since_revision`; with 0 one for each workload that exists first."""
        if since_revision:
            at = self._position_after(since_revision)
        else:
            at = self._dropped + len(self._events)
            existing = views.workloads(self._records, tenant)
            revision = self._revision()
            for workload in existing:
                yield Event(type=global_pb2.EVENT_TYPE_EXISTS, workload=workload, revision=revision)
            yield Event(type=global_pb2.EVENT_TYPE_PROGRESS, revision=revision)
        while True:
            if self._ended:
                raise Unavailable("leadership was lost; watch again from the last revision")
            if at < self._dropped:
                raise Expired("this watch is too slow: events it has not seen are gone", hint="list again")
            if at - self._dropped < len(self._events):
                event = self._events[at - self._dropped]
                at += 1
                if tenant in ("", event.workload.metadata.tenant):
                    yield event
            elif not await self._more():
                yield Event(type=global_pb2.EVENT_TYPE_PROGRESS, revision=self._revision())

    def _position_after(self, revision: int) -> int:
        if revision < self._complete_after:
            raise Expired(
                f"events after revision {revision} are not kept; the oldest are after {self._complete_after}",
                hint="list again",
            )
        if revision > self._records.revision:
            raise Expired(f"revision {revision} is not reached: this is another store, or an older one")
        later = sum(event.revision > revision for event in self._events)
        return self._dropped + len(self._events) - later

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _more(self) -> bool:
        """Waits for news; False when it was time to report progress."""
        try:
            async with asyncio.timeout(self._progress_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
