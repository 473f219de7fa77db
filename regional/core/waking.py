"""What is offered again: replicas whose back-off is over, and parked classes that something may have cured since.

A class is parked under the cures of what refused it, and woken by events of those kinds alone, each looked at once.
"""

from atoll.model import explain
from regional.core import headroom, protection
from regional.core.filters import Cure
from regional.core.queue import SchedulingClass
from regional.core.state import State, Turn


def wake(state: State, turn: Turn) -> None:
    """Offers again what became due, and the parked classes that something since may have cured."""
    queue = state.queue
    if queue.next_due_ms() <= turn.now_ms:
        for cls, index, avoid in queue.due(turn.now_ms):
            queue.put(cls, (index,), turn.now_ms, avoid)
    if not queue.parked:
        state.freed_rows.clear()
    if state.nodes_changed:
        queue.wake(Cure.NODES, lambda cls: True)
        state.nodes_changed = False
        state.freed_rows.clear()
    if state.freed_rows:
        room = headroom.room(state)
        queue.wake(Cure.HEADROOM, lambda cls: headroom.replicas(room, cls) > 0)
        queue.wake(Cure.PROTECTED, lambda cls: protection.replicas(state, cls.tenant, cls.request.vector) > 0)
        free = state.table.free(list(state.freed_rows))
        queue.wake(Cure.RESOURCES, lambda cls: bool((free >= cls.request.vector.amounts()).all(axis=1).any()))
        state.freed_rows.clear()
    if state.neighbours:
        queue.wake(Cure.REPLICAS, lambda cls: _touched(state, cls))
        state.neighbours.settle()
    if state.freed_tenants:
        queue.wake(Cure.QUOTA, lambda cls: cls.tenant in state.freed_tenants and _quota_news(state, cls))
        state.freed_tenants.clear()
    queue.age(turn.now_ms)


def _touched(state: State, cls: SchedulingClass) -> bool:
    """Whether the rules of the class's task, or of any task of its gang, may allow more than before."""
    tasks = state.workloads[cls.tenant, cls.workload].tasks
    return any(map(state.neighbours.curable, [tasks[cls.task]] if cls.task in tasks else tasks.values()))


def _quota_news(state: State, cls: SchedulingClass) -> bool:
    """Room for one more, or the first word about the tenant's quota: the reason is another one then."""
    account = state.account(cls.tenant)
    first = [r.code for r in cls.reasons] == [explain.SLICE_AWAITED] and bool(account.mod_revision)
    return first or account.affordable(cls.request.vector) > 0
