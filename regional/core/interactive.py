"""Interactive work: what somebody waits for, by its priority. It goes before other work, and waits behind little of it.

While there is some, and `interactive_hold_ms` after the last, the first lane is its own where there are several, and
transactions of other work are small: none of them holds up the process, the store or a lane for long. Without any, all
lanes and the largest batches are for whatever waits.
"""

from regional.core.records import WorkloadEntry
from regional.core.state import State, Turn


def is_interactive(state: State, priority: int) -> bool:
    return priority >= state.settings.interactive_priority


def seen(state: State, turn: Turn) -> None:
    state.interactive_until_ms = turn.now_ms + state.settings.interactive_hold_ms


def present(state: State, now_ms: int) -> bool:
    return now_ms < state.interactive_until_ms


def keeps(state: State, lane: int, now_ms: int) -> bool:
    """Whether this lane is for interactive work alone."""
    return lane == 0 and state.settings.lanes > 1 and present(state, now_ms)


def batch_slots(state: State, most: int, now_ms: int) -> int:
    """How many slots of other work go into one transaction."""
    return min(most, state.settings.interactive_beside_slots) if present(state, now_ms) else most


def unsettle(state: State, workload: WorkloadEntry) -> None:
    """It has a share to admit."""
    prompt = workload.next_share and is_interactive(state, workload.next_share.spec.priority)
    (state.prompt_shares if prompt else state.unsettled_shares)[workload.place] = workload
