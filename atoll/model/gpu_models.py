"""Whether a region has GPUs of the models that a task asks for, as far as the region has told.

Never says no where it cannot know: a region that tells nothing of models although it has GPUs, and a node with devices
of several of the models at once, which may have as many of them as the best nodes have of each.
"""

from collections.abc import Iterable

from atoll.api.v1 import objects_pb2

WHOLE_MILLI = 1000  # one device
MOST_MODELS = 64  # that a region tells; with more of them it tells none
_MOST_SHOWN = 8


def may_hold(task: objects_pb2.Task, summary: objects_pb2.RegionSummary) -> bool:
    """Whether one node may have as many devices of the task's models as a replica asks for, in use or not."""
    if not task.gpu_models or (not summary.gpu_models and summary.largest_node.gpu_milli):
        return True
    most = {held.model: held.most for held in summary.gpu_models}
    asked = max(1, task.resources.requests.gpu_milli // WHOLE_MILLI)
    return sum(most.get(model, 0) for model in set(task.gpu_models)) >= asked


def asked_text(task: objects_pb2.Task) -> str:
    """`2 GPUs of A100 or H100`."""
    asked = max(1, task.resources.requests.gpu_milli // WHOLE_MILLI)
    return f"{'a GPU' if asked == 1 else f'{asked} GPUs'} of {' or '.join(task.gpu_models)}"


def there_text(summaries: Iterable[objects_pb2.RegionSummary]) -> str:
    """`the most on one node: A100 8, T4 4`."""
    most: dict[str, int] = {}
    for held in (held for summary in summaries for held in summary.gpu_models):
        most[held.model] = max(most.get(held.model, 0), held.most)
    if not most:
        return "no node has GPUs"
    told = [f"{model} {count}" for model, count in sorted(most.items())]
    more = ", …" if len(told) > _MOST_SHOWN else ""
    return f"the most on one node: {', '.join(told[:_MOST_SHOWN])}{more}"
