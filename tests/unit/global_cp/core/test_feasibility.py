"""What no node could ever hold is refused as it is applied, once every region that it may use has told of its nodes."""

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid
from atoll.model.resources import Vector
from global_cp.core.admission import mistakes_in_workload
from global_cp.core.defaults import complete_workload
from tests.support.global_core import UNIT, GlobalCore, workload
from tests.unit.global_cp.core.test_admission import NORTH, ROOM, TASK


def test_feasibility_is_silent_until_every_allowed_region_is_known() -> None:
    huge = complete_workload(workload(unit=Vector(64_000, 64_000)))
    assert mistakes_in_workload(huge, NORTH | {"south": objects_pb2.Region()}, {"north": ROOM}) == []
    assert mistakes_in_workload(huge, NORTH, {"north": objects_pb2.RegionSummary()}) == []
    assert mistakes_in_workload(huge, NORTH, {"north": objects_pb2.RegionSummary(nodes_total=1)}) == []
    (mistake,) = mistakes_in_workload(huge, NORTH, {"north": ROOM})
    assert mistake.message.endswith("no node could ever hold this; the most is cpu 4, memory 8Gi"), "of what is asked"
    (mistake,) = mistakes_in_workload(
        complete_workload(workload(unit=Vector(1, 1, gpu_milli=1_000))), NORTH, {"north": ROOM}
    )
    assert mistake.message.endswith("the most is cpu 4, memory 8Gi, gpu 0")


def _with_gpus(**most: int) -> objects_pb2.RegionSummary:
    """A region whose nodes have at most so many of each model."""
    summary = objects_pb2.RegionSummary()
    summary.CopyFrom(ROOM)
    summary.largest_node.gpu_milli = 1_000 * max(most.values(), default=8)
    summary.gpu_models.extend(objects_pb2.GpuModel(model=model, most=count) for model, count in most.items())
    return summary


def _asks_gpus(gpu_milli: int, *models: str, cpu_milli: int = 1) -> objects_pb2.Workload:
    w = workload(unit=Vector(cpu_milli, 1, gpu_milli=gpu_milli))
    w.spec.tasks[0].gpu_models.extend(models)
    return complete_workload(w)


def _gpu_mistakes(w: objects_pb2.Workload, **summaries: objects_pb2.RegionSummary) -> dict[str, str]:
    regions = {name: objects_pb2.Region() for name in ("north", "south")}
    return {m.path: m.message for m in mistakes_in_workload(w, regions, summaries)}


def test_gpu_models_that_no_node_has_are_refused_with_what_there_is() -> None:
    north, south = _with_gpus(A100=2, T4=4), _with_gpus(T4=8)
    said = _gpu_mistakes(_asks_gpus(500, "H100", "V100"), north=north, south=south)
    most = "the most on one node: A100 2, T4 8"
    assert said == {f"{TASK}.gpuModels": f"a GPU of H100 or V100: no node could ever hold this; {most}"}
    said = _gpu_mistakes(_asks_gpus(3_000, "A100"), north=north, south=south)
    assert said == {f"{TASK}.gpuModels": f"3 GPUs of A100: no node could ever hold this; {most}"}
    assert _gpu_mistakes(_asks_gpus(2_000, "A100", "H100"), north=north, south=south) == {}
    assert _gpu_mistakes(_asks_gpus(6_000, "A100", "T4"), north=_with_gpus(A100=3, T4=3), south=ROOM) != {}, "five"
    both = _with_gpus(A100=2, T4=4)
    both.largest_node.gpu_milli = 6_000
    assert _gpu_mistakes(_asks_gpus(6_000, "A100", "T4"), north=both, south=ROOM) == {}, "a node may have both"


def test_all_reasons_why_no_node_could_hold_it_come_at_once_and_of_one_region() -> None:
    said = _gpu_mistakes(_asks_gpus(16_000, "H100"), north=_with_gpus(A100=2), south=ROOM)
    assert list(said) == [f"{TASK}.resources.requests", f"{TASK}.gpuModels"]
    assert said[f"{TASK}.gpuModels"].endswith("; the most on one node: A100 2")
    large = _with_gpus(T4=1)
    large.largest_node.cpu_milli = 64_000
    said = _gpu_mistakes(_asks_gpus(1_000, "A100", cpu_milli=60_000), north=large, south=_with_gpus(A100=1))
    assert said == {f"{TASK}.gpuModels": "a GPU of A100: no node could ever hold this; the most on one node: T4 1"}


def test_gpu_models_are_not_refused_where_a_region_may_have_them_unsaid() -> None:
    asked, known = _asks_gpus(1_000, "H100"), _with_gpus(A100=2)
    assert _gpu_mistakes(asked, north=known) == {}, "south has not reported"
    assert _gpu_mistakes(asked, north=known, south=objects_pb2.RegionSummary()) == {}, "no node is described yet"
    assert _gpu_mistakes(asked, north=known, south=_with_gpus()) == {}, "GPUs, and no word of their models"
    assert list(_gpu_mistakes(asked, north=known, south=ROOM)) == [f"{TASK}.gpuModels"]


def test_what_was_feasible_may_be_applied_again_though_its_nodes_are_gone() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1)
    core.tenant()
    core.say(1, summary=_with_gpus(A100=2))
    w = workload(unit=Vector(100, 64, gpu_milli=1_000))
    w.spec.tasks[0].gpu_models.append("A100")
    assert isinstance(core.apply(w), global_pb2.ApplyWorkloadResponse)
    core.say(1, summary=ROOM)
    assert isinstance(core.apply(w), global_pb2.ApplyWorkloadResponse), "as it is"
    w.spec.tasks[0].command[:] = ["another"]
    w.spec.tasks[0].replicas = 1
    assert isinstance(core.apply(w), global_pb2.ApplyWorkloadResponse), "changed in what no node is asked for"
    w.spec.tasks[0].name = "another"
    assert isinstance(core.apply(w), global_pb2.ApplyWorkloadResponse)
    more, other_models, other = (objects_pb2.Workload() for _ in range(3))
    for spoiled in (more, other_models, other):
        spoiled.CopyFrom(w)
    more.spec.tasks[0].resources.requests.gpu_milli = 2_000
    other_models.spec.tasks[0].gpu_models[:] = ["H100"]
    other.metadata.name = "other"
    for spoiled in (more, other_models, other):
        assert isinstance(core.apply(spoiled), Invalid)
    core.connect(2, "south")
    core.say(2, summary=ROOM)
    w.spec.regions.append("south")
    assert isinstance(core.apply(w), Invalid), "it was never asked of south alone"
    w.spec.regions.append("north")
    assert isinstance(core.apply(w), global_pb2.ApplyWorkloadResponse)
    core.clean()


def test_a_gang_may_be_applied_again_though_some_of_its_nodes_are_gone() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1)
    core.tenant()
    room = objects_pb2.RegionSummary(largest_node=(UNIT * 4).to_proto(), capacity=(UNIT * 4).to_proto())
    core.say(1, summary=room)
    gang = workload(replicas=4)
    gang.spec.tasks[0].gang = True
    assert isinstance(core.apply(gang), global_pb2.ApplyWorkloadResponse)
    room.capacity.CopyFrom((UNIT * 2).to_proto())
    core.say(1, summary=room)
    gang.spec.tasks[0].command[:] = ["another"]
    assert isinstance(core.apply(gang), global_pb2.ApplyWorkloadResponse)
    gang.spec.tasks[0].replicas = 5
    assert isinstance(core.apply(gang), Invalid)
    core.clean()
