"""One look at all that moves inside the region: surges under way, what has to leave its node, and what evens out nodes.

What leaves comes first: migrations get the room and quota that it lets be.
"""

from regional.core import draining, rebalancing, surging
from regional.core.promises import Promises
from regional.core.state import State, Turn


def check(state: State, turn: Turn) -> None:
    surging.check(state, turn)
    if not (state.leaving or state.surging or state.wishing or rebalancing.is_to_look(state, turn.now_ms)):
        return
    promises = Promises(state, turn.now_ms)
    draining.check(state, promises, turn)
    rebalancing.check(state, promises, turn)
    surging.wish(state, promises.wishes, promises.moving, turn.now_ms)
