"""What a run is told about itself: the ATOLL_* names and its GPUs in its environment. They win over the task's own."""

from agent.core.runs import RunName
from atoll.api.v1 import agent_pb2
from atoll.model.slots import SECOND_COPY, fencing_token


def environment(
    run: RunName, assign: agent_pb2.Assign, node: str, region: str, address: str = "", reached: str = ""
) -> tuple[tuple[str, str], ...]:
    """The task's variables and ours. ATOLL_TOKEN rises with every attempt: for outside resources to compare.

    `address`: where the run listens, when that is an address of its own. `reached`: where others dial its ports.
    """
    token = fencing_token(assign.token)
    own = {
        "ATOLL_REGION": region,
        "ATOLL_NODE": node,
        "ATOLL_TENANT": run.slot.tenant,
        "ATOLL_WORKLOAD": run.slot.workload,
        "ATOLL_TASK": run.slot.task,
        "ATOLL_INDEX": str(run.slot.index % SECOND_COPY),
        "ATOLL_REPLICAS": str(assign.task.replicas),
        "ATOLL_SLOT": str(run.slot),
        "ATOLL_ATTEMPT": str(run.rank.attempt),
        "ATOLL_TOKEN": f"{token.store_life}.{token.epoch}.{token.term}.{token.attempt}",
        "ATOLL_GENERATION": str(assign.generation),
    }
    if address:
        own["ATOLL_ADDRESS"] = address
    if reached:
        own["ATOLL_REACHED_AT"] = reached
    if assign.gpus:
        own |= _gpus(assign)
    for port in assign.task.ports:
        own[f"ATOLL_PORT_{port.name.upper().replace('-', '_')}"] = str(port.number)
    return tuple({**{label.key: label.value for label in assign.task.env}, **own}.items())


def _gpus(assign: agent_pb2.Assign) -> dict[str, str]:
    """The devices it holds, and how much of each. A container sees its own alone and counts them from 0; a process sees
    all of the node's, and CUDA has to be told."""
    numbers = ",".join(map(str, assign.gpus))
    told = {
        "ATOLL_GPUS": numbers,
        "ATOLL_GPU_MILLI": str(assign.task.resources.requests.gpu_milli // len(assign.gpus)),
        "NVIDIA_VISIBLE_DEVICES": numbers,
    }
    if not assign.task.image:
        told |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}
    return told
