"""Devices are chosen, told, held exactly, found again and given back."""

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.errors import InvariantBroken
from atoll.model import explain, strategies
from regional.core.claims import mistake_in_claims
from regional.core.gpus import Gpus, choose
from regional.core.node_table import NodeTable
from tests.support.regional_world import RegionalWorld, task
from tests.unit.regional.core.test_filters import why


def held(world: RegionalWorld, node: str = "n1") -> dict[int, int]:
    world.check()
    return world.state.table.gpus.used(world.state.table.row_of[node])


def test_parts_share_a_device_so_that_others_stay_whole(world: RegionalWorld) -> None:
    session = world.join("n1", gpus=("T4", "T4"))
    world.share("half", task(replicas=3, cpu=100, gpu=500))
    assert held(world) == {0: 1_000, 1: 500}
    assert sorted(a.gpus[0] for a in world.messages(session, "assign")) == [0, 0, 1]
    assert sorted(s.gpus[0] for s in world.slots()) == [0, 0, 1]
    world.share("quarter", task(cpu=100, gpu=250))
    world.share("whole", task(cpu=100, gpu=1_000))
    assert held(world) == {0: 1_000, 1: 750}
    assert why(world) == {explain.INSUFFICIENT["gpu_milli"]: "without enough left on its GPUs; it lacks 1"}


def test_a_part_goes_where_least_is_left() -> None:
    gpus = Gpus(1)
    gpus.describe(0, {0: "a", 1: "a", 2: "a"})
    gpus.charge(0, (1,), 300)
    gpus.charge(0, (2,), 600)
    assert choose(gpus.left[0].tolist(), 400) == (2,)
    assert choose(gpus.left[0].tolist(), 500) == (1,)
    assert choose(gpus.left[0].tolist(), 800) == (0,)
    assert choose(gpus.left[0].tolist(), 1_000) == (0,)


def test_several_whole_ones_of_a_model(world: RegionalWorld) -> None:
    world.join("n1", gpus=("T4", "A100", "T4", "A100"))
    world.share("wrong", task(gpu=1_000, gpu_models=["H100", "V100"]))
    assert why(world) == {explain.GPU_MODEL: "without (enough) GPUs of the model it needs: H100 or V100"}
    world.share("pair", task(gpu=2_000, gpu_models=["A100"]))
    assert held(world) == {1: 1_000, 3: 1_000}
    assert [list(slot.gpus) for slot in world.slots()] == [[1, 3]]


def test_devices_come_back_exactly_and_cure_what_waits(world: RegionalWorld) -> None:
    session = world.join("n1", gpus=("T4",))
    world.share("one", task(gpu=700))
    world.share("two", task(gpu=400))
    (first,) = world.slots()
    assert held(world) == {0: 700}
    world.share("one", task(gpu=700), generation=2, removed=True)
    world.close(session, first)
    assert held(world) == {0: 400}
    assert [slot.id.workload for slot in world.slots()] == ["two"]


def test_a_refused_binding_gives_its_devices_back(world: RegionalWorld) -> None:
    world.join("n1", gpus=("T4",))
    world.share("one", task(gpu=600))
    world.hold = True
    world.share("two", task(gpu=300))
    world.settle(world.held.pop())  # its admission; its binding is sent
    assert held(world) == {0: 900}
    world.settle(world.held.pop(), lose="before")  # and sent again
    assert held(world) == {0: 900}
    world.share("two", task(gpu=300), generation=2, removed=True)
    world.settle(world.held.pop(), lose="before")
    world.release_held()
    assert held(world) == {0: 600}


def test_a_new_leader_finds_them_in_the_records_also_of_zombies(world: RegionalWorld) -> None:
    world.join("n1", gpus=("T4", "T4"))
    world.share("one", task(gpu=300))
    world.share("two", task(gpu=1_000))
    assert held(world) == {0: 300, 1: 1_000}
    world.take_over()
    assert held(world) == {0: 300, 1: 1_000}
    world.advance(60_000)
    assert [list(z.gpus) for z in world.zombies()] == [[0], [1]]
    assert held(world) == {0: 300, 1: 1_000}
    world.take_over()
    assert held(world) == {0: 300, 1: 1_000}


