"""verify(): which revisions are read, from where, until where, and what is told on the way."""

import asyncio
import contextlib

from atoll.audit import Verdict
from atoll.store import keys
from atoll.store.store import Put
from atoll.verification import verify
from tests.support import history, virtual_time
from tests.support.audit import assert_clean
from tests.support.history import ROOT, History


def led(writes: int) -> History:
    made = History()
    made.elect(ROOT)
    for n in range(writes):
        made.write(ROOT, history.workload(n + 1))
    return made


def run_verify(made: History, until: int | None = None) -> Verdict:
    return virtual_time.run(verify(made.store(), follow=False, until_revision=until, report=lambda _: None))


def test_it_checks_every_revision_there_is() -> None:
    verdict = run_verify(led(5))
    assert (verdict.since, verdict.revision, verdict.checked, verdict.broken) == (1, 7, 6, ())


def test_it_ends_where_it_is_told() -> None:
    made = led(5)
    made.write(ROOT, history.workload(1))  # fine: generations are only compared with slots
    made.raw(history.workload(1))
    assert run_verify(made, until=made.state.revision - 1).broken == ()
    assert run_verify(made).broken == (("I5", 1),)


def test_it_ends_though_the_last_revisions_are_of_others() -> None:
    made = led(1)
    made.raw(Put(b"elsewhere", b""))
    assert run_verify(made).revision == made.state.revision


def test_an_empty_store_is_clean() -> None:
    assert run_verify(History()).broken == ()


def test_a_compacted_history_begins_with_the_state_that_is_left() -> None:
    made = led(5)
    made.state.compact(5)
    made.raw(history.workload(1))
    verdict = run_verify(made)
    assert (verdict.since, verdict.revision) == (5, made.state.revision)
    assert verdict.broken == (("I5", 1),)
    assert verdict.notes[0] == "history before revision 5 is not read, or compacted: began with the state there"


def test_it_begins_where_it_is_told() -> None:
    made = led(5)
    made.raw(history.workload(1))
    asked = verify(made.store(), follow=False, until_revision=None, since_revision=4, report=lambda _: None)
    verdict = virtual_time.run(asked)
    assert (verdict.since, verdict.revision, verdict.broken) == (4, made.state.revision, (("I5", 1),))
    made.state.compact(5)
    asked = verify(made.store(), follow=False, until_revision=None, since_revision=4, report=lambda _: None)
    assert virtual_time.run(asked).since == 5, "what is left of it"


def test_following_reports_what_is_written_later() -> None:
    async def main() -> None:
        made = led(1)
        reports: list[Verdict] = []
        following = asyncio.create_task(verify(made.store(), follow=True, until_revision=None, report=reports.append))
        await asyncio.sleep(5)
        assert reports[-1].broken == ()
        assert reports[-1].revision == made.state.revision
        made.raw(history.workload(1))
        await asyncio.sleep(5)
        assert [str(v) for v in reports[-1].violations] == [
            f"I5 at revision {made.state.revision}, {keys.region_workload(ROOT, 'acme', 'web').decode()}: "
            "written with 0 lane records instead of one"
        ]
        assert not following.done()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    virtual_time.run(main())


def test_the_integration_tests_helper_fails_on_a_violation_and_on_an_empty_store() -> None:
    made = led(1)
    virtual_time.run(assert_clean(made.store()))
    made.raw(history.workload(1))
    for broken in (made, History()):
        try:
            virtual_time.run(assert_clean(broken.store()))
        except AssertionError:
            continue
        raise RuntimeError("a broken history was called clean")
