"""Operators: they cordon, drain and label regions, and cordon, drain and taint nodes.

Changes of regions go the way of users' changes (users.py). A change of a node is asked of a leader of its region, word
for word, until it has an answer. Decides what operators want in this history, and checks at every revision that a node
record says what the last request of an operator said: hellos and losses change nothing of it, and no request is done
twice. That drained nodes are empty in the end is checked in convergence.py.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.store.store import Change
from regional.core.commands import Reply
from regional.core.events import NodeChangeAsked
from simulation.removals import Removals
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.world import World

SERVE, CORDON, DRAIN = regional_pb2.NODE_DUTY_SERVE, regional_pb2.NODE_DUTY_CORDON, regional_pb2.NODE_DUTY_DRAIN
COUNTRY = "country"  # the label of regions that residency goes by
COUNTRIES = ("eu", "us")
TAINTS = (objects_pb2.TAINT_EFFECT_NO_SCHEDULE, objects_pb2.TAINT_EFFECT_NO_EXECUTE)
LONGEST_DRAIN_S = 120
AGAIN_MS = 5_000
Request = regional_pb2.UpdateNodeRequest | regional_pb2.RemoveNodeRequest


@dataclass(slots=True)
class Operators:
    world: "World"
    removals: "Removals" = field(init=False)
    _waiting: dict[int, Request] = field(default_factory=dict)
    _requests: dict[str, Request] = field(default_factory=dict)  # by id
    _out: dict["Node", None] = field(default_factory=dict)  # asked to be cordoned or drained
    _done: set[str] = field(default_factory=set)
    _asked: int = 0

    def __post_init__(self) -> None:
        self.removals = Removals(self)

    def act(self) -> None:
        """One random change."""
        if self.world.shape.features.removals and self.world.kernel.chance(0.3):
            self.removals.act()
        elif self.world.kernel.chance(0.4):
            self._change_region()
        else:
            self._change_node(self.world.kernel.random.choice(self.world.nodes))

    def _change_region(self) -> None:
        rng = self.world.kernel.random
        request = global_pb2.UpdateRegionRequest(name=rng.choice(self.world.regions))
        choice = rng.random()
        if choice < 0.5:
            request.cordoned = False
        elif choice < 0.65:
            request.cordoned = True
        elif choice < 0.85:
            request.draining = True
        else:
            request.labels.add(key=COUNTRY, value=rng.choice(COUNTRIES))
        self.world.users.want(request)

    def _change_node(self, node: "Node") -> None:
        rng = self.world.kernel.random
        request = regional_pb2.UpdateNodeRequest(region=node.region, name=node.name, reason="maintenance")
        choice = rng.random()
        if choice < 0.8:
            # with two nodes of its region out of use there is rarely room to move to
            crowded = sum(other.region == node.region for other in self._out) > 1
            request.duty = SERVE if crowded or node in self._out else rng.choice([SERVE, CORDON, DRAIN, DRAIN])
            if request.duty == SERVE:
                self._out.pop(node, None)
            else:
                self._out[node] = None
            request.deadline_s = rng.randint(1, LONGEST_DRAIN_S)
        elif choice < 0.9:
            request.set_taints.add(key="broken", value="disk", effect=rng.choice(TAINTS))
        else:
            request.remove_taints.add(key="broken")
        self.want(request)

    def turn_a_region(self) -> None:
        """All nodes of a region take no more work; or all do again, where none does."""
        nodes = self.world.nodes_of[self.world.kernel.random.choice(self.world.regions)]
        duty = SERVE if all(node in self._out for node in nodes) else CORDON
        for node in nodes:
            self.want(regional_pb2.UpdateNodeRequest(region=node.region, name=node.name, reason="upgrade", duty=duty))

    def want(self, request: Request) -> None:
        self._asked += 1
        request.request_id = f"node-change-{self._asked}"
        self._waiting[self._asked] = self._requests[request.request_id] = request
        self._ask(self._asked)

    def _ask(self, number: int) -> None:
        request = self._waiting.get(number)
        if request is None:
            return
        kernel = self.world.kernel
        leaders = self.world.leading(self.world.candidates_of[request.region])
        if leaders:
            leader = kernel.random.choice(leaders)
            asked = NodeChangeAsked(number, request)
            kernel.after(self.world.network.delay(), b"node change", lambda: leader.post(asked), leader)
        kernel.after(AGAIN_MS, b"node change again", lambda: self._ask(number))

    def hear(self, reply: Reply) -> None:
        """The leader's answer; what is not known, or not sent, is asked again."""
        if reply.error or reply.reply_to not in self._waiting:
            return
        request = self._waiting.pop(reply.reply_to)
        if reply.refusal is None and request.request_id not in self._done:
            raise Violated(f"I11: {request.request_id} of {request.name} was answered, and is not done")

    def look_at_removed(self, change: Change) -> None:
        """At the note that a node was removed."""
        if change.item:
            self._done.add(objects_pb2.RemovedNode.FromString(change.item.value).request.id)

    def look(self, change: Change) -> None:
        """At a node record's new revision."""
        before, after = (
            objects_pb2.Node.FromString(item.value if item else b"") for item in (change.previous, change.item)
        )
        known, name = {one.id for one in before.requests}, after.metadata.name
        done = [one.id for one in after.requests if one.id not in known]
        if len(done) > 1 or self._done.intersection(done):
            raise Violated(f"I11: {done[-1]} of {name} is done twice")
        self._done.update(done)
        request = self._requests[done[0]] if done else regional_pb2.UpdateNodeRequest()
        changes = request if isinstance(request, regional_pb2.UpdateNodeRequest) else regional_pb2.UpdateNodeRequest()
        wanted = (before.cordoned, before.draining)
        if changes.duty:
            wanted = (changes.duty != SERVE, changes.duty == DRAIN)
        if (after.cordoned, after.draining) != wanted:
            raise Violated(f"I11: {name} has a duty that no operator asked for")
        if not (changes.set_taints or changes.remove_taints) and list(after.taints) != list(before.taints):
            raise Violated(f"I11: {name} has taints that no operator asked for")

    def unanswered(self) -> list[str]:
        return [request.request_id for request in self._waiting.values()]
