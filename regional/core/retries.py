"""Whether a replica that ended by itself is tried again, and when.

What ends by no fault of its own (a lost node, a wish to stop) never comes here: it counts for nothing. A service is
tried for ever. A replica of a job has the tries of its policy; exit codes that it names fatal end it at once, those
that it names ignored count for nothing. Pauses double, and differ between replicas. Pure.
"""

from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model.pauses import doubled_ms
from atoll.model.slots import SECOND_COPY
from regional.config import CoreSettings
from regional.core.records import COMPLETED, NEVER, SlotEntry


class Verdict(NamedTuple):
    """`pause_ms`: before the next try; None: it is not tried again. `tries`: how many now count."""

    tries: int
    pause_ms: int | None


def judge(settings: CoreSettings, entry: SlotEntry, exit_: objects_pb2.Exit) -> Verdict:
    """Of a wanted slot whose attempt ended by itself."""
    task, tries = entry.task, entry.record.tries + 1
    if exit_.reason == COMPLETED and task.completes:
        return Verdict(tries, None)
    if entry.index >= SECOND_COPY:
        return Verdict(tries, None)
    if not entry.is_job or task.retries is None:
        final = task.restarts == NEVER or (entry.is_job and tries >= settings.job_tries)
        pause_ms = doubled_ms(settings.retry_first_ms, settings.retry_longest_ms, tries, who(entry))
        return Verdict(tries, None if final else pause_ms)
    policy, code = task.retries, exit_.code
    ignored = code in policy.ignored_codes
    tries -= ignored
    if code in policy.fatal_codes or (tries > policy.limit and not ignored):
        return Verdict(tries, None)
    return Verdict(tries, doubled_ms(policy.backoff_ms, policy.backoff_max_ms, tries, who(entry)))


def who(entry: SlotEntry) -> str:
    """The attempt that a pause follows, by name."""
    return f"{entry.name}/{entry.attempt}"
