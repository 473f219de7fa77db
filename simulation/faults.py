"""Which faults one seed gets, and how often. Every seed draws its own subset, so that rare combinations meet.

Decides probabilities and periods only; world.py makes them happen.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per transaction or per message; mean periods in milliseconds, 0 = never."""

    not_sent: float = 0.0
    unknown_before: float = 0.0  # never applied, the answer never comes
    unknown_after: float = 0.0  # applied at once, the answer never comes
    unknown_late: float = 0.0  # the answer never comes, applied some seconds later
    slow_store: float = 0.0  # the answer takes up to a second
    slow_disk: float = 0.0  # a checkpoint takes up to a second
    message_delay_ms: int = 5  # at most, one way
    session_break_every_ms: int = 0
    session_stall_every_ms: int = 0
    agent_crash_every_ms: int = 0
    agent_pause_every_ms: int = 0
    node_reboot_every_ms: int = 0
    node_isolation_every_ms: int = 0
    node_freeze_every_ms: int = 0  # the agent stands still while its link fails: it finds old answers; not drawn
    leader_crash_every_ms: int = 0
    leader_pause_every_ms: int = 0
    store_cut_every_ms: int = 0  # one regional process and its store; all else goes on
    global_crash_every_ms: int = 0
    global_pause_every_ms: int = 0
    global_cut_every_ms: int = 0  # one process of the global plane and the store
    global_absence_every_ms: int = 0  # all of the global plane, for up to five minutes
    replica_exit_every_ms: int = 0
    start_failure: float = 0.0
    stale_share: float = 0.0  # a share or slice is delivered again, later, after newer ones
    operator_every_ms: int = 15_000  # a change by an operator: no fault, and not drawn
    clock_rate: float = 0.0  # clocks run between 1 - rate and 1 + rate


NO_FAULTS = Faults()


def draw(rng: random.Random) -> Faults:
    """A random subset of all faults, each at a random strength."""

    def some(probability: float, value: float) -> float:
        return value * rng.uniform(0.2, 1.0) if rng.random() < probability else 0.0

    def every(probability: float, period_ms: int) -> int:
        return int(period_ms * rng.uniform(0.5, 2.0)) if rng.random() < probability else 0

    return Faults(
        not_sent=some(0.5, 0.05),
        unknown_before=some(0.5, 0.05),
        unknown_after=some(0.5, 0.05),
        unknown_late=some(0.5, 0.05),
        slow_store=some(0.3, 0.1),
        slow_disk=some(0.3, 0.3),
        message_delay_ms=rng.choice([2, 20, 200]),
        session_break_every_ms=every(0.5, 8_000),
        session_stall_every_ms=every(0.4, 10_000),
        agent_crash_every_ms=every(0.5, 20_000),
        agent_pause_every_ms=every(0.4, 20_000),
        node_reboot_every_ms=every(0.4, 40_000),
        node_isolation_every_ms=every(0.4, 40_000),
        leader_crash_every_ms=every(0.5, 20_000),
        leader_pause_every_ms=every(0.4, 20_000),
        store_cut_every_ms=every(0.4, 30_000),
        global_crash_every_ms=every(0.4, 30_000),
        global_pause_every_ms=every(0.4, 30_000),
        global_cut_every_ms=every(0.3, 40_000),
        global_absence_every_ms=every(0.2, 200_000),
        replica_exit_every_ms=every(0.5, 3_000),
        start_failure=some(0.3, 0.2),
        stale_share=some(0.4, 0.3),
        clock_rate=some(0.5, 0.01),
    )
