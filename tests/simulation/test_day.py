"""The day of passes: the same seed is the same day, and windows are kept where the single thread misses them."""

from dataclasses import replace

from simulation.day import PASSES, passes, run


def test_a_day_with_losses_keeps_more_windows_than_the_thread_without() -> None:
    outcome = run(1)
    assert outcome.passes == PASSES
    assert outcome.placed_again > 0
    assert 100 - outcome.in_window_percent < outcome.fifo_missed_percent / 5
    assert outcome.jain_of_regions > 0.99
    assert replace(run(1), cpu_s=0) == replace(outcome, cpu_s=0)
    assert passes(1) != passes(2)
