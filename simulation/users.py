"""Users of the global plane: they create, scale, update, spread and delete workloads and tenants, and change quotas.

Each change has a request id and is asked again, word for word, until it has an answer; some users give up, and some ask
again though they have one. Decides what users want in this history. What they were promised is held by promises.py.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from google.protobuf.message import Message

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Busy, OutcomeUnknown, Unavailable
from atoll.model.resources import Vector
from simulation import jobs, protection, recovery, rules, services
from simulation.services import MOST_REPLICAS, PREFERRED

if TYPE_CHECKING:
    from simulation.world import World

TENANTS = ("acme", "globex", "initech")
QUOTAS_MILLI, LARGE_QUOTAS_MILLI = (2_000, 8_000, 40_000), (8_000, 40_000, 100_000)  # of processors, for each region
GPU_QUOTA_MILLI = 4_000
LARGEST_FLURRY = 20
WEIGHTS = (1, 2, 10)
BURSTS_PERCENT = (0, 20, 50, 50)
SMALL_QUOTAS_MILLI = (2_000, 6_000, 40_000)  # where there is burst
PATIENCE_MS = 10_000
NOT_FINAL = {kind("").code for kind in (Busy, OutcomeUnknown, Unavailable)}


@dataclass(slots=True, eq=False)
class Call:
    """One change that a user wants. `answer`: the type and bytes of what it was promised."""

    request: Message
    method: str
    body: bytes
    answer: tuple[str, bytes] | None = None
    refused: str = ""  # the code of a final error
    given_up: bool = False

    @property
    def waits(self) -> bool:
        return not (self.answer or self.refused or self.given_up)


@dataclass(slots=True)
class Users:
    gives_up: ClassVar[float] = 0.05  # when nobody answers; and how often
    world: "World"
    calls: dict[str, Call] = field(default_factory=dict)  # by request id
    _tries: dict[int, Call] = field(default_factory=dict)  # those a user still listens to
    _last_try: int = 0
    _changes: int = 0

    def begin(self) -> None:
        for tenant in TENANTS[:2]:
            self._set_quota(tenant)

    def act(self) -> None:
        """One random change, or a flurry of them."""
        kernel = self.world.kernel
        flurry = self.world.shape.features.flurries and kernel.chance(0.1)
        for _ in range(kernel.between(2, LARGEST_FLURRY) if flurry else 1):
            self._change()

    def _change(self) -> None:
        rng = self.world.kernel.random
        live = [path for path, w in sorted(self.world.promises.workloads.items()) if not w.metadata.deleted_ms]
        most = 4 + 2 * len(self.world.regions)
        if self.world.shape.features.tokens and rng.random() < 0.15:
            self._about_a_token()
            return
        if self.world.shape.features.policies and rng.random() < 0.15:
            self.world.policies.act()
            return
        if self.world.has_jobs and rng.random() < 0.3:
            self._about_a_job(live, f"j{rng.randrange(most)}")
            return
        choice = rng.random()
        if len(live) < 2 or (choice < 0.25 and len(live) < most):
            self._apply(services.draw(self.world, rng.choice(TENANTS), f"w{rng.randrange(most)}"))
        elif choice < 0.5:
            tenant, name = rng.choice(live)
            replicas = rng.randint(0, MOST_REPLICAS)
            self.want(global_pb2.ScaleWorkloadRequest(tenant=tenant, name=name, replicas=replicas))
        elif choice < 0.65:
            self._update(*rng.choice(live))
        elif choice < 0.75:
            tenant, name = rng.choice(live)
            self.want(global_pb2.DeleteWorkloadRequest(tenant=tenant, name=name))
        elif choice < 0.93:
            self._set_quota(rng.choice(TENANTS))
        elif choice < 0.96:
            self.want(global_pb2.DeleteTenantRequest(name=rng.choice(TENANTS)))
        else:
            self._send(self.calls[rng.choice(list(self.calls))])

    # ---- what they want

    def _about_a_job(self, live: list[tuple[str, str]], name: str) -> None:
        rng = self.world.kernel.random
        own = [path for path in live if path[1].startswith("j")]
        if own and rng.random() < 0.3:
            tenant, name = rng.choice(own)
            self.want(global_pb2.ResumeJobRequest(tenant=tenant, name=name))
        else:
            self._apply(jobs.draw(self.world, rng.choice(TENANTS), name))

    def _about_a_token(self) -> None:
        rng, tokens = self.world.kernel.random, sorted(self.world.promises.tokens)
        if tokens and rng.random() < 0.4:
            self.want(global_pb2.RevokeUserTokenRequest(id=rng.choice(tokens)))
        else:
            tenant, role = rng.choice([("", objects_pb2.ROLE_OPERATOR), (rng.choice(TENANTS), objects_pb2.ROLE_USER)])
            self.want(global_pb2.CreateUserTokenRequest(name=f"u{len(tokens)}", role=role, tenant=tenant))

    def _update(self, tenant: str, name: str) -> None:
        workload = objects_pb2.Workload()
        workload.CopyFrom(self.world.promises.workloads[tenant, name])
        task = workload.spec.tasks[0]
        if self.world.kernel.chance(0.2) and workload.spec.spread.strategy == PREFERRED:
            task.gang = not task.gang
        elif self.world.kernel.chance(0.5):
            services.spread(self.world.kernel.random, self.world.regions, workload.spec)
            rules.draw(self.world, task)
            recovery.draw(self.world, workload.spec)
        self._apply(workload)

    def _apply(self, workload: objects_pb2.Workload) -> None:
        """Each template is another one, so that what runs tells which it is."""
        workload.spec.tasks[0].args[:] = [str(self._changes)]
        self.want(global_pb2.ApplyWorkloadRequest(workload=workload))

    def _set_quota(self, name: str) -> None:
        rng, features = self.world.kernel.random, self.world.shape.features
        cpu = rng.choice(LARGE_QUOTAS_MILLI if features.crowded else QUOTAS_MILLI) * len(self.world.regions)
        if features.burst:
            cpu = rng.choice(SMALL_QUOTAS_MILLI) * len(self.world.regions)
        gpu = rng.choice([0, GPU_QUOTA_MILLI]) * len(self.world.regions) if features.gpus else 0
        quota = Vector(cpu_milli=cpu, memory_mib=2 * cpu, gpu_milli=gpu).to_proto()
        spec = objects_pb2.TenantSpec(quota=quota, weight=1, burst_percent=0)
        if features.burst:
            spec.burst_percent = rng.choice(BURSTS_PERCENT)
        if features.strict:
            spec.weight = rng.choice(WEIGHTS)
            spec.mode = rng.choice([objects_pb2.QUOTA_MODE_AVAILABLE, objects_pb2.QUOTA_MODE_STRICT])
        if features.protected:
            protection.draw(self.world, spec)
        tenant = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name=name), spec=spec)
        self.want(global_pb2.ApplyTenantRequest(tenant=tenant))

    # ---- how they ask

    def want(self, request: Message) -> None:
        self._changes += 1
        request_id = f"change-{self._changes}"
        request.request_id = request_id  # type: ignore[attr-defined]  # every change has one
        call = self.calls[request_id] = Call(request, type(request).__name__, request.SerializeToString())
        self._send(call)

    def _send(self, call: Call) -> None:
        kernel = self.world.kernel
        self._last_try += 1
        number = self._last_try
        self._tries[number] = call
        planes = self.world.leading(self.world.planes)
        if planes:
            plane = kernel.random.choice(planes)
            kernel.note(call.body)
            delay_ms = self.world.network.delay()
            kernel.after(delay_ms, b"ask", lambda: plane.ask(number, call.method, call.body), plane)
        kernel.after(kernel.between(PATIENCE_MS // 10, PATIENCE_MS), b"no answer", lambda: self._unheard(number))

    def _unheard(self, number: int) -> None:
        call = self._tries.pop(number, None)
        if call is None or not call.waits:
            return
        call.given_up = self.world.kernel.chance(self.gives_up)
        if call.waits:
            self._send(call)

    def hear(self, number: int, kind: str, data: bytes) -> None:
        """The answer to a try; `kind` is the type of the response, or the code of an error."""
        call = self._tries.pop(number, None)
        if call is None:
            return
        if kind in NOT_FINAL:
            self.world.kernel.after(self.world.kernel.between(100, 2_000), b"ask again", lambda: self._again(call))
        elif not data:
            call.refused = kind
        else:
            self.world.promises.answered(call, kind, data)
            call.answer = (kind, data)

    def _again(self, call: Call) -> None:
        if call.waits:
            self._send(call)

    def unanswered(self) -> list[str]:
        return [request_id for request_id, call in self.calls.items() if call.waits]
