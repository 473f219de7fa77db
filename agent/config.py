"""Settings of the agent: every limit and period, unit in the name."""

from dataclasses import dataclass, field
from pathlib import Path

DRIVERS = ("auto", "process", "docker", "fake")


@dataclass(frozen=True, slots=True)
class Timing:
    """What the core needs to know of time. The heartbeat's interval and T_a come from the region's Welcome."""

    welcome_ms: int = 10_000  # a session without a Welcome for so long is left
    missed_heartbeats: int = 3  # unanswered for so many intervals: the session is left
    report_ms: int = 20  # changes of status within this time travel together
    checkpoint_retry_ms: int = 2_000
    fence_grace_ms: int = 1_000  # SIGTERM to SIGKILL for work whose deadline has passed
    guard_margin_ms: int = 2_000  # the guard acts so long after the agent should have
    grace_ms: int = 10_000  # when neither the command nor the task says
    stable_ms: int = 600_000  # a run that lived so long starts a new count of restarts


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """How the engine is used."""

    socket: Path = Path("/var/run/docker.sock")
    pull: str = "missing"  # images that are not here: missing = pull them, never = refuse them
    pull_s: float = 300.0
    call_s: float = 20.0  # an engine that does not answer for so long counts as down
    calls_at_once: int = 8
    pulls_at_once: int = 2
    look_s: float = 5.0  # between two comparisons of what runs with what should
    images_s: float = 15.0  # between two looks at which images are here
    most_pids: int = 1_024  # of one container
    gpus: bool = False  # the engine has NVIDIA's container toolkit: it hands containers the devices they hold

    def __post_init__(self) -> None:
        if self.pull not in ("missing", "never"):
            raise ValueError(f"docker.pull {self.pull!r} is not one of: missing, never")


@dataclass(frozen=True, slots=True)
class Settings:
    """agent.toml. Addresses are `host:port`; empty overrides mean: measure."""

    name: str
    region_programs: tuple[str, ...]
    ca: Path
    state_dir: Path
    region_people: tuple[str, ...] = ()
    join_token: str = ""
    driver: str = "auto"  # process, docker, fake; auto = processes, and containers while an engine answers
    labels: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    metrics: str = "127.0.0.1:0"
    run_network: str = ""  # within 127.0.0.0/8: every run has an address of its own in it; empty = 127.0.0.1
    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpus: tuple[str, ...] = ()  # models of the devices 0, 1, …; empty = those that NVIDIA's driver shows
    detect_gpus: bool = True
    reserved_memory_mib: int = 0
    log_mib: int = 8  # kept of each run's output, at most
    finished_runs: int = 100  # kept for their logs, at most
    reconnect_min_ms: int = 200
    reconnect_max_ms: int = 3_000
    most_candidates: int = 8  # addresses a stream is kept to
    send_queue: int = 1_000  # messages; a session whose queue is full is left
    probes_at_once: int = 64
    renew_check_s: int = 30
    kill_wait_s: float = 5.0
    timing: Timing = field(default_factory=Timing)
    docker: DockerSettings = field(default_factory=DockerSettings)

    def __post_init__(self) -> None:
        if not self.region_programs:
            raise ValueError("region_programs needs at least one address")
        if self.driver not in DRIVERS:
            raise ValueError(f"driver {self.driver!r} is not one of: {', '.join(DRIVERS)}")
