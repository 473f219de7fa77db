"""Policy revisions: what strategies weigh, and which of it is in force where."""

from collections.abc import Sequence

from atoll.api.v1 import global_pb2, global_pb2_grpc, objects_pb2
from atoll.manifest import schema
from atoll.sdk.calls import Caller
from atoll.sdk.workloads import DEADLINE_S, new_request_id


class Policies:
    def __init__(self, caller: Caller, stub: "global_pb2_grpc.GlobalAsyncStub") -> None:
        self._caller = caller
        self._stub = stub

    async def apply(
        self, policy: objects_pb2.SchedulerPolicy, *, request_id: str = "", dry_run: bool = False
    ) -> global_pb2.ApplyPolicyResponse:
        """Makes a revision, unless the newest one says the same; its number is its generation. Raises Invalid,
        NotAllowed, Unavailable, OutcomeUnknown."""
        request_id = request_id or new_request_id()
        request = global_pb2.ApplyPolicyRequest(
            policy=schema.without_server_fields(policy), request_id=request_id, dry_run=dry_run
        )
        return await self._caller.write(self._stub.ApplyPolicy, request, request_id=request_id, deadline_s=DEADLINE_S)

    async def get(self, policy_revision: int) -> objects_pb2.SchedulerPolicy:
        """Revision 0 is built in. Raises NotFound."""
        request = global_pb2.GetPolicyRequest(policy_revision=policy_revision)
        return await self._caller.read(self._stub.GetPolicy, request, deadline_s=DEADLINE_S)

    async def list(self) -> global_pb2.ListPoliciesResponse:
        """The built-in one first, the newest last; and which are in force."""
        request = global_pb2.ListPoliciesRequest()
        return await self._caller.read(self._stub.ListPolicies, request, deadline_s=DEADLINE_S)

    async def promote(
        self, policy_revision: int, *, regions: Sequence[str] = (), request_id: str = ""
    ) -> global_pb2.ChangePolicyResponse:
        """Puts it in force everywhere; with `regions` only there, as a canary. Raises NotFound, Invalid, Conflict (a
        workload names a strategy that it lacks)."""
        request_id = request_id or new_request_id()
        request = global_pb2.PromotePolicyRequest(
            policy_revision=policy_revision, regions=regions, request_id=request_id
        )
        return await self._caller.write(self._stub.PromotePolicy, request, request_id=request_id, deadline_s=DEADLINE_S)

    async def roll_back(
        self, policy_revision: int | None = None, *, request_id: str = ""
    ) -> global_pb2.ChangePolicyResponse:
        """Ends a canary; without one, puts the revision in force that was before, or the one that is named. Raises
        NotFound, Conflict (there was none before)."""
        request_id = request_id or new_request_id()
        request = global_pb2.RollBackPolicyRequest(policy_revision=policy_revision, request_id=request_id)
        return await self._caller.write(
            self._stub.RollBackPolicy, request, request_id=request_id, deadline_s=DEADLINE_S
        )
