"""What a region asks of a tenant's burst account: what waits of work that it may pay for, and the hard one does not.

Told in whole replicas, each with all that it asks for: where a tenant lacks processors, burst is asked for memory too.
Whether the quota of all regions would pay for them is the global plane's to see. Decides nothing about who is bound.
"""

from collections.abc import Iterable

from atoll.model.resources import NOTHING, Vector
from regional.core.ledger import TenantAccount, fitting
from regional.core.records import TaskEntry, WorkloadEntry
from regional.core.state import State


def look(state: State) -> None:
    """To be called before tenants' standings are compared."""
    for account in state.accounts.values():
        look_at(state, account)


def look_at(state: State, account: TenantAccount) -> None:
    """What it lacks by what is known of it now."""
    state.demand.refresh(state.workloads)
    names = state.demand.bursting.get(account.tenant)
    account.wanted = _wanted(state, account, names) if names else NOTHING


def _wanted(state: State, account: TenantAccount, names: Iterable[str]) -> Vector:
    room = (account.ceiling() - account.in_use()).hard
    wanted = account.charging.burst
    for name in sorted(names):
        for task in _tasks(state.workloads[account.tenant, name]):
            one, waits = task.request.vector, _waiting(task)
            paid = min(waits, fitting(room, one))
            room -= one * paid
            wanted += one * (waits - paid)
    return wanted


def _tasks(workload: WorkloadEntry) -> list[TaskEntry]:
    return [task for _, task in sorted(workload.tasks.items()) if task.may_burst]


def _waiting(task: TaskEntry) -> int:
    """Replicas that nothing is charged for."""
    waits = task.replicas - task.tally.succeeded - task.tally.failed - task.at_once
    return max(0, waits if task.parallel is None else min(waits, task.parallel - task.at_once))
