"""When each node was last heard and acknowledged, as columns by row of the node table, and who is silent.

Decides who is suspect, lost, braked and fenced; changes nothing else. Time in ms. Rules (docs/protocols.md, section 5):
suspect after 3 heartbeats, lost after 5. Our own downtime counts against nobody (`grace_from_ms`), nor does time in
which we had not handled what came in. When too many of a region or of a zone fall silent at nearly the same time it is
not their trouble, and their `keep` work stays (the brake).
`exclusive` work may be taken as stopped only T_s = (T_a + K)(1 + rho)/(1 - rho) after its node's last acknowledged
heartbeat came in.
"""

import numpy as np

from atoll.api.v1 import objects_pb2
from regional.config import CoreSettings
from regional.core.node_table import Integers, Interned, Mask, Rows

NEVER_MS = 1 << 62
_MILLION = 1_000_000


class Liveness:
    def __init__(self, now_ms: int) -> None:
        self.grace_from_ms = now_ms
        self.heard_ms: Integers = np.zeros(0, np.int64)
        self.acknowledged_ms: Integers = np.zeros(0, np.int64)
        self.heartbeat_ms: Integers = np.zeros(0, np.int64)  # 0 = nothing was ever promised
        self.fence_after_ms: Integers = np.zeros(0, np.int64)  # the longest T_a the agent may count by
        self.lost: Mask = np.zeros(0, np.bool_)  # as committed
        self.calm_until_ms = 0  # nobody is newly suspect or silent before; 0 = not known

    def cover(self, size: int) -> None:
        """Columns for `size` rows."""
        more = size - len(self.heard_ms)
        if more > 0:
            more = max(more, len(self.heard_ms), 64)
            for name in ("heard_ms", "acknowledged_ms", "heartbeat_ms", "fence_after_ms", "lost"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))

    def clear(self, row: int) -> None:
        """The row's node is gone."""
        for column in (self.heard_ms, self.acknowledged_ms, self.heartbeat_ms, self.fence_after_ms, self.lost):
            column[row] = 0

    def silence_ms(self, now_ms: int) -> Integers:
        silence: Integers = now_ms - np.maximum(self.heard_ms, self.grace_from_ms)
        return silence

    def longer_than(self, heartbeats: int, now_ms: int) -> Mask:
        """Rows that were promised a heartbeat interval and are silent for more than so many of them."""
        mask: Mask = (self.heartbeat_ms > 0) & (self.silence_ms(now_ms) > heartbeats * self.heartbeat_ms)
        return mask

    def next_silence_ms(self, heartbeats: Integers) -> int:
        """When the first of the rows is silent for more than its number of `heartbeats`, if nothing more is heard."""
        promised = np.flatnonzero(self.heartbeat_ms)
        since = np.maximum(self.heard_ms[promised], self.grace_from_ms)
        due = since + heartbeats[promised] * self.heartbeat_ms[promised]
        return int(due.min(initial=NEVER_MS)) + 1

    def braked(self, rows: Rows, settings: CoreSettings, now_ms: int, zones: Interned | None = None) -> Mask:
        """Which of these silent rows fell silent together with too many others, of the region or of their zone.
        `zones`: each row's zone, 0 = in none; None = there are no zones."""
        silent = self.longer_than(settings.suspect_after_heartbeats, now_ms)
        mask = self._too_many(rows, silent, self.heartbeat_ms > 0, settings, settings.brake_percent)
        if zones is None:
            return mask
        of_rows = zones[rows]
        for zone in np.unique(of_rows[of_rows > 0]).tolist():
            inside: Mask = np.zeros(len(silent), np.bool_)
            inside[: len(zones)] = (zones == zone)[: len(silent)]
            at = of_rows == zone
            promised = inside & (self.heartbeat_ms > 0)
            mask[at] |= self._too_many(rows[at], silent & inside, promised, settings, settings.brake_zone_percent)
        return mask

    def _too_many(self, rows: Rows, silent: Mask, promised: Mask, settings: CoreSettings, percent: int) -> Mask:
        """Of `rows`: around whose silence more than `percent` of the `promised` nodes fell silent too."""
        since, window = np.maximum(self.heard_ms, self.grace_from_ms), settings.brake_window_ms
        together = _within(since[silent], since[rows], window)
        gone = self.lost & silent
        nodes = int(promised.sum()) - int(gone.sum()) + _within(since[gone], since[rows], window)
        mask: Mask = (together >= settings.brake_nodes) & (together * 100 > percent * nodes)
        return mask


def _within(times: Integers, around: Integers, window_ms: int) -> Integers:
    """How many of `times` are at most `window_ms` away from each of `around`."""
    ordered = np.sort(times)
    count: Integers = np.searchsorted(ordered, around + window_ms, "right") - np.searchsorted(
        ordered, around - window_ms, "left"
    )
    return count


def heartbeat_ms(settings: CoreSettings, nodes: int) -> int:
    """The interval for a region of so many nodes, in steps of half a second."""
    low, high = settings.heartbeat_nodes, settings.heartbeat_slowest_nodes
    over = min(max(nodes - low, 0), high - low)
    rise = (settings.heartbeat_slowest_ms - settings.heartbeat_ms) * over // (high - low)
    return settings.heartbeat_ms + rise // 500 * 500


def fence_ms(settings: CoreSettings, interval_ms: int) -> int:
    """T_a: an agent stops exclusive work when its last acknowledged heartbeat was sent this long ago."""
    return settings.fence_after_heartbeats * interval_ms


def recorded_fence_ms(settings: CoreSettings, node: objects_pb2.Node) -> int:
    """The longest T_a that the agent of this record may count by."""
    return node.fence_after_ms or fence_ms(settings, node.heartbeat_ms)


def surely_stopped_ms(settings: CoreSettings, fence_after_ms: int) -> int:
    """T_s: from the receipt of the last acknowledged heartbeat, on our clock, rounded up."""
    rate = settings.clock_rate_error_ppm
    return -(-(fence_after_ms + settings.kill_time_ms) * (_MILLION + rate) // (_MILLION - rate))
