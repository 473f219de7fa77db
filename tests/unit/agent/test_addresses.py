import ipaddress

import pytest

from agent.addresses import Addresses
from tests.support.agent_core import run

NETWORK = "127.64.0.0/10"


def test_every_run_has_an_address_of_its_own_which_stays() -> None:
    addresses = Addresses(NETWORK, "n1")
    many = [run(n) for n in range(1, 201)]
    found = [addresses.own(one) for one in many]
    assert len(set(found)) == len(many)
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(NETWORK) for one in found)
    assert [Addresses(NETWORK, "n1").own(one) for one in many] == found


def test_the_same_run_name_on_another_node_is_elsewhere() -> None:
    assert Addresses(NETWORK, "n1").own(run()) != Addresses(NETWORK, "n2").own(run())


def test_without_a_network_all_share_the_loopback() -> None:
    addresses = Addresses("", "n1")
    assert (addresses.own(run()), addresses.probed(run())) == ("", "127.0.0.1")


@pytest.mark.parametrize("network", ["10.0.0.0/8", "127.0.0.1/8", "loopback"])
def test_only_a_part_of_the_loopback_will_do(network: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words of ipaddress
        Addresses(network, "n1")
