"""When each node was last heard and acknowledged, as columns by row of the node table, and who is silent.

Decides who is suspect, lost, braked and fenced; changes nothing else. Time in ms. Rules (docs/protocols.md, section 5):
suspect after 3 heartbeats, lost after 5. Our own downtime counts against nobody (`grace_from_ms`). When too many fall
silent at nearly the same time it is the region's trouble, not theirs, and their `keep` work stays (the brake).
`exclusive` work may be taken as stopped only T_s = (T_a + K)(1 + rho)/(1 - rho) after its node's last acknowledged
heartbeat came in.
"""

import numpy as np

from regional.config import CoreSettings
from regional.core.node_table import Integers, Mask, Rows

_MILLION = 1_000_000


class Liveness:
    def __init__(self, now_ms: int) -> None:
        self.grace_from_ms = now_ms
        self.heard_ms: Integers = np.zeros(0, np.int64)
        self.acknowledged_ms: Integers = np.zeros(0, np.int64)
        self.heartbeat_ms: Integers = np.zeros(0, np.int64)  # 0 = nothing was ever promised
        self.lost: Mask = np.zeros(0, np.bool_)  # as committed

    def cover(self, size: int) -> None:
        """Columns for `size` rows."""
        more = size - len(self.heard_ms)
        if more > 0:
            more = max(more, len(self.heard_ms), 64)
            for name in ("heard_ms", "acknowledged_ms", "heartbeat_ms", "lost"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))

    def silence_ms(self, now_ms: int) -> Integers:
        silence: Integers = now_ms - np.maximum(self.heard_ms, self.grace_from_ms)
        return silence

    def longer_than(self, heartbeats: int, now_ms: int) -> Mask:
        """Rows that were promised a heartbeat interval and are silent for more than so many of them."""
        mask: Mask = (self.heartbeat_ms > 0) & (self.silence_ms(now_ms) > heartbeats * self.heartbeat_ms)
        return mask

    def braked(self, rows: Rows, settings: CoreSettings, now_ms: int) -> Mask:
        """Which of these silent rows fell silent together with too many others."""
        since = np.maximum(self.heard_ms, self.grace_from_ms)
        silent = self.longer_than(settings.suspect_after_heartbeats, now_ms)
        window = settings.brake_window_ms
        together = _within(since[silent], since[rows], window)
        gone = self.lost & silent
        nodes = int((self.heartbeat_ms > 0).sum()) - int(gone.sum()) + _within(since[gone], since[rows], window)
        mask: Mask = (together >= settings.brake_nodes) & (together * 100 > settings.brake_percent * nodes)
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


def surely_stopped_ms(settings: CoreSettings, fence_after_ms: int) -> int:
    """T_s: from the receipt of the last acknowledged heartbeat, on our clock, rounded up."""
    rate = settings.clock_rate_error_ppm
    return -(-(fence_after_ms + settings.kill_time_ms) * (_MILLION + rate) // (_MILLION - rate))
