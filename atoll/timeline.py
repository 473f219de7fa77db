"""The bounded ring of events for people: what happened lately, at one leader. Memory only; the oldest fall out.

What a stranger can repeat as fast as it dials is told once a period for each object, with the count of the rest, so
that it does not push everything else out.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

from prometheus_client import Counter

from atoll.api.v1 import objects_pb2

REPEATED = frozenset({"NodeRefused", "NodeForged"})
QUIET_MS = 60_000
_QUIETED = 10_000  # objects remembered


class Timeline:
    """Numbers events in the order they were announced, by the clock: a later leader's numbers are higher."""

    def __init__(self, limit: int, counter: Counter) -> None:
        """`counter`: of events, by type."""
        self._counter = counter
        self._events: deque[tuple[int, objects_pb2.Event]] = deque(maxlen=limit)
        self._seq = 0
        self._told: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()  # when last, and how often since

    def announce(self, event: objects_pb2.Event) -> None:
        self._counter.labels(event.type).inc()
        if event.type in REPEATED:
            quieted = self._quieted(event)
            if quieted is None:
                return
            event = quieted
        self._seq = max(self._seq + 1, event.at_ms)
        self._events.append((self._seq, event))

    def _quieted(self, event: objects_pb2.Event) -> objects_pb2.Event | None:
        """The event with how often it was not told before; None when it was told a moment ago."""
        name = (event.type, event.object)
        told_ms, since = self._told.get(name, (event.at_ms - QUIET_MS, 0))
        if event.at_ms - told_ms < QUIET_MS:
            self._told[name] = (told_ms, since + 1)
            return None
        self._told[name] = (event.at_ms, 0)
        self._told.move_to_end(name)
        if len(self._told) > _QUIETED:
            self._told.popitem(last=False)
        if not since:
            return event
        counted = objects_pb2.Event()
        counted.CopyFrom(event)
        counted.message += f" ({since} more times since)"
        return counted

    def select(
        self, wanted: Callable[[objects_pb2.Event], bool], *, after_seq: int, limit: int
    ) -> list[objects_pb2.Event]:
        """Oldest first. Without a start the newest `limit` that are wanted; with one, the first after it."""
        if after_seq:
            later = ((seq, event) for seq, event in self._events if seq > after_seq and wanted(event))
            return [_numbered(seq, event) for seq, event in islice(later, limit)]
        newest = ((seq, event) for seq, event in reversed(self._events) if wanted(event))
        return [_numbered(seq, event) for seq, event in islice(newest, limit)][::-1]


def _numbered(seq: int, event: objects_pb2.Event) -> objects_pb2.Event:
    result = objects_pb2.Event(seq=seq)
    result.MergeFrom(event)  # a copy: published messages are never mutated
    return result
