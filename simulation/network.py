"""The streams between programs, node to region and region to global plane: bytes, in order, faulty.

Decides when a message arrives and when each end learns that a stream has ended. Order is kept within one direction of
one stream; messages in flight when a stream breaks may still arrive on the other side. A stream belongs to one life of
the process at each end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from simulation.faults import Faults
from simulation.kernel import Kernel
from simulation.process import Process

LONGEST_STALL_MS = 30_000


class End(Process):
    """A process at the lower end of a stream to above, or at the upper end of one from below, or both."""

    def from_below(self, stream: "Stream", data: bytes) -> None:
        """A message has arrived from the process below."""

    def from_above(self, stream: "Stream", data: bytes) -> None:
        """A message has arrived from the process above."""

    def lost_below(self, stream: "Stream") -> None:
        """The stream from below has ended."""

    def lost_above(self, stream: "Stream") -> None:
        """The stream to above has ended."""


@dataclass(slots=True, eq=False)
class Stream:
    number: int
    below: End
    above: End
    below_life: int
    above_life: int
    up_ms: int = 0  # arrival of the last message up: order is kept
    down_ms: int = 0
    open_below: bool = True
    open_above: bool = True


class Network:
    def __init__(self, kernel: Kernel, faults: Faults) -> None:
        self.kernel = kernel
        self.faults = faults
        self._streams: dict[int, Stream] = {}
        self._last = 0

    def dial(self, below: End, answering: Sequence[End]) -> int:
        """A new stream's number, or 0 when nobody answers."""
        if not answering:
            return 0
        above = self.kernel.random.choice(answering)
        self._last += 1
        self._streams[self._last] = Stream(self._last, below, above, below.life, above.life)
        return self._last

    def up(self, number: int, message: Message) -> None:
        stream = self._streams.get(number)
        if stream is None or not stream.open_below:
            return
        data = self.on_the_wire(message)
        stream.up_ms = max(stream.up_ms, self.kernel.now_ms + self.delay())
        self._above(stream, stream.up_ms - self.kernel.now_ms, lambda: self._arrive_up(stream, data))

    def down(self, number: int, message: Message) -> None:
        stream = self._streams.get(number)
        if stream is None or not stream.open_above:
            return
        data = self.on_the_wire(message)
        stream.down_ms = max(stream.down_ms, self.kernel.now_ms + self.delay())
        self._below(stream, stream.down_ms - self.kernel.now_ms, lambda: self._arrive_down(stream, data))

    def _arrive_up(self, stream: Stream, data: bytes) -> None:
        if stream.open_above:
            stream.above.from_below(stream, data)

    def _arrive_down(self, stream: Stream, data: bytes) -> None:
        if stream.open_below:
            stream.below.from_above(stream, data)

    # ---- ends

    def cut(self, number: int) -> None:
        """Both ends learn of it, each in its own time; until then messages in flight still arrive."""
        stream = self._streams.get(number)
        if stream is None:
            return
        self._below(stream, self.kernel.between(0, 2_000), lambda: self._ended_below(stream))
        self._above(stream, self.kernel.between(0, 2_000), lambda: self._ended_above(stream))

    def left(self, process: End) -> None:
        """Killed or deposed: every stream from below breaks."""
        for number, stream in sorted(self._streams.items()):
            if stream.above is process:
                self.cut(number)
                if not process.alive:
                    del self._streams[number]

    def cut_some(self) -> None:
        if self._streams:
            self.cut(self.kernel.random.choice(sorted(self._streams)))

    def stall_some(self) -> None:
        """What is sent from now on arrives late, all at once and in order, as after lost packets."""
        if self._streams:
            stream = self._streams[self.kernel.random.choice(sorted(self._streams))]
            until_ms = self.kernel.now_ms + self.kernel.between(1_000, LONGEST_STALL_MS)
            stream.up_ms = max(stream.up_ms, until_ms)
            stream.down_ms = max(stream.down_ms, until_ms)

    def _ended_below(self, stream: Stream) -> None:
        if stream.open_below:
            stream.open_below = False
            stream.below.lost_above(stream)

    def _ended_above(self, stream: Stream) -> None:
        if stream.open_above:
            stream.open_above = False
            self._streams.pop(stream.number, None)
            stream.above.lost_below(stream)

    def _below(self, stream: Stream, delay_ms: int, action: Callable[[], None]) -> None:
        if stream.below.life == stream.below_life:
            stream.below.after(delay_ms, b"down", action)

    def _above(self, stream: Stream, delay_ms: int, action: Callable[[], None]) -> None:
        if stream.above.life == stream.above_life:
            stream.above.after(delay_ms, b"up", action)

    # ---- what everything that travels meets

    def delay(self) -> int:
        return self.kernel.between(1, self.faults.message_delay_ms)

    def on_the_wire(self, message: Message) -> bytes:
        data = message.SerializeToString()
        self.kernel.note(data)
        return data
