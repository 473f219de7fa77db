"""Settings of the global plane: every limit and period, with its unit in the name.

`CoreSettings` is all that decisions depend on; the process adds its addresses and files.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from atoll.model import strategies
from atoll.model.urls import mistake_in_url


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """What the pure core is configured with."""

    lanes: int = 1
    intake_limit: int = 1_000  # mutations that wait for a lane; beyond: Busy
    busy_retry_ms: int = 500
    status_interval_ms: int = 200  # between two batches of status records
    status_batch: int = 40
    looks_at_once: int = 50  # at workloads that may want something, before other events are handled
    welcome_batch: int = 500  # shares told to a region that is back, likewise
    ack_batch: int = 30
    request_keep_ms: int = 24 * 3_600_000
    sweep_interval_ms: int = 60_000
    sweep_batch: int = 100
    slice_validity_ms: int = 24 * 3_600_000
    overflow_settle_ms: int = 10_000  # replicas that wait for room so long go to another region that has some
    overflow_hold_ms: int = 300_000  # and none come back for so long
    move_patience_ms: int = 60_000  # a move gives up more, though others took the quota that it gave up last
    recovery_interval_ms: int = 5_000  # between two looks at whether services could do without a region
    recovery_batch: int = 50  # services looked at in one turn
    webhooks: tuple[str, ...] = ()  # prefixes of URLs that ends of jobs may be told to; none: nowhere
    notify_at_once: int = 16  # notices under way
    notify_of_tenant: int = 4  # of these, of one tenant
    notify_first_ms: int = 1_000  # pause after the first failure, doubles
    notify_longest_ms: int = 60_000
    notify_give_up_ms: int = 3_600_000  # after the end that it tells
    notice_keep_ms: int = 24 * 3_600_000  # given up, it is shown for so long
    refused_pause_ms: int = 1_000  # after the store refused a plan for its form
    default_strategy: str = strategies.DEFAULT  # of placement, for tasks that name none, where the policy names none
    policy_batch: int = 40  # shares in one transaction, when another policy is in force


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CoreSettings):
    """The global plane: leader or standby. Paths are files in PEM."""

    certificate: Path
    key: Path
    ca: Path
    name: str = "global"
    etcd: tuple[str, ...] = ("127.0.0.1:2379",)
    etcd_ca: Path | None = None  # etcd's own root; these three together, or none for plain text
    etcd_certificate: Path | None = None
    etcd_key: Path | None = None
    people: str = "127.0.0.1:7070"
    programs: str = "127.0.0.1:7071"
    advertise: str = ""  # programs address that regions reach this process at; empty = `programs`
    advertise_people: str = ""  # where people reach this process; empty = `people`
    metrics: str = "127.0.0.1:7072"
    log_level: str = "info"

    webhook_networks: tuple[str, ...] = ()  # private networks that names of `webhooks` may lead to
    webhook_secrets: Path | None = None  # a folder with a file for each tenant whose notices are signed
    webhook_ca: Path | None = None  # roots to trust; none: those of the system
    webhook_timeout_s: float = 10.0  # of one try, all of it

    election_ttl_s: int = 6
    transaction_deadline_ms: int = 2_000
    history_s: int = 120  # of the store, kept by the leader; 0 = all of it, for replays from the first revision
    stop_grace_s: float = 2.0

    mutation_timeout_s: float = 30.0  # from arrival to answer; beyond: OutcomeUnknown
    backlog_events: int = 10_000  # events not yet handled; beyond: users hear Busy, regions wait
    page_size: int = 500
    timeline_events: int = 5_000  # for people, in memory
    hello_timeout_s: float = 10.0
    downlink_queue: int = 50_000  # messages to one region; overflow closes its session
    forward_timeout_s: float = 10.0  # without an answer from the region
    gather_timeout_s: float = 5.0  # likewise, of one of several that are asked for one answer
    forward_queue: int = 1_000  # parts of one forwarded answer that wait for their reader
    watch_ring: int = 20_000  # workload events kept for watches that resume
    watch_progress_s: float = 10.0

    # what this server takes from its callers (atoll/rpc.py)
    rpc_message_bytes: int = 1 << 20
    rpc_streams_per_connection: int = 256
    rpc_calls_per_s: float = 1_000.0  # of one identity, sustained
    rpc_calls_burst: int = 2_000
    rpc_unary_s: float = 60.0
    rpc_handshake_ms: int = 10_000
    rpc_keepalive_at_least_ms: int = 5_000

    @property
    def etcd_tls(self) -> tuple[Path | None, Path | None, Path | None]:
        return self.etcd_ca, self.etcd_certificate, self.etcd_key

    def __post_init__(self) -> None:
        if self.default_strategy not in strategies.STRATEGIES:
            raise ValueError(f"default_strategy must be one of {', '.join(strategies.STRATEGIES)}")
        for prefix in self.webhooks:
            if wrong := mistake_in_url(prefix):
                raise ValueError(f"webhooks: {prefix!r} {wrong}")
        for network in self.webhook_networks:
            ipaddress.ip_network(network)  # or ValueError
        if any(self.etcd_tls) and not all(self.etcd_tls):
            raise ValueError("etcd_ca, etcd_certificate and etcd_key belong together")
