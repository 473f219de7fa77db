"""Many clients at a limit while leaders die: the quota is all used, and exceeded at no revision."""

from pathlib import Path

import pytest

from tests.benchmarks import quota_race
from tests.support.etcd import need_etcd

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]
CLIENTS, JOBS, LIMIT = 16, 200, 48


def test_quota_is_exact_under_a_race(tmp_path: Path) -> None:
    need_etcd()
    figures = quota_race.measure(tmp_path, CLIENTS, JOBS, LIMIT)
    assert figures["jobs_accepted"] == JOBS
    assert figures["bound_in_the_end"] == figures["most_bound_at_any_revision"] == LIMIT
    assert len(figures["leaders_killed"]) == 4
    assert figures["violations"] == 0 and figures["revisions_audited"] > JOBS
