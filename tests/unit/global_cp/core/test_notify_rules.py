"""Whom a job's end may be told to: nobody but those that operators have named."""

from atoll.api.v1 import objects_pb2
from global_cp.core.notify_rules import mistakes_in_notify

JOB, SERVICE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE
FAILED = objects_pb2.JOB_OUTCOME_FAILED
HOOKS = ("https://hooks.example.com/atoll/",)
GOOD = "https://hooks.example.com/atoll/x"


def mistakes(
    *urls: str, webhooks: tuple[str, ...] = HOOKS, on: tuple[int, ...] = (), type_: int = JOB
) -> dict[str, str]:
    wishes = [objects_pb2.Notification(url=url, on=on) for url in urls]  # type: ignore[arg-type]
    spec = objects_pb2.WorkloadSpec(type=type_, notify=wishes)  # type: ignore[arg-type]
    return {mistake.path: mistake.message for mistake in mistakes_in_notify(spec, webhooks)}


def test_what_a_prefix_covers_is_good() -> None:
    assert mistakes(GOOD, on=(FAILED,)) == {}


def test_everything_else_is_denied() -> None:
    assert "allows none" in mistakes(GOOD, webhooks=())["spec.notify[0].url"]
    for url in ("https://hooks.example.com/other", "http://hooks.example.com/atoll/", "https://169.254.169.254/atoll/"):
        assert "has no prefix of it" in mistakes(GOOD, url)["spec.notify[1].url"]
    assert "names a user" in mistakes("https://u:p@hooks.example.com/atoll/")["spec.notify[0].url"]


def test_a_denial_names_the_server_with_its_port() -> None:
    for server in ("http://127.0.0.1:9000", "https://[::1]:8443", "https://hooks.example.org"):
        assert f"no prefix of it ({server})" in mistakes(f"{server}/a")["spec.notify[0].url"]


def test_what_makes_no_sense_is_told_with_its_path() -> None:
    assert set(mistakes(GOOD, type_=SERVICE)) == {"spec.notify"}
    assert set(mistakes(GOOD, GOOD)) == {"spec.notify[1].url"}
    assert set(mistakes(*(f"{GOOD}{n}" for n in range(5)))) == {"spec.notify"}
    assert set(mistakes(GOOD, on=(FAILED, FAILED))) == {"spec.notify[0].on"}
