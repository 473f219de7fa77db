"""Which process of the global plane the region dials next, and how soon.

A standby's word about the leader is followed, but not to an address that was left for its silence: a leader that stands
still is the leader for its standbys until its lease ends. Such an address is left out for a while where there is
another. Pure: time is an argument.
"""

from collections.abc import Sequence


class Route:
    def __init__(
        self, addresses: Sequence[str], *, left_out_ms: int, first_ms: int, standby_ms: int, longest_ms: int
    ) -> None:
        """`left_out_ms`: how long a silent address is. Pauses double from `first_ms` to `longest_ms`; while a standby
        answers, somebody leads soon, and they are `standby_ms` at most."""
        self._addresses = list(addresses)
        self._left_out_ms = left_out_ms
        self._first_ms = first_ms
        self._standby_ms = standby_ms
        self._longest_ms = longest_ms
        self._pause_ms = first_ms
        self._turn = 0
        self._leader = ""  # as a standby has named it
        self._silent_until_ms: dict[str, int] = {}

    def next(self, now_ms: int) -> str:
        """The address to dial."""
        leader, self._leader = self._leader, ""
        if leader and not self._is_silent(leader, now_ms):
            address = leader
        else:
            turns = [*self._addresses[self._turn :], *self._addresses[: self._turn]]
            address = next((each for each in turns if not self._is_silent(each, now_ms)), turns[0])
        if address in self._addresses:
            self._turn = (self._addresses.index(address) + 1) % len(self._addresses)
        return address

    def ended(self, address: str, now_ms: int, *, welcomed: bool, silent: bool) -> int:
        """A session has ended, or was never made; how long to wait."""
        if silent:
            self._silent_until_ms[address] = now_ms + self._left_out_ms
        elif welcomed:
            self._silent_until_ms.pop(address, None)
        if welcomed:
            self._pause_ms = self._first_ms
        return self._wait()

    def refused(self, leader: str) -> int:
        """A standby has answered, and named the leader, if it knows; how long to wait."""
        self._leader = leader
        self._pause_ms = min(self._pause_ms, self._standby_ms)
        return self._wait()

    def _wait(self) -> int:
        pause_ms, self._pause_ms = self._pause_ms, min(2 * self._pause_ms, self._longest_ms)
        return pause_ms

    def _is_silent(self, address: str, now_ms: int) -> bool:
        return now_ms < self._silent_until_ms.get(address, 0)
