"""Where a run listens, on nodes that give every run a loopback address of its own.

Many nodes on one machine share its ports; with an address each, replicas may all listen at the same number, as they do
in containers. The address follows from the node and the run alone, so nothing is kept and an adopted run has the same.
Two runs meet at one address about once in four million pairs: the later one cannot listen, and its restart elsewhere
is another run.
"""

import hashlib
import ipaddress

from agent.core.runs import RunName

LOOPBACK = "127.0.0.1"


class Addresses:
    """`network` within 127.0.0.0/8, for example 127.64.0.0/10; empty: all runs share 127.0.0.1."""

    def __init__(self, network: str, node: str) -> None:
        """Raises ValueError for a network that is no part of the loopback's."""
        self._network = ipaddress.IPv4Network(network) if network else None
        if self._network and not self._network.is_loopback:
            raise ValueError(f"run_network {network} is not within 127.0.0.0/8")
        self._node = node

    def own(self, run: RunName) -> str:
        """The run's own address; empty when it has none."""
        if self._network is None:
            return ""
        digest = hashlib.sha256(f"{self._node} {run}".encode()).digest()
        inside = max(1, self._network.num_addresses - 2)  # without the first and the last
        return str(self._network[1 + int.from_bytes(digest[:8]) % inside])

    def probed(self, run: RunName) -> str:
        """Where the ports of the run are asked."""
        return self.own(run) or LOOPBACK