def test_a_device_that_is_gone_stays_charged_until_its_work_is(world: RegionalWorld) -> None:
    world.join("n1", gpus=("T4", "T4"))
    world.share("whole", task(replicas=2, gpu=1_000))
    world.join("n1", gpus=("T4",), incarnation=2)
    assert held(world) == {0: 1_000, 1: 1_000}
    world.share("more", task(gpu=100))
    assert explain.INSUFFICIENT["gpu_milli"] in why(world)


def test_a_device_never_gives_more_than_it_has() -> None:
    gpus = Gpus(1)
    gpus.describe(0, {0: "a"})
    gpus.charge(0, (0,), 600)
    with pytest.raises(InvariantBroken, match="I3"):
        gpus.charge(0, (0,), 500)
    with pytest.raises(InvariantBroken, match="I3"):
        gpus.credit(0, (0,), 1_200)


def test_rows_and_numbers_grow_and_are_used_again(world: RegionalWorld) -> None:
    for number in range(70):
        world.join(f"n{number}", gpus=("T4",) * (number % 3))
    world.share("all", task(replicas=69, gpu=1_000))
    assert len(world.slots()) == 69
    world.check()


def test_scores_of_gpus_go_by_what_was_asked_for(world: RegionalWorld) -> None:
    world.join("n1", gpus=("T4", "T4"))
    world.share("half", task(replicas=2, cpu=100, gpu=500, strategy="fgd"))
    world.share("whole", task(cpu=100, gpu=1_000, strategy="expected-fill"))
    kinds = world.state.table.typical.kinds
    assert [(kind.devices, kind.milli) for kind in kinds] == [(1, 500), (1, 1_000)]
    assert held(world) == {0: 1_000, 1: 1_000}
    world.take_over()
    world.share("more", task(cpu=100, gpu=1_000))
    assert len(world.state.table.typical.kinds) == 2


def test_a_batch_of_one_task_gets_devices_one_after_the_other(world: RegionalWorld) -> None:
    for name in ("n1", "n2"):
        world.join(name, gpus=("T4",) * 8)
    for number, strategy in enumerate(strategies.FOR_GPUS):
        world.share(f"w{number}", task(replicas=3, cpu=10, gpu=(300, 1_000)[number % 2], strategy=strategy))
    assert len(world.slots()) == 3 * len(strategies.FOR_GPUS)
    world.check()


@pytest.mark.parametrize(
    ("gpus", "gpu_milli", "said"),
    [
        ([(0, "T4"), (0, "T4")], 2_000, "numbered once each"),
        ([(64, "T4")], 1_000, "numbered once each"),
        ([(-1, "T4")], 1_000, "numbered once each"),
        ([(0, "")], 1_000, "has no model"),
        ([(0, "a b")], 1_000, "the model of GPU 0"),
        ([(0, "T4")], 2_000, "1 GPUs, and says 2000 milli"),
        ([], 500, "0 GPUs, and says 500 milli"),
    ],
)
def test_impossible_claims_are_refused(gpus: list[tuple[int, str]], gpu_milli: int, said: str) -> None:
    hello = agent_pb2.Hello(capacity=objects_pb2.Resources(gpu_milli=gpu_milli))
    hello.gpus.extend(objects_pb2.Gpu(number=number, model=model) for number, model in gpus)
    assert said in (mistake_in_claims(hello) or "")


def test_no_node_gives_back_more_than_it_holds() -> None:
    table = NodeTable()
    rows = [table.add(name) for name in ("n0", "n1")]
    table.charge_all(rows, [(500, 64, 0, 0), (300, 64, 0, 0)])
    table.credit_all(rows, [(500, 0, 0, 0), (100, 64, 0, 0)])
    assert table.used[rows].tolist() == [[0, 64, 0, 0], [200, 0, 0, 0]]
    assert table.in_use.tolist() == [200, 64, 0, 0]
    with pytest.raises(InvariantBroken, match="I3"):
        table.credit_all(rows, [(0, 64, 0, 0), (201, 0, 0, 0)])
