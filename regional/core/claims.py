"""What an agent may claim of its node in a Hello. What is refused here reaches neither memory nor store.

The bounds keep a node's record far below what one transaction carries: a claim beyond them would be refused by the
store for its form, over and over, and hold up every other node.
"""

from collections.abc import Iterable

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.costs import mistake_in_cost
from atoll.model.names import mistake_in_label_key, mistake_in_label_value
from atoll.model.resources import vector
from regional.core.gpus import MOST_GPUS, WHOLE_MILLI

MOST_LABELS = 64
MOST_ATTEMPTS = 20_000
LONGEST_ADDRESS = 256
LONGEST_FENCE_MS = 3_600_000


def mistake_in_claims(hello: agent_pb2.Hello) -> str | None:
    """Why no node is like this, or None."""
    if not vector(hello.capacity).is_legal():
        return "the node's capacity is impossible"
    if mistake := _mistake_in_gpus(hello.gpus, hello.capacity.gpu_milli):
        return mistake
    if not 0 <= hello.fence_after_ms <= LONGEST_FENCE_MS:
        return f"the node counts by a fence of {hello.fence_after_ms} ms"
    if len(hello.address) > LONGEST_ADDRESS:
        return f"the node's address has {len(hello.address)} characters, at most {LONGEST_ADDRESS} are allowed"
    if len(hello.inventory) > MOST_ATTEMPTS:
        return f"the inventory has {len(hello.inventory)} attempts, at most {MOST_ATTEMPTS} are allowed"
    if len(hello.labels) > MOST_LABELS:
        return f"the node has {len(hello.labels)} labels, at most {MOST_LABELS} are allowed"
    for label in hello.labels:
        if mistake := mistake_in_label_key(label.key):
            return f"a label's key {mistake}"
        if mistake := mistake_in_label_value(label.value):
            return f"label {label.key}: {mistake}"
        if mistake := mistake_in_cost(label.key, label.value):
            return f"label {label.key}: {mistake}"
    return None


def _mistake_in_gpus(gpus: Iterable[objects_pb2.Gpu], gpu_milli: int) -> str | None:
    numbers = [gpu.number for gpu in gpus]
    if any(not 0 <= number < MOST_GPUS for number in numbers) or len(set(numbers)) < len(numbers):
        return f"the node's GPUs are not numbered once each, from 0 to {MOST_GPUS - 1}"
    for gpu in gpus:
        if not gpu.model:
            return f"GPU {gpu.number} has no model"
        if mistake := mistake_in_label_value(gpu.model):
            return f"the model of GPU {gpu.number}: {mistake}"
    if gpu_milli != len(numbers) * WHOLE_MILLI:
        return f"the node has {len(numbers)} GPUs, and says {gpu_milli} milli of them"
    return None
