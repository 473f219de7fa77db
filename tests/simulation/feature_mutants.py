"""The museum's fifth room: naive versions that only show beside special wishes. MUTANTS are those of all rooms."""

from typing import Any

import numpy as np
import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import ByAccount
from atoll.model.resources import NOTHING
from global_cp.core import recovery
from global_cp.core.budgets import Budgets
from global_cp.core.entitlements import AccountClaims
from global_cp.core.events import Notified
from global_cp.core.notices import Notices
from global_cp.core.policy_rollout import PolicyRollout
from global_cp.core.recovery import Recovery
from regional.core import filters, neighbours, protection, removal, scores
from regional.core.ledger import UNLIMITED, TenantAccount
from regional.core.state import State
from simulation.features import Features
from tests.simulation.mutants import mutant
from tests.simulation.reservation_mutants import MUTANTS as MUTANTS

RULES, GPUS = Features(rules=True), Features(gpus=True)
PROTECTED = Features(protected=True, crowded=True)
BURST = Features(burst=True, crowded=True)
RECOVERY = Features(recovery=True)
RIVALS = Features(recovery=True, flurries=True)


@mutant("weight or mode", events=2_000, features=Features(strict=True))
def a_tenants_terms_go_down_with_its_next_grant(patch: pytest.MonkeyPatch) -> None:
    step = Budgets._slice_step

    def as_it_was(self: Any, tenant: Any, region: Any, current: objects_pb2.Slice | None, *others: Any) -> Any:
        proposal = step(self, tenant, region, current, *others)
        if current is not None and proposal is not None and "RENEW" in proposal.plan.operation:
            return None
        return proposal

    patch.setattr(Budgets, "_slice_step", as_it_was)


@mutant("placement: ", events=6_000, features=RULES)
def what_a_task_avoids_is_only_told_to_people(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(neighbours, "colocating_of", lambda task: ())


@mutant("placement: ", events=6_000, features=RULES)
def labels_of_nodes_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(filters, "_has", lambda table, key, value, rows: np.ones(len(rows), bool))
    patch.setattr(filters, "satisfied", lambda table, requirement, rows: np.ones(len(rows), bool))


@mutant("placement: ", "I3: a GPU", events=6_000, features=GPUS, leader_crash_every_ms=8_000)
def a_new_leader_takes_every_gpu_for_free(patch: pytest.MonkeyPatch) -> None:
    adopt = State.adopt_slots

    def without(self: State, *args: Any) -> None:
        with patch.context() as within:
            within.setattr(State, "_charge_gpus", lambda self, entries: None)
            adopt(self, *args)

    patch.setattr(State, "adopt_slots", without)


@mutant("I7: node", features=Features(removals=True), events=6_000)
def a_node_goes_with_what_is_on_it(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(removal, "_hindrance", lambda state, node: None)


@mutant("protected: ", features=PROTECTED, events=6_000)
def what_others_have_protected_is_placed_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protection, "replicas", lambda state, tenant, request: UNLIMITED)
    patch.setattr(protection, "lacking", lambda state, tenant, request: NOTHING)


@mutant("protected: ", features=PROTECTED, events=6_000)
def whoever_is_in_the_way_is_stopped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protection.Guard, "beyond", lambda self, tenant, candidates: iter(candidates))


@mutant("not converged", events=4_000, features=Features(policies=True))
def a_promotion_is_not_told_to_shares_that_stand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PolicyRollout, "propose", lambda self, now_ms, out: None)


@mutant("policy: ", events=4_000, features=Features(policies=True))
def a_region_goes_on_by_the_weights_that_are_built_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scores, "_parts", lambda weights: scores.STRATEGIES["bin-pack"])


@mutant("notices: ", events=4_000, features=Features(notices=True), jobs=True)
def what_was_sent_has_arrived(patch: pytest.MonkeyPatch) -> None:
    heard = Notices.heard
    patch.setattr(Notices, "heard", lambda self, event, now_ms: heard(self, Notified(event.number), now_ms))


@mutant("I3", features=BURST, events=6_000)
def burst_pays_for_default_work(patch: pytest.MonkeyPatch) -> None:
    payer = TenantAccount.payer
    patch.setattr(TenantAccount, "payer", lambda self, request, may_burst: payer(self, request, True))


@mutant("I3", features=BURST, events=6_000)
def quota_and_burst_are_one_limit(patch: pytest.MonkeyPatch) -> None:
    ceiling = TenantAccount.ceiling

    def of_both(self: TenantAccount) -> ByAccount:
        both = ceiling(self)
        return both._replace(hard=both.both)

    patch.setattr(TenantAccount, "ceiling", of_both)


@mutant("of burst", features=BURST, events=4_000, regions=2)
def burst_that_nobody_uses_never_comes_back(patch: pytest.MonkeyPatch) -> None:
    of_burst = AccountClaims.of_burst

    def at_least_as_now(self: AccountClaims, paid: Any) -> Any:
        claim = of_burst(self, paid)
        return claim._replace(needed=claim.needed.at_least(claim.granted))

    patch.setattr(AccountClaims, "of_burst", at_least_as_now)


@mutant("recovery: ", features=RECOVERY, events=4_000, regions=3)
def a_verdict_stands_whatever_becomes_of_the_room(patch: pytest.MonkeyPatch) -> None:
    """Regions that say other sums of their nodes are no reason to look again."""
    propose = Recovery.propose

    class AsBefore(list[Any]):
        def __ne__(self, other: object) -> bool:
            return False

    def without(self: Recovery, *args: Any) -> Any:
        if self._seen and None not in self._verdicts.values():
            self._seen = AsBefore(self._seen)
        return propose(self, *args)

    patch.setattr(Recovery, "propose", without)


@mutant("recovery: ", features=RIVALS, events=4_000, regions=2, jobs=False, operator_every_ms=0)
def a_verdict_rests_on_its_own_service_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "_rests_on_another", lambda self: None)


@mutant("recovery: ", features=RIVALS, events=4_000, regions=2, jobs=False, operator_every_ms=0)
def nobody_else_leaves_the_lost_region(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "_go", lambda self, leaver, lost: frozenset())


@mutant("recovery: ", features=RECOVERY, events=4_000, regions=2)
def what_is_required_is_only_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "refused", lambda wanted, before, verdict: False)
