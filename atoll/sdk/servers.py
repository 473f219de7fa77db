"""The servers of one service behind the face of one channel: several addresses, one in use at a time.

Decides which address is asked next. One that works is kept. A standby's hint to the leader is followed once, until a
server has answered again; otherwise the next address of the list has its turn. An address that was left for its silence
is left out for a while, as a hint and in the list, where there is another: a leader that stands still is the leader for
its standbys until its lease ends. So nobody goes round in circles between a standby and a leader that does not answer.
"""

import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from atoll import errors

NO_ANSWER = "E5002"  # the transport's own error: no server of ours has spoken
LEFT_OUT_S = 6.0  # the life of a leader's lease: by then a standby knows better


class Servers:
    """Given to a generated stub in place of a channel: its calls go to the address in use at that moment."""

    def __init__(self, addresses: tuple[str, ...], dial: Callable[[str], grpc.aio.Channel], *, programs: bool) -> None:
        """`programs`: the addresses are ports for programs, not for people."""
        self._addresses = addresses
        self._dial = dial
        self._programs = programs
        self._turn = 0
        self._hinted = ""  # in use instead of the list's
        self._followed = False
        self._silent_until_s: dict[str, float] = {}
        self._channels = {addresses[0]: dial(addresses[0])}

    @property
    def address(self) -> str:
        return self._hinted or self._addresses[self._turn % len(self._addresses)]

    @property
    def channel(self) -> grpc.aio.Channel:
        if self.address not in self._channels:
            self._channels[self.address] = self._dial(self.address)
        return self._channels[self.address]

    @property
    def alone(self) -> bool:
        """Whether there is nowhere else to turn to."""
        return len(self._addresses) == 1 and not self._hinted

    def answered(self) -> None:
        """The server in use has answered for good."""
        self._followed = False
        self._silent_until_s.pop(self.address, None)

    def turn(self, error: errors.AtollError, *, silent: bool = False) -> None:
        """The server in use cannot serve. `silent`: it let its time pass; one whose connection is refused or breaks may
        be there at the next try."""
        left = self.address
        if silent:
            self._silent_until_s[left] = time.monotonic() + LEFT_OUT_S
        elif error.code != NO_ANSWER:
            self._silent_until_s.pop(left, None)
        hint = _leader(error, self._programs)
        if hint and hint != left and not self._is_silent(hint) and not self._followed:
            self._followed, self._hinted = True, hint
        elif isinstance(error, errors.Unavailable):
            self._turn = self._next(self._turn if self._hinted else self._turn + 1)
            self._hinted = ""

    def _next(self, turn: int) -> int:
        """The first from `turn` on that was not left for its silence of late; that itself where all were."""
        turns = range(turn, turn + len(self._addresses))
        return next((t for t in turns if not self._is_silent(self._addresses[t % len(self._addresses)])), turn)

    def _is_silent(self, address: str) -> bool:
        return time.monotonic() < self._silent_until_s.get(address, 0.0)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    # ---- what generated stubs ask of a channel

    def unary_unary(self, path: str, *given: Any, **named: Any) -> "Method":
        return Method(self, "unary_unary", path, given, named)

    def unary_stream(self, path: str, *given: Any, **named: Any) -> "Method":
        return Method(self, "unary_stream", path, given, named)

    def stream_stream(self, path: str, *given: Any, **named: Any) -> "Method":
        return Method(self, "stream_stream", path, given, named)


class Method:
    """One method of the service, at whichever server is in use."""

    def __init__(self, servers: Servers, kind: str, path: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.servers = servers
        self._kind = kind
        self._path = path
        self._given = given
        self._named = named

    def __call__(self, *request: Any, **options: Any) -> Any:
        method = getattr(self.servers.channel, self._kind)(self._path, *self._given, **self._named)
        return method(*request, **options)


def _leader(error: errors.AtollError, programs: bool) -> str:
    if not isinstance(error, errors.Unavailable):
        return ""
    return error.leader_programs if programs else error.leader_people
