"""A watch that goes on across lost connections, by revision, losing nothing.

The resume point moves only past revisions that are whole, so after a break a change may come again; a change that was
already delivered at the revision in progress is dropped. Raises Expired when the server no longer has the revision.
"""

import asyncio
import random
from collections.abc import AsyncGenerator

import grpc

from atoll import errors, rpc
from atoll.api.v1 import global_pb2
from atoll.sdk.servers import Method

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class ResumePoint:
    """What has been delivered for certain: everything up to `revision`."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._in_progress = revision
        self._delivered: set[bytes] = set()

    def is_new(self, event: global_pb2.WorkloadEvent) -> bool:
        """Notes the event; False when it was delivered before the connection broke."""
        if event.type == global_pb2.EVENT_TYPE_EXISTS:
            return True
        if event.revision <= self.revision:
            return False
        if event.type == global_pb2.EVENT_TYPE_PROGRESS:
            self.revision = self._in_progress = event.revision
            self._delivered.clear()
            return True
        if event.revision != self._in_progress:
            self.revision = max(self.revision, self._in_progress)
            self._in_progress = event.revision
            self._delivered.clear()
        content = event.SerializeToString(deterministic=True)
        fresh = content not in self._delivered
        self._delivered.add(content)
        return fresh


async def watch(
    method: grpc.aio.UnaryStreamMultiCallable[global_pb2.WatchWorkloadsRequest, global_pb2.WorkloadEvent] | Method,
    tenant: str,
    since: int,
) -> AsyncGenerator[global_pb2.WorkloadEvent, None]:
    """Events after revision `since`; 0 = what exists, then changes. Never ends by itself; the caller closes it."""
    point = ResumePoint(since)
    pause_s = FIRST_PAUSE_S
    while True:
        call = method(global_pb2.WatchWorkloadsRequest(tenant=tenant, since_revision=point.revision))
        try:
            async for event in call:
                pause_s = FIRST_PAUSE_S
                if point.is_new(event):
                    yield event
        except grpc.aio.AioRpcError as broken:
            error = rpc.error_of(broken)
            if isinstance(method, Method):
                method.servers.turn(error)
            if not isinstance(error, errors.Unavailable | errors.Busy):
                raise error from None
        finally:
            call.cancel()
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
