"""Policies: admins make revisions, promote them, try them in a region and roll them back, while everything goes on.

Decides what they want in this history. Checks that a revision never changes; that a share says a revision which is or
was in force in its region, with what that revision says its tasks' strategies weigh; that a decision is made by such a
share and by no other weights; and that in the end all shares say what is in force.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.model import strategies
from atoll.store import keys
from atoll.store.store import Change, prefix_end
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

Weights = dict[str, float]
NAMES = ("bin-pack", "spread", "calm", "tidy")  # of these the last two are not built in
SCORES = ("fullness", "emptiness", "tightness", "apart", "alike", "warm")
WISHES = dict(strategies.WISHES)
TOLERANCE = 1e-6  # a decision has single precision


class Policies:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._revisions: dict[int, objects_pb2.SchedulerPolicy] = {0: objects_pb2.SchedulerPolicy()}
        self._force = objects_pb2.PolicyInForce()
        self._ever: defaultdict[str, set[int]] = defaultdict(lambda: {0})  # in force in each region, now or before
        self._strategies: dict[tuple[str, str, str, int], str] = {}  # of (tenant, workload, task, generation)

    # ---- what admins want

    def act(self) -> None:
        rng, want = self._world.kernel.random, self._world.users.want
        choice, numbers = rng.random(), sorted(self._revisions)
        if choice < 0.35 or len(numbers) == 1:
            want(global_pb2.ApplyPolicyRequest(policy=self._drawn()))
        elif choice < 0.6:
            want(global_pb2.PromotePolicyRequest(policy_revision=rng.choice(numbers)))
        elif choice < 0.8:
            region = rng.choice(self._world.regions)
            want(global_pb2.PromotePolicyRequest(policy_revision=rng.choice(numbers), regions=[region]))
        else:
            number = rng.choice([None, *numbers])
            want(global_pb2.RollBackPolicyRequest(policy_revision=number))

    def _drawn(self) -> objects_pb2.SchedulerPolicy:
        rng = self._world.kernel.random
        policy = objects_pb2.SchedulerPolicy(metadata=objects_pb2.Metadata(name="weights"))
        for name in rng.sample(NAMES, rng.randint(1, len(NAMES))):
            scores = [objects_pb2.ScoreWeight(score=s, weight=rng.randint(1, 8)) for s in rng.sample(SCORES, 2)]
            policy.spec.strategies.add(name=name, weights=scores, decreasing=rng.random() < 0.3)
        known = ["", "spread", *(one.name for one in policy.spec.strategies)]
        policy.spec.default_strategy = rng.choice(known)
        return policy

    def name_one(self, task: objects_pb2.Task) -> None:
        """A task that names a strategy, which perhaps no policy in force knows: then it is refused."""
        if self._world.shape.features.policies:
            task.strategy = self._world.kernel.random.choice(["", "", *NAMES])

    # ---- at every revision

    def look(self, change: Change) -> None:
        """At a change of /g/policy, /g/policy_in_force or /g/share."""
        kind, last = change.key.split(b"/")[2], change.key.rpartition(b"/")[2].decode()
        if kind == b"policy":
            self._made(int(last), change)
        elif kind == b"policy_in_force":
            assert change.item is not None
            self._force = objects_pb2.PolicyInForce.FromString(change.item.value)
            for region in self._world.regions:
                self._ever[region].add(self._number(region))
            self._world.checkers.seen["policies in force"] += 1
        elif change.item:
            self._told(objects_pb2.Share.FromString(change.item.value))

    def _made(self, number: int, change: Change) -> None:
        if number in self._revisions or change.item is None:
            raise Violated(f"policy: revision {number} was changed")
        self._revisions[number] = objects_pb2.SchedulerPolicy.FromString(change.item.value)

    def _number(self, region: str) -> int:
        tried = region in self._force.canary_regions
        return self._force.canary_revision if tried else self._force.policy_revision

    def _told(self, share: objects_pb2.Share) -> None:
        if share.policy_revision not in self._ever[share.region]:
            raise Violated(f"policy: {share.metadata.name} in {share.region} says revision {share.policy_revision}")
        own = {one.name: {part.score: part.weight for part in one.weights} for one in share.strategies}
        for task in share.spec.tasks:
            of = (share.metadata.tenant, share.metadata.name, task.name, share.metadata.generation)
            self._strategies[of] = task.strategy
            name = task.strategy or share.default_strategy or "bin-pack"
            weights = own.get(name) or dict(strategies.WEIGHTS.get(name, ()))
            if share.removed or weights == self._weights(share.policy_revision, task.strategy):
                continue
            raise Violated(f"policy: {of} is told {weights} by revision {share.policy_revision}")

    def _weights(self, number: int, named: str) -> Weights:
        """By the definition: what the revision says, else what is built in, else the default."""
        policy = self._revisions[number].spec
        default = policy.default_strategy or "bin-pack"
        said = {one.name: {part.score: part.weight for part in one.weights} for one in policy.strategies}
        for name in (named or default, default):
            if name in said or name in strategies.WEIGHTS:
                weights = said.get(name) or dict(strategies.WEIGHTS[name])
                return {score: weight for score, weight in weights.items() if weight}
        raise Violated(f"policy: revision {number} does not know its default {default}")

    # ---- at every decision

    def decided(self, region: str, decision: objects_pb2.Decision) -> None:
        number, slot = decision.policy_revision, decision.slot
        if number not in self._ever[region]:
            raise Violated(f"policy: {region} decided by revision {number}, which was never in force there")
        named = self._strategies.get((slot.tenant, slot.workload, slot.task, decision.generation))
        if named is None or not decision.scores:
            return
        weights = self._weights(number, named)
        for term in decision.scores[0].terms:
            if term.name in strategies.SCORES and abs(term.weight - weights.get(term.name, 0)) > TOLERANCE:
                raise Violated(
                    f"policy: {slot} was placed by {term.name} x {term.weight}, revision {number}: {weights}"
                )
        self._world.checkers.seen["decided by a policy"] += number > 0

    # ---- in the end

    def missing(self) -> str:
        """Shares, as told and as admitted, that do not say what is in force."""
        state = self._world.global_state
        for item in state.range(b"/g/share/", prefix_end(b"/g/share/")).items:
            share = objects_pb2.Share.FromString(item.value)
            admitted = self._world.state_of[share.region].get(
                keys.region_workload(keys.region_root(share.region), share.metadata.tenant, share.metadata.name)
            )
            said = {share.policy_revision, *([_revision(admitted.value)] if admitted else ())}
            if not share.removed and said != {self._number(share.region)}:
                return f"{share.metadata.name} in {share.region} says policy {said}, not {self._number(share.region)}"
        return ""


def _revision(value: bytes) -> int:
    return objects_pb2.Share.FromString(value).policy_revision
