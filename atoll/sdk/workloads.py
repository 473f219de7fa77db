"""Workloads: apply, get, list, scale, delete, watch and wait."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from atoll import errors
from atoll.api.v1 import global_pb2, global_pb2_grpc, objects_pb2
from atoll.manifest import schema
from atoll.sdk import progress, specs, watching
from atoll.sdk.calls import Caller
from atoll.sdk.progress import Progress

DEADLINE_S = 15.0  # longer than a change of leader takes
PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Applied:
    """The stored document; `outcome` is created, updated or unchanged; `warnings` are for people."""

    workload: objects_pb2.Workload
    revision: int
    outcome: str
    warnings: tuple[str, ...] = ()


def new_request_id() -> str:
    return secrets.token_hex(8)


class Workloads:
    """`tenant` is used wherever a call names none."""

    def __init__(self, caller: Caller, stub: "global_pb2_grpc.GlobalAsyncStub", tenant: str) -> None:
        self._caller = caller
        self._stub = stub
        self._tenant = tenant

    async def apply(
        self,
        workload: objects_pb2.Workload | specs.Workload,
        *,
        request_id: str = "",
        dry_run: bool = False,
        if_generation: int = 0,
        deadline_s: float = DEADLINE_S,
    ) -> Applied:
        """Creates or updates. What only servers write (status, generation, uid) is left out of the request.
        Raises Invalid, Conflict, QuotaExceeded, NotAllowed, Unavailable, OutcomeUnknown."""
        asked = workload.to_proto() if isinstance(workload, specs.Workload) else workload
        message = schema.without_server_fields(asked)
        message.metadata.tenant = message.metadata.tenant or self._tenant
        request_id = request_id or new_request_id()
        request = global_pb2.ApplyWorkloadRequest(
            workload=message, request_id=request_id, dry_run=dry_run, if_generation=if_generation
        )
        write = self._caller.write(self._stub.ApplyWorkload, request, request_id=request_id, deadline_s=deadline_s)
        return _applied(await write)

    async def get(self, name: str, *, tenant: str = "", deadline_s: float = DEADLINE_S) -> objects_pb2.Workload:
        """Raises NotFound."""
        request = global_pb2.GetWorkloadRequest(tenant=tenant or self._tenant, name=name)
        return await self._caller.read(self._stub.GetWorkload, request, deadline_s=deadline_s)

    async def list(
        self,
        *,
        tenant: str = "",
        selector: Sequence[objects_pb2.LabelRequirement] = (),
        everywhere: bool = False,
        deadline_s: float = DEADLINE_S,
    ) -> list[objects_pb2.Workload]:
        """All pages. `everywhere`: of every tenant the caller may see."""
        request = global_pb2.ListWorkloadsRequest(
            tenant="" if everywhere else tenant or self._tenant, selector=selector, page_size=PAGE_SIZE
        )
        found: list[objects_pb2.Workload] = []
        while True:
            page = await self._caller.read(self._stub.ListWorkloads, request, deadline_s=deadline_s)
            found.extend(page.workloads)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def scale(
        self,
        name: str,
        replicas: int,
        *,
        task: str = "",
        tenant: str = "",
        request_id: str = "",
        if_generation: int = 0,
        deadline_s: float = DEADLINE_S,
    ) -> Applied:
        request_id = request_id or new_request_id()
        request = global_pb2.ScaleWorkloadRequest(
            tenant=tenant or self._tenant,
            name=name,
            task=task,
            replicas=replicas,
            request_id=request_id,
            if_generation=if_generation,
        )
        write = self._caller.write(self._stub.ScaleWorkload, request, request_id=request_id, deadline_s=deadline_s)
        return _applied(await write)

    async def delete(self, name: str, *, tenant: str = "", request_id: str = "", deadline_s: float = DEADLINE_S) -> int:
        """The revision at which its end was decided; it is gone when its last replica is. Raises NotFound."""
        request_id = request_id or new_request_id()
        request = global_pb2.DeleteWorkloadRequest(tenant=tenant or self._tenant, name=name, request_id=request_id)
        write = self._caller.write(self._stub.DeleteWorkload, request, request_id=request_id, deadline_s=deadline_s)
        return (await write).revision

    async def resume(
        self,
        name: str,
        *,
        tenant: str = "",
        request_id: str = "",
        if_generation: int = 0,
        deadline_s: float = DEADLINE_S,
    ) -> Applied:
        """A job that has failed goes on from there: what has succeeded stays. Raises NotFound; Conflict when it has not
        failed."""
        request_id = request_id or new_request_id()
        request = global_pb2.ResumeJobRequest(
            tenant=tenant or self._tenant, name=name, request_id=request_id, if_generation=if_generation
        )
        write = self._caller.write(self._stub.ResumeJob, request, request_id=request_id, deadline_s=deadline_s)
        return _applied(await write)

    def watch(
        self, *, tenant: str = "", since: int = 0, everywhere: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[global_pb2.WorkloadEvent]]:
        """`async with client.workloads.watch() as events`: what exists, then changes; with `since` only changes after
        that revision. Resumes by itself; raises Expired when that revision is gone: list again."""
        scope = "" if everywhere else tenant or self._tenant
        return contextlib.aclosing(watching.watch(self._stub.WatchWorkloads, scope, since))

    async def wait(
        self,
        workload: Applied | objects_pb2.Workload | str,
        *,
        until: str = "serving",
        tenant: str = "",
        timeout: float = 300.0,
        seen: Callable[[Progress], None] | None = None,
    ) -> objects_pb2.Workload:
        """Returns when it is admitted, bound, started, ready, serving, or (a job) done; or deleted (the last state
        seen). A document waits for its own generation. `seen` is called at each step. Raises NotPlaced, JobFailed,
        and Invalid where it never ends."""
        document = workload.workload if isinstance(workload, Applied) else workload
        if isinstance(document, str):
            document = await self.get(document, tenant=tenant)
        if until == progress.DONE and (endless := progress.endless(document)):
            raise errors.Invalid(endless, hint=progress.instead_of_done(document, self._tenant))
        last = document
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(self._states(document)) as states:
                async for last in states:
                    now = progress.progress(last, document.metadata.generation)
                    if seen is not None:
                        seen(now)
                    if until == progress.DELETED:
                        continue
                    if now.failure:
                        raise errors.JobFailed(
                            f"job {last.metadata.name} has failed: {now.failure}", hint=_resume(last)
                        )
                    if now.has(until):
                        return last
        except TimeoutError:
            waited_s = asyncio.get_running_loop().time() - began
            hint = progress.advice(last, self._tenant)
            raise errors.NotPlaced(progress.shortfall(last, until, waited_s), hint=hint) from None
        if until == progress.DELETED:
            return last
        raise errors.NotFound(f"workload {document.metadata.name} was deleted meanwhile")

    async def _states(self, document: objects_pb2.Workload) -> AsyncGenerator[objects_pb2.Workload, None]:
        """The states of one workload, from now until it is gone. A re-created one is another one."""
        tenant, name = document.metadata.tenant, document.metadata.name
        while True:
            request = global_pb2.ListWorkloadsRequest(tenant=tenant, page_size=1)
            revision = (await self._caller.read(self._stub.ListWorkloads, request, deadline_s=DEADLINE_S)).revision
            try:
                now = await self.get(name, tenant=tenant)
            except errors.NotFound:
                return
            if now.metadata.uid != document.metadata.uid:
                return
            yield now
            with contextlib.suppress(errors.Expired):
                async with self.watch(tenant=tenant, since=revision) as events:
                    async for event in events:
                        if event.workload.metadata.uid != document.metadata.uid:
                            continue
                        if event.type == global_pb2.EVENT_TYPE_DELETED:
                            return
                        yield event.workload


def _resume(job: objects_pb2.Workload) -> str:
    return f"atoll job get {job.metadata.name}; then atoll job resume {job.metadata.name}"


def _applied(response: global_pb2.ApplyWorkloadResponse) -> Applied:
    return Applied(response.workload, response.revision, response.outcome, tuple(response.warnings))
