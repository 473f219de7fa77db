"""The day of passes: windows are kept where the single thread misses them."""

from simulation.day import HOUR_MS, MINUTE_MS, Hours, run

MORNING = Hours(
    begin_ms=10 * HOUR_MS,
    end_ms=10 * HOUR_MS + 20 * MINUTE_MS,
    node_lost_ms=10 * HOUR_MS + 8 * MINUTE_MS,
    region_lost_ms=10 * HOUR_MS + 14 * MINUTE_MS,
    away_ms=10 * MINUTE_MS,
)


def test_windows_are_kept_though_a_node_and_a_region_are_lost() -> None:
    outcome = run(1, MORNING)
    assert outcome.fifo_missed_percent > 3
    assert outcome.missed == 0
    assert outcome.bindings > outcome.passes > 30
    assert outcome.submitted_again
