"""What may be said of whom a job's end is told to: every mistake with its path.

Denies by default: a URL is good only when a setting of the global plane has a prefix of it, so that nobody has the
global plane talk to whom its operators have not named (server-side request forgery).
"""

from collections.abc import Iterator, Sequence

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.urls import covers, mistake_in_url, parse_url

MOST_NOTIFICATIONS = 4  # each is a record beside the status of the job that ends


def mistakes_in_notify(spec: objects_pb2.WorkloadSpec, webhooks: Sequence[str]) -> Iterator[Mistake]:
    if spec.notify and spec.type != objects_pb2.WORKLOAD_TYPE_JOB:
        yield Mistake("spec.notify", "only jobs have it: a service never ends")
    if len(spec.notify) > MOST_NOTIFICATIONS:
        yield Mistake("spec.notify", f"has {len(spec.notify)} entries; at most {MOST_NOTIFICATIONS} are allowed")
    seen: set[str] = set()
    for index, wish in enumerate(spec.notify):
        path = f"spec.notify[{index}]"
        if wrong := why_not(wish.url, webhooks):
            yield Mistake(f"{path}.url", wrong)
        if wish.url in seen:
            yield Mistake(f"{path}.url", "is there twice")
        seen.add(wish.url)
        if len(set(wish.on)) != len(wish.on) or objects_pb2.JOB_OUTCOME_UNSPECIFIED in wish.on:
            yield Mistake(f"{path}.on", "must name outcomes, each once: succeeded, failed, stopped")


def why_not(url: str, webhooks: Sequence[str]) -> str:
    """Why nothing may be told to a URL; empty when it may."""
    if wrong := mistake_in_url(url):
        return wrong
    parsed = parse_url(url)
    if any(covers(prefix, parsed) for prefix in webhooks):
        return ""
    if not webhooks:
        return "is not allowed: the global plane's setting webhooks allows none"
    server = f"{parsed.scheme}://{parsed.authority}"
    return f"is not allowed: the global plane's setting webhooks has no prefix of it ({server})"
