"""The global plane as one region sees it: shares and slices, absolute and ordered, by a random author.

Keeps the escrow protocol for one region (grant at once; a shrink lowers the target and takes back only what a current
ack has given up), and sends what it has in any order, again and late. Decides what users ask for in this history.
"""

from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector, vector

if TYPE_CHECKING:
    from simulation.world import World

TENANTS = ("acme", "globex")
MOST_WORKLOADS = 6
MOST_REPLICAS = 12
HARD = objects_pb2.ACCOUNT_HARD


def template_generation(task: objects_pb2.Task) -> int:
    """The generation that changed what a replica is, not only how many there are."""
    return int(task.args[0]) if task.args else 1


class Author:
    def __init__(self, world: "World", region: str) -> None:
        self.world = world
        self.region = region
        self.revision = 0  # of the global store
        self.shares: dict[tuple[str, str], objects_pb2.Share] = {}
        self.granted: dict[str, Vector] = {}  # A: what the region may believe it has, at most
        self.sent: list[regional_pb2.DownlinkMessage] = []
        self._target: dict[str, Vector] = {}
        self._seq: dict[str, int] = {}
        self._born = 0

    # ---- what the region hears

    def welcome(self) -> list[regional_pb2.DownlinkMessage]:
        """On a new uplink: everything there is, absolute."""
        welcome = regional_pb2.GlobalWelcome(term=1, epoch=1)
        messages = [regional_pb2.DownlinkMessage(welcome=welcome)]
        messages += [self._slice(tenant) for tenant in sorted(self.granted)]
        messages += [regional_pb2.DownlinkMessage(share=share) for _, share in sorted(self.shares.items())]
        return messages

    def hear(self, message: regional_pb2.UplinkMessage) -> None:
        match message.WhichOneof("body"):
            case "slice_ack":
                self._acknowledged(message.slice_ack)
            case "workload" if message.workload.closed:
                self._closed(message.workload)

    def _acknowledged(self, ack: objects_pb2.SliceAck) -> None:
        """TAKE-BACK: only a current ack may lower A, and only as far as C has come down."""
        tenant = ack.tenant
        if (ack.epoch, ack.seq) != (1, self._seq.get(tenant)):
            return
        for use in ack.uses:
            limit = vector(use.limit)
            if use.account == HARD and limit.fits(self.granted[tenant]):
                self.granted[tenant] = self.granted[tenant].at_most(limit.at_least(self._target[tenant]))

    def _closed(self, report: regional_pb2.WorkloadReport) -> None:
        key = (report.tenant, report.workload)
        share = self.shares.get(key)
        if share is not None and share.removed and share.metadata.uid == report.uid:
            del self.shares[key]

    # ---- what users ask for

    def act(self) -> None:
        """One random change."""
        rng = self.world.kernel.random
        live = sorted(key for key, share in self.shares.items() if not share.removed)
        choice = rng.random()
        if len(live) < 2 or (choice < 0.25 and len(self.shares) < MOST_WORKLOADS):
            self._create()
        elif choice < 0.5:
            self._scale(rng.choice(live))
        elif choice < 0.65:
            self._update(rng.choice(live))
        elif choice < 0.75:
            self._remove(rng.choice(live))
        else:
            self._budget(rng.choice(TENANTS))

    def _create(self) -> None:
        rng = self.world.kernel.random
        self._born += 1
        tenant, name = rng.choice(TENANTS), f"w{rng.randrange(MOST_WORKLOADS)}"
        if (tenant, name) in self.shares:
            return
        task = objects_pb2.Task(name="main", replicas=rng.randint(1, MOST_REPLICAS), command=["run"])
        request = Vector(cpu_milli=rng.choice([100, 500, 2000]), memory_mib=rng.choice([64, 512, 2048]))
        task.resources.requests.CopyFrom(request.to_proto())
        task.restart.local_limit = 2
        task.restart.backoff_ms = 200
        task.restart.backoff_max_ms = 2_000
        task.restart.mode = objects_pb2.RESTART_MODE_ALWAYS
        task.termination_grace_s = 1
        spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_SERVICE, tasks=[task])
        spec.priority = rng.choice([objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_DEFAULT, objects_pb2.PRIORITY_HIGH])
        spec.run_class = rng.choice([objects_pb2.RUN_CLASS_KEEP, objects_pb2.RUN_CLASS_EXCLUSIVE])
        metadata = objects_pb2.Metadata(name=name, tenant=tenant, generation=1, uid=f"u{self._born}")
        self._publish(objects_pb2.Share(metadata=metadata, region=self.region, epoch=1, spec=spec))

    def _changed(self, key: tuple[str, str]) -> objects_pb2.Share:
        share = objects_pb2.Share()
        share.CopyFrom(self.shares[key])
        share.metadata.generation += 1
        return share

    def _scale(self, key: tuple[str, str]) -> None:
        share = self._changed(key)
        share.spec.tasks[0].replicas = self.world.kernel.random.randint(0, MOST_REPLICAS)
        self._publish(share)

    def _update(self, key: tuple[str, str]) -> None:
        share = self._changed(key)
        share.spec.tasks[0].args[:] = [str(share.metadata.generation)]
        self._publish(share)

    def _remove(self, key: tuple[str, str]) -> None:
        share = objects_pb2.Share()
        share.CopyFrom(self.shares[key])
        share.removed = True
        self._publish(share)

    def _publish(self, share: objects_pb2.Share) -> None:
        self.revision += 1
        share.global_term = 1
        share.global_revision = self.revision
        self.shares[share.metadata.tenant, share.metadata.name] = share
        self.world.to_region_from_global(regional_pb2.DownlinkMessage(share=share))

    # ---- budgets

    def _budget(self, tenant: str) -> None:
        rng = self.world.kernel.random
        self.set_budget(tenant, Vector(cpu_milli=rng.choice([2_000, 8_000, 40_000]), memory_mib=40_960))

    def set_budget(self, tenant: str, wanted: Vector) -> None:
        """Grant at once what is more; ask back what is less."""
        granted = self.granted.get(tenant, Vector())
        self.granted[tenant] = granted.at_least(wanted)
        self._target[tenant] = wanted
        self._seq[tenant] = self._seq.get(tenant, 0) + 1
        self.world.to_region_from_global(self._slice(tenant))

    def _slice(self, tenant: str) -> regional_pb2.DownlinkMessage:
        self.revision += 1
        account = objects_pb2.AccountSlice(
            account=HARD,
            granted=self.granted[tenant].to_proto(),
            target=self._target[tenant].to_proto(),
        )
        slice_ = objects_pb2.Slice(
            tenant=tenant, region=self.region, epoch=1, seq=self._seq[tenant], accounts=[account]
        )
        stamp = regional_pb2.SliceStamp(slice=slice_, global_term=1, global_revision=self.revision)
        return regional_pb2.DownlinkMessage(slice_stamp=stamp)

    def target(self, tenant: str) -> Vector:
        """What the tenant may use here in the end. Above it nothing new is bound, though A may still be more."""
        return self._target[tenant]
