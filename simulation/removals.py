"""Removed nodes in the simulator: some are empty and go, some lose their machine for good; most join again.

Who vouches that a machine is destroyed tells the truth: it was switched off before. Decides when nodes go and come, and
checks at the revision at which a node's record goes that somebody asked for it, that nothing is bound to it, that no
zombie is left of it, and that nothing runs there.
"""

from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.store import keys
from atoll.store.store import prefix_end
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.operators import Operators

AGAIN_MS = 10_000
SCRAPPED = 0.4  # of the removals are of a machine that is lost for good
LOST = objects_pb2.NODE_STATE_LOST


class Removals:
    def __init__(self, operators: "Operators") -> None:
        self._operators = operators
        self._world = operators.world
        self._asked: set[tuple[str, str]] = set()  # region and node

    def act(self) -> None:
        """One random removal, of a node that is out of use or is put out of use for ever."""
        rng = self._world.kernel.random
        node = rng.choice(self._world.nodes)
        if rng.random() < SCRAPPED and not node.scrapped:
            node.scrap()
            self._until_gone(node)
        elif (record := self._record(node)) and (record.cordoned or record.state == LOST):
            self._ask(node)

    def _record(self, node: "Node") -> objects_pb2.Node | None:
        item = self._world.state_of[node.region].get(keys.node(keys.region_root(node.region), node.name))
        return objects_pb2.Node.FromString(item.value) if item else None

    def _ask(self, node: "Node") -> None:
        self._asked.add((node.region, node.name))
        request = regional_pb2.RemoveNodeRequest(
            region=node.region, name=node.name, reason="it is old", destroyed=node.scrapped
        )
        self._operators.want(request)

    def _until_gone(self, node: "Node") -> None:
        """A machine that is lost for good is cleared away, however often that has to be asked for."""
        if node.scrapped and self._record(node):
            self._ask(node)
            self._world.kernel.after(AGAIN_MS, b"remove again", lambda: self._until_gone(node))

    def look(self, region: str, name: str) -> None:
        """A node's record is gone."""
        node = next(node for node in self._world.nodes_of[region] if node.name == name)
        if (region, name) not in self._asked:
            raise Violated(f"I11: node {name} is removed, and nobody asked for it")
        if slot := self._world.placements_of[region].on(name):
            raise Violated(f"I7: node {name} is removed while it has {slot}")
        prefix = keys.region_root(region) + b"zombie/" + name.encode() + b"/"
        if zombies := self._world.state_of[region].range(prefix, prefix_end(prefix)).items:
            raise Violated(f"I7: node {name} is removed while it has a zombie: {zombies[0].key!r}")
        if runs := node.alive_runs():
            raise Violated(f"I7: node {name} is removed while {runs[0]} runs on it")
        self._world.checkers.seen["nodes removed"] += 1
        kernel = self._world.kernel
        kernel.after(0, b"switched off", node.scrap)
        kernel.after(kernel.between(1_000, 60_000), b"joins", node.join)
