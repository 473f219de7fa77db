"""Settings of a regional scheduler: every limit and period, with its unit in the name.

`CoreSettings` is all that decisions depend on; the process adds its addresses and files. Letters in comments are those
of docs/failure-model.md.
"""

from dataclasses import dataclass, field
from pathlib import Path

from atoll.model import strategies

MOST_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """What the pure core is configured with. The defaults are correct; others trade speed of detection for load."""

    # transactions
    lanes: int = 2
    bind_batch_slots: int = 120
    class_turn_slots: int = 60  # of one class in a batch, before the order between classes is asked again
    release_batch_slots: int = 120
    admission_batch_shares: int = 60
    admission_batch_kib: int = 512
    interactive_priority: int = 4  # HIGH: work that somebody waits for
    interactive_hold_ms: int = 10_000  # after the last of it, it still has the first of several lanes for itself
    interactive_beside_slots: int = 20  # of other work in one transaction, while there is interactive work
    forget_batch_slots: int = 1_000  # records of a removed workload that go in one deletion of their range
    touch_after_ms: int = 1_000  # an idle leader proves itself this often
    refused_pause_ms: int = 1_000  # of a lane whose plan was refused for no reason of ours

    # node life
    heartbeat_ms: int = 3_000  # h, up to `heartbeat_nodes`; rises in a straight line from there
    heartbeat_nodes: int = 2_500
    heartbeat_slowest_ms: int = 10_000
    heartbeat_slowest_nodes: int = 10_000
    suspect_after_heartbeats: int = 3
    fence_after_heartbeats: int = 4  # T_a = 4 h
    lost_after_heartbeats: int = 5
    acknowledge_within_ms: int = 4_000  # T_l
    kill_time_ms: int = 5_000  # K
    clock_rate_error_ppm: int = 10_000  # rho = 1 %
    node_check_ms: int = 500
    stall_ms: int = 2_500  # a longer silence between two events is our own downtime, held against no node
    brake_percent: int = 20  # of a region's nodes
    brake_zone_percent: int = 50  # of a zone's
    zone_label: str = "zone"
    brake_nodes: int = 3
    brake_window_ms: int = 60_000

    # nodes that are left alone for a while
    rest_after: int = 3  # failed starts in a row, of two workloads at least; or plans refused because of its record
    rest_first_ms: int = 30_000
    rest_longest_ms: int = 600_000

    # nodes that operators take out of use
    drain_deadline_s: int = 3_600  # of a drain that names none
    eviction_deadline_s: int = 300  # after a NO_EXECUTE taint is set
    disruption_percent: int = 10  # of a task that may be down while its replicas are moved; one replica always may
    surge_wait_ms: int = 30_000  # for quota to make a replica elsewhere first; then it is stopped first
    forget_lost_after_s: int = 7 * 86_400
    node_certificate_s: int = 86_400  # the longest life of a node's certificate

    # evening out the nodes
    rebalance_percent: int = 30  # largest less mean utilization of the nodes, above which replicas move; 0 = never
    rebalance_after_ms: int = 60_000  # it has been above that
    rebalance_at_once: int = 2
    rebalance_per_minute: int = 6
    rebalance_rest_ms: int = 600_000  # that a replica has run before it moves, so also between two moves
    rebalance_strategies: tuple[str, ...] = strategies.SPREADING  # of tasks whose replicas move

    # replicas
    retry_first_ms: int = 1_000
    retry_longest_ms: int = 300_000
    job_tries: int = 6
    rolling_down_percent: int = 25
    termination_grace_s: int = 10

    # upwards
    report_period_ms: int = 250
    report_batch: int = 500  # workloads reported before other events are handled,
    report_more_ms: int = 50  # and the next ones so long after
    summary_period_ms: int = 1_000
    refreshed_reasons: int = 4  # of what waits, looked at again at each summary, in turn

    # order
    queue_slots: int = 200_000  # replicas that wait; above it the global plane takes in no more for this region
    ageing_ms: int = 600_000  # what has waited so long stands one priority higher; and so on
    round_looks: int = 240  # at classes, before other events are handled: two batches of them on one replica each
    round_evaluations: int = 2_000_000  # of a class by a node before other events are handled: a fifth of a second
    overdue_turn: int = 8  # one turn in so many is for what has waited past the highest priority

    # gangs
    gang_reserve_ms: int = 30_000  # all members are reserved by then, or none stays so

    # preemption
    preemption_grace_s: tuple[int, ...] = (5, 10, 20, 30, 60)  # of a victim, by priority from best-effort to real-time
    preemption_wait_ms: int = 60_000  # beside the grace, until the preemptor gives up
    preemption_penalty_ms: int = 10_000  # a victim waits so long at least
    preemption_period_ms: int = 5_000  # what found no room is looked at again
    preemption_nodes: int = 16  # with victims, that are compared

    # backfill
    hold_after_ms: int = 30_000  # what has waited so long for room has a node kept for it

    # placement
    headroom_percent: int = 15  # of the region that new work leaves free for replicas that are lost or fail
    overcommit_cpu_percent: dict[str, int] = field(default_factory=dict)  # of its capacity that a pool promises; 100
    overcommit_memory_percent: dict[str, int] = field(default_factory=dict)
    cached_classes: int = 256
    ahead_rows: int = 20_000  # workers evaluate classes ahead whose answers are out of date for so many nodes in sum
    shown_scores: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CoreSettings):
    """The scheduler of one region: leader or standby.

    example (region.toml; every setting can also be given as ATOLL_REGION_<NAME>):
      region = "us-east"
      name = "us-east-1"                       # of this process
      etcd = ["10.0.0.1:2379"]
      people = "0.0.0.0:7170"
      programs = "0.0.0.0:7171"
      advertise = "10.0.0.5:7171"              # where agents reach `programs`
      certificate = "region.crt"
      key = "region.key"
      ca = "ca.crt"
      issuer_certificate = "issuer.crt"        # signs this region's nodes
      issuer_key = "issuer.key"
      global_plane = ["10.0.0.9:7071"]         # its programs addresses; none = work alone
      state_dir = "/var/lib/atoll-region"
      labels = { jurisdiction = "eu" }         # what residency asks for
    """

    region: str
    name: str  # of this process among the region's leader and standbys
    etcd: tuple[str, ...]
    etcd_ca: Path | None = None  # etcd's own root; these three together, or none for plain text
    etcd_certificate: Path | None = None
    etcd_key: Path | None = None
    people: str = "127.0.0.1:7170"
    programs: str = "127.0.0.1:7171"
    metrics: str = "127.0.0.1:7172"
    advertise: str = ""  # where agents reach `programs`; empty = the address it listens at
    advertise_people: str = ""  # where people reach `people`; empty = the address it listens at
    certificate: Path
    key: Path
    ca: Path
    issuer_certificate: Path
    issuer_key: Path
    global_plane: tuple[str, ...] = ()
    state_dir: Path
    labels: dict[str, str] = field(default_factory=dict)  # of this region, until an operator changes them
    log_level: str = "info"
    stop_grace_s: float = 1.0  # that running calls get when the process stops

    # store and election
    election_ttl_s: int = 6
    transaction_deadline_ms: int = 2_000
    history_s: int = 120  # of the store, kept by the leader; 0 = all of it, for replays from the first revision
    write_deadline_ms: int = 5_000  # of a guarded write asked for by the API

    # evaluation of scheduling classes
    workers: int = 1  # processes, this one among them: 1 = no other
    worker_silence_ms: int = 1_000  # then one that owes an answer is killed and replaced

    # agents
    core_backlog_events: int = 20_000  # above it agents are not read
    behind_events: int = 2_000  # above it no agent's silence is held against it
    sessions_of_node: int = 4  # at once; beyond, the oldest is closed
    session_queue_messages: int = 1_024
    query_timeout_ms: int = 10_000
    query_queue_answers: int = 256
    join_attempts_per_s: int = 50  # from one host
    join_throttled_hosts: int = 1_024

    # people
    page_items: int = 1_000  # the largest page of a list
    timeline_events: int = 20_000
    journal_file_mib: int = 64
    journal_files: int = 8
    journal_queue_decisions: int = 50_000
    journal_index_slots: int = 50_000

    # the uplink
    uplink_heartbeat_ms: int = 2_000
    uplink_silence_ms: int = 6_000
    uplink_backoff_ms: int = 200
    uplink_backoff_max_ms: int = 2_000
    uplink_standby_ms: int = 500  # the longest pause while a standby answers: somebody leads soon
    uplink_queue_messages: int = 100_000
    uplink_forwards: int = 256  # forwarded calls in progress

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
        if any(self.etcd_tls) and not all(self.etcd_tls):
            raise ValueError("etcd_ca, etcd_certificate and etcd_key belong together")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise ValueError(f"workers must be 1 to {MOST_WORKERS}")
