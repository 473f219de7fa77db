"""Why work waits: stable reason codes and the sentences people read for them.

One table, used by the scheduler when it counts refusals, by reports and by the CLI.
"""

from collections.abc import Sequence

from atoll.api.v1 import objects_pb2
from atoll.model.resources import DIMENSIONS, format_quantity

NODE_NOT_READY = "NodeNotReady"
NODE_CORDONED = "NodeCordoned"
NODE_RESTING = "NodeResting"
NODE_UNFIT = "NodeUnfit"
DRIVER_MISSING = "DriverMissing"
NODE_SELECTOR = "NodeSelectorMismatch"
NODE_REQUIREMENT = "NodeRequirementMismatch"
ROOM_KEPT = "RoomKept"
TAINT = "TaintNotTolerated"
GPU_MODEL = "GpuModelMismatch"
INSUFFICIENT = dict(
    zip(DIMENSIONS, ("InsufficientCpu", "InsufficientMemory", "InsufficientDisk", "InsufficientGpu"), strict=True)
)
NOT_COLOCATED = "NotColocated"
KEPT_APART = "KeptApart"
TOPOLOGY_SPREAD = "TopologySpread"
HEADROOM = "Headroom"
PROTECTED = "ProtectedCapacity"
NO_NODES = "NoNodes"
QUOTA = "QuotaExhausted"
SLICE_AWAITED = "SliceAwaited"
GANG_ROOM = "GangNeedsRoom"
GANG_RESERVING = "GangReserving"
PREEMPTING = "Preempting"
PREEMPTED = "Preempted"
STANDS_FAST = "StandsFast"
BACK_OFF = "BackOff"
QUEUED = "Queued"
PARALLELISM = "Parallelism"
UPSTREAM = "UpstreamPending"
NOT_YET = "NotYet"

SENTENCES = {
    NODE_NOT_READY: "not ready, or not heard from",
    NODE_CORDONED: "cordoned or draining",
    NODE_RESTING: "left alone for a while after starts that failed there",
    NODE_UNFIT: "whose agent can start nothing new",
    DRIVER_MISSING: "without the driver it needs (images need a Docker engine that answers)",
    NODE_SELECTOR: "without the labels of nodeSelector",
    NODE_REQUIREMENT: "not satisfying `requires`",
    ROOM_KEPT: "whose room is kept for work that has waited longer",
    TAINT: "with a taint that is not tolerated",
    GPU_MODEL: "without (enough) GPUs of the model it needs",
    INSUFFICIENT["cpu_milli"]: "without enough free CPU",
    INSUFFICIENT["memory_mib"]: "without enough free memory",
    INSUFFICIENT["disk_mib"]: "without enough free disk",
    INSUFFICIENT["gpu_milli"]: "without enough left on its GPUs",
    NOT_COLOCATED: "away from what `colocateWith` asks for",
    KEPT_APART: "where `avoidColocating` keeps replicas apart",
    TOPOLOGY_SPREAD: "where one more replica would break `topologySpread`",
    HEADROOM: "the rest of the region is kept free for replicas that are lost or fail",
    PROTECTED: "the rest of the region is kept for tenants that have it protected",
    NO_NODES: "the region has no nodes",
    QUOTA: "the tenant's share of this region is used up",
    SLICE_AWAITED: "none of the tenant's quota is in this region: it is on its way, or used up elsewhere",
    GANG_ROOM: "all replicas of the gang need room at once",
    GANG_RESERVING: "room for the gang is being reserved",
    PREEMPTING: "room is being made by stopping what gives way: lower priorities, or burst",
    PREEMPTED: "stopped to make room for work of a higher priority",
    STANDS_FAST: "what gives way, lower priorities or burst, is in its way and not stopped yet",
    BACK_OFF: "pausing before the next try, after a failure or a preemption",
    QUEUED: "waiting for its turn",
    PARALLELISM: "as many of the task run as its `parallelism` allows",
    UPSTREAM: "waiting for the tasks in its `dependsOn`",
    NOT_YET: "waiting for its `notBefore`",
}
_UNIT_OF = {code: dimension for dimension, code in INSUFFICIENT.items()}


def reason(code: str, nodes: int = 0, missing: int = 0, detail: str = "") -> objects_pb2.PendingReason:
    """A reason with its sentence; `missing` is what the best of those nodes lacks, in the dimension's unit."""
    message = SENTENCES[code]
    if missing:
        which = "the best of them lacks" if nodes > 1 else "it lacks"
        message += f"; {which} {format_quantity(missing, _UNIT_OF[code])}"
    if detail:
        message += f": {detail}"
    return objects_pb2.PendingReason(code=code, nodes=nodes, message=message)


def counted(number: int, noun: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(reasons: Sequence[objects_pb2.PendingReason]) -> str:
    """One line: `3 nodes without enough free memory; the best of them lacks 512Mi, 1 node cordoned or draining`."""
    return ", ".join(map(sentence, reasons)) or "no reason is known"


def sentence(one: objects_pb2.PendingReason) -> str:
    """`3 nodes without enough free memory; the best of them lacks 512Mi`."""
    return f"{counted(one.nodes, 'node')} {one.message}" if one.nodes else one.message
