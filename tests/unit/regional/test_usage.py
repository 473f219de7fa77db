"""The metrics of what tenants use, by account."""

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.usage import NAME, Usage
from tests.support.regional_world import RegionalWorld, task

UNIT = Vector(1_000, 512)


def test_both_accounts_of_a_tenant_are_told() -> None:
    world = RegionalWorld()
    world.win()
    world.join("n1", capacity=UNIT * 10)
    world.grant("acme", UNIT * 2, burst=UNIT, seq=1)
    world.share("web", task(replicas=3, cpu=1_000, memory=512), priority=objects_pb2.PRIORITY_LOW)
    (family,) = Usage(lambda: world.state).collect()
    assert family.name == NAME
    told = {tuple(sample.labels.values()): sample.value for sample in family.samples}
    assert told == {
        ("acme", "hard", "cpu_milli", "limit"): 2_000,
        ("acme", "hard", "memory_mib", "limit"): 1_024,
        ("acme", "burst", "cpu_milli", "limit"): 1_000,
        ("acme", "burst", "memory_mib", "limit"): 512,
        ("acme", "hard", "cpu_milli", "bound"): 2_000,
        ("acme", "hard", "memory_mib", "bound"): 1_024,
        ("acme", "burst", "cpu_milli", "bound"): 1_000,
        ("acme", "burst", "memory_mib", "bound"): 512,
    }


def test_a_standby_tells_nothing() -> None:
    (family,) = Usage(lambda: None).collect()
    assert not family.samples
