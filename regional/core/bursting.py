"""What a region asks of a tenant's burst account: what waits of work that it may pay for, and the hard one does not.

Told in whole replicas, each with all that it asks for: where a tenant lacks processors, burst is asked for memory too.
Whether the quota of all regions would pay for them is the global plane's to see. Decides nothing about who is bound.
What it costs grows with how differently replicas ask, not with how many wait.
"""

from regional.core.ledger import TenantAccount, fitting
from regional.core.state import State


def look(state: State) -> None:
    """To be called before tenants' standings are compared."""
    for account in state.accounts.values():
        look_at(state, account)


def look_at(state: State, account: TenantAccount) -> None:
    """What it lacks by what is known of it now."""
    state.demand.refresh(state.workloads)
    room = (account.ceiling() - account.in_use()).hard
    wanted = account.charging.burst
    for one, waits in sorted(state.demand.bursting.get(account.tenant, {}).items()):
        paid = min(waits, fitting(room, one))
        room -= one * paid
        wanted += one * (waits - paid)
    account.wanted = wanted
