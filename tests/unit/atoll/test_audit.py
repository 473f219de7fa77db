"""A history as it should be passes; each way to break a rule is found, under the name of the rule it breaks."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import objects_pb2
from atoll.audit import CHECKED, Auditor
from atoll.store import keys
from atoll.store.store import Batch, Delete, Put, prefix_end
from tests.support import history
from tests.support.history import ROOT, History

WAITING, RESERVED, DONE = (
    objects_pb2.SLOT_STATE_WAITING,
    objects_pb2.SLOT_STATE_RESERVED,
    objects_pb2.SLOT_STATE_DONE,
)
SLOT_KEY = keys.slot(ROOT, history.slot_id())
GLOBAL = keys.GLOBAL


def world(*, strict: bool = False) -> History:
    """One region may use 2 of the 10 units of a tenant, and has bound slot 0 by attempt 1."""
    made = History()
    made.elect(GLOBAL)
    made.write(GLOBAL, history.region(epoch=1))
    made.write(GLOBAL, history.budget(effective=10, free=10))
    made.write(GLOBAL, history.budget(effective=10, free=7, pool=1), history.slice_(2))
    made.elect(ROOT)
    made.write(ROOT, history.region_slice(2, strict=strict))
    made.write(ROOT, history.workload(3))
    made.write(ROOT, bound(made, 1), history.used(1))
    assert_clean(made)
    return made


def bound(made: History, n: int, *, index: int = 0, generation: int = 1, uid: str = "u1", epoch: int = 1) -> Put:
    return history.slot((made.terms[ROOT], n), index=index, generation=generation, uid=uid, epoch=epoch)


def assert_clean(made: History) -> None:
    verdict = made.verdict()
    assert not verdict.broken, "\n".join(map(str, verdict.violations))


# ---- what is right


def test_a_life_of_slots_passes() -> None:
    made = world()
    old = made.terms[ROOT]
    made.write(ROOT, history.slot((old, 2), index=1, state=RESERVED), history.used(2))
    made.write(ROOT, history.slot((old, 2), index=1))
    made.release(history.slot((old, 1), state=WAITING), history.used(1))
    made.write(ROOT, bound(made, 3, generation=2), history.used(2))
    made.elect(ROOT)
    made.write(ROOT, history.zombie((old, 3)), history.slot((made.terms[ROOT], 1), generation=3, node="n2"))
    made.raw(
        made.lane(ROOT, index=1, operation="RELEASE"),
        history.slot((old, 2), index=1, state=DONE),
        history.used(-1, lane=1),
    )
    made.raw(made.lane(ROOT, entry=objects_pb2.LANE_ENTRY_SEAL))
    made.write(ROOT, Delete(keys.zombie(ROOT, "n1", history.slot_id(), objects_pb2.Attempt(term=old, n=3))))
    made.release(Delete(SLOT_KEY), history.used(1))
    made.write(ROOT, Delete(keys.region_workload(ROOT, "acme", "web")))
    assert_clean(made)


def test_a_replaced_slot_waits_beside_its_zombie() -> None:
    made = world()
    zombie = history.zombie((made.terms[ROOT], 1))
    made.write(ROOT, zombie, history.slot(state=WAITING), history.used(0), operation="REPLACE")
    made.write(ROOT, bound(made, 2), history.used(1))
    assert_clean(made)


def test_work_of_an_older_epoch_does_not_use_up_the_new_slice_until_it_is_adopted() -> None:
    made = world()
    made.write(GLOBAL, history.region(epoch=2))
    made.write(GLOBAL, history.slice_(2, epoch=2, seq=2))
    made.write(ROOT, history.region_slice(2, epoch=2, revision=2))
    made.write(ROOT, bound(made, 2, index=1, epoch=2), bound(made, 3, index=2, epoch=2), history.used(3))
    assert_clean(made)
    made.write(ROOT, bound(made, 1, epoch=2))
    assert made.broken() == ["I3"]


def test_keys_of_others_are_none_of_our_business() -> None:
    made = world()
    made.raw(Put(b"/elsewhere", b"x"), Put(b"registry", b"y"))
    assert_clean(made)


# ---- what is wrong

Write = Callable[[History], object]

BROKEN: dict[str, tuple[list[str], Write]] = {
    "unknown kind of key": (["schema"], lambda h: h.write(ROOT, Put(ROOT + b"slots/x", b""))),
    "unknown depth of key": (["schema"], lambda h: h.write(GLOBAL, Put(b"/g/budget", b""))),
    "a root without a name": (["schema"], lambda h: h.raw(Put(b"/r/", b""))),
    "a value that cannot be read": (["schema"], lambda h: h.write(ROOT, Put(ROOT + b"node/n1", b"\xff"))),
    "slot under another tenant": (
        ["I4"],
        lambda h: h.write(ROOT, Put(ROOT + b"slot/evil/web/main/0", history.slot(state=WAITING).value)),
    ),
    "workload under another tenant": (
        ["I4"],
        lambda h: h.write(ROOT, Put(keys.region_workload(ROOT, "evil", "web"), history.workload(1).value)),
    ),
    # I1
    "bound again without release": (["I1"], lambda h: h.write(ROOT, bound(h, 2))),
    "bound again, zombie later": (
        ["I1"],
        lambda h: (h.write(ROOT, bound(h, 2)), h.write(ROOT, history.zombie((h.terms[ROOT], 1)))),
    ),
    "bound again, zombie of another attempt": (
        ["I1"],
        lambda h: h.write(ROOT, bound(h, 2), history.zombie((h.terms[ROOT], 7))),
    ),
    "let go without a certificate": (
        ["I1"],
        lambda h: h.write(ROOT, history.slot(state=WAITING), history.used(0), operation="REPLACE"),
    ),
    "forgotten without a certificate": (
        ["I1"],
        lambda h: h.write(ROOT, Delete(SLOT_KEY), history.used(0), operation="FORGET"),
    ),
    "attempt goes back": (["I1"], lambda h: h.write(ROOT, bound(h, 0), history.zombie((h.terms[ROOT], 1)))),
    "attempt comes back after its release": (
        ["I1"],
        lambda h: (
            h.release(history.slot(state=WAITING), history.used(0)),
            h.write(ROOT, bound(h, 1), history.used(1)),
        ),
    ),
    "attempt comes back after the slot was forgotten": (
        ["I1"],
        lambda h: (h.release(Delete(SLOT_KEY), history.used(0)), h.write(ROOT, bound(h, 1), history.used(1))),
    ),
    "one attempt for two slots": (["I1"], lambda h: h.write(ROOT, bound(h, 1, index=1), history.used(2))),
    "attempt moves to another node": (["I1"], lambda h: h.write(ROOT, history.slot((h.terms[ROOT], 1), node="n2"))),
    "attempt of another term": (
        ["I1"],
        lambda h: h.write(ROOT, history.slot((h.terms[ROOT] + 1, 1), index=1), history.used(2)),
    ),
    "bound without an attempt": (["I1"], lambda h: h.write(ROOT, history.slot(index=1), history.used(2))),
    # I3
    "charge without a slot": (["I3"], lambda h: h.write(ROOT, history.used(2))),
    "slot without a charge": (["I3"], lambda h: h.write(ROOT, bound(h, 2, index=1))),
    "release without a credit": (["I3"], lambda h: h.release(history.slot(state=DONE))),
    "a forgotten bound slot": (["I3"], lambda h: h.release(Delete(SLOT_KEY))),
    "limit exceeded": (
        ["I3"],
        lambda h: h.write(ROOT, bound(h, 2, index=1), bound(h, 3, index=2), history.used(3)),
    ),
    "limit taken away under use": (["I3"], lambda h: h.write(ROOT, history.region_slice(0))),
    "slice deleted under use": (["I3"], lambda h: h.write(ROOT, Delete(keys.region_slice(ROOT, "acme")))),
    "zombie of another size": (
        ["I3"],
        lambda h: h.write(ROOT, bound(h, 2), history.zombie((h.terms[ROOT], 1), units=2)),
    ),
    "budget from nothing": (["I3"], lambda h: h.write(GLOBAL, history.budget(effective=10, free=8, pool=1))),
    "slice from nothing": (["I3"], lambda h: h.write(GLOBAL, history.slice_(3, seq=2))),
    "a budget deleted under its slices": (["I3"], lambda h: h.write(GLOBAL, Delete(keys.budget("acme")))),
    "negative parts that add up": (
        ["I3"],
        lambda h: h.write(GLOBAL, history.budget(effective=10, free=9, pool=-1)),
    ),
    "region takes more than granted": (["I3"], lambda h: h.write(ROOT, history.region_slice(3))),
    "grant lowered before the region": (
        ["I3"],
        lambda h: h.write(GLOBAL, history.slice_(1, seq=2), history.budget(effective=10, free=8, pool=1)),
    ),
    # I5
    "written while nobody leads": (["I5"], lambda h: (h.depose(ROOT), h.write(ROOT, history.workload(3)))),
    "written by nobody while nobody leads": (
        ["I5"],
        lambda h: (h.depose(ROOT), h.raw(h.lane(ROOT, term=0, index=5), history.workload(3))),
    ),
    "written by an older term": (
        ["I5"],
        lambda h: (h.elect(ROOT), h.raw(h.lane(ROOT, term=h.terms[ROOT] - 1), history.workload(3))),
    ),
    "written without a lane": (["I5"], lambda h: h.raw(history.workload(3))),
    "deleted without a lane": (["I5", "I7"], lambda h: h.raw(Delete(keys.region_workload(ROOT, "acme", "web")))),
    "written with two lanes": (["I5"], lambda h: h.raw(h.lane(ROOT), h.lane(ROOT, index=1), history.workload(3))),
    "a seal that writes": (
        ["I5"],
        lambda h: h.raw(h.lane(ROOT, entry=objects_pb2.LANE_ENTRY_SEAL), history.workload(3)),
    ),
    "a lane that goes back": (
        ["I5"],
        lambda h: h.raw(history.put(keys.lane(ROOT, 0), objects_pb2.Lane(term=h.terms[ROOT], n=1))),
    ),
    "a lane deleted": (["I5"], lambda h: h.raw(Delete(keys.lane(ROOT, 0)))),
    "leader rewritten": (["I5"], lambda h: h.raw(history.put(keys.leader(ROOT), objects_pb2.Leader(), lease=2))),
    "leader without a lease": (
        ["I5"],
        lambda h: (h.depose(ROOT), h.raw(history.put(keys.leader(ROOT), objects_pb2.Leader()))),
    ),
    "one transaction under two roots": (
        ["I5"],
        lambda h: h.raw(h.lane(ROOT), h.lane(GLOBAL), history.workload(3), history.region(epoch=1)),
    ),
    # I6
    "slot of a future epoch": (["I6"], lambda h: h.write(ROOT, bound(h, 2, index=1, epoch=2), history.used(2))),
    "slice of a future epoch": (["I6"], lambda h: h.write(GLOBAL, history.slice_(2, epoch=2, seq=2))),
    "region slice of a future epoch": (
        ["I6"],
        lambda h: h.write(ROOT, history.region_slice(2, epoch=2)),
    ),
    "region's epoch goes back": (
        ["I6"],
        lambda h: (h.write(GLOBAL, history.region(epoch=2)), h.write(GLOBAL, history.region(epoch=1))),
    ),
    "slice's sequence goes back": (["I6"], lambda h: h.write(GLOBAL, history.slice_(2, seq=0))),
    "older slice replaces newer": (["I6"], lambda h: h.write(ROOT, history.region_slice(2, revision=0))),
    "older share replaces newer": (["I6"], lambda h: h.write(ROOT, history.workload(3, revision=0))),
    # I7
    "slot without a workload": (
        ["I7"],
        lambda h: h.write(ROOT, history.used(2), renamed(h, "ghost", objects_pb2.SLOT_STATE_BOUND)),
    ),
    "reservation without a workload": (["I7"], lambda h: h.write(ROOT, history.used(2), renamed(h, "ghost", RESERVED))),
    "workload removed under a slot": (
        ["I7"],
        lambda h: h.write(ROOT, Delete(keys.region_workload(ROOT, "acme", "web"))),
    ),
    "bound for a workload of another life": (
        ["I7"],
        lambda h: h.write(ROOT, bound(h, 2, index=1, uid="u0"), history.used(2)),
    ),
    "slot of a generation to come": (
        ["I7"],
        lambda h: h.write(ROOT, bound(h, 2, index=1, generation=4), history.used(2)),
    ),
    # I9
    "generation goes back with a new attempt": (
        ["I9"],
        lambda h: (
            h.write(ROOT, bound(h, 1, generation=3)),
            h.release(history.slot(state=WAITING), history.used(0)),
            h.write(ROOT, bound(h, 2, generation=2), history.used(1)),
        ),
    ),
    "generation of an attempt goes back": (
        ["I9"],
        lambda h: (h.write(ROOT, bound(h, 1, generation=3)), h.write(ROOT, bound(h, 1, generation=2))),
    ),
}


def renamed(made: History, name: str, state: "objects_pb2.SlotState.ValueType") -> Put:
    """A charged slot of a workload that the region does not have."""
    record = objects_pb2.Slot.FromString(history.slot((made.terms[ROOT], 9), state=state).value)
    record.id.workload = name
    return history.put(keys.slot(ROOT, record.id), record)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found_at_its_revision(case: str) -> None:
    expected, write = BROKEN[case]
    made = world()
    clean_until = made.state.revision
    write(made)
    verdict = made.verdict()
    assert [invariant for invariant, _ in verdict.broken] == expected, "\n".join(map(str, verdict.violations))
    assert all(violation.revision > clean_until for violation in verdict.violations)


def test_strict_counts_zombies_and_available_does_not() -> None:
    for strict, broken in ((False, []), (True, ["I3"])):
        made = world(strict=strict)
        made.write(ROOT, bound(made, 2, index=1), history.used(2))
        made.write(ROOT, history.zombie((made.terms[ROOT], 1)), bound(made, 3))
        assert made.broken() == broken


def test_strict_counts_slots_of_older_epochs() -> None:
    for strict, broken in ((False, []), (True, ["I3"])):
        made = world(strict=strict)
        made.write(ROOT, bound(made, 2, index=1), history.used(2))
        made.write(GLOBAL, history.region(epoch=2))
        made.write(ROOT, history.region_slice(2, epoch=2, revision=2, strict=strict))
        made.write(ROOT, bound(made, 3, index=2, epoch=2), history.used(3))
        assert made.broken() == broken


def test_a_workload_made_anew_counts_generations_from_one() -> None:
    made = world()
    made.write(ROOT, history.workload(1, uid="u2", revision=5))
    made.release(history.slot((made.terms[ROOT], 1), state=WAITING), history.used(0))
    made.write(ROOT, bound(made, 2, generation=1, uid="u2"), history.used(1))
    assert_clean(made)


def test_every_checked_invariant_has_a_history_that_breaks_it() -> None:
    elsewhere = {"I12"}  # test_gang_audit.py
    broken = {invariant for expected, _ in BROKEN.values() for invariant in expected}
    assert broken == {*CHECKED, "schema"} - elsewhere


# ---- histories that were tampered with


def life() -> History:
    """Slots bound, released, bound again and forgotten, one after the other, on one lane."""
    made = world()
    for n in range(2, 12):
        made.release(history.slot(state=WAITING), history.used(0))
        made.write(ROOT, bound(made, n), history.used(1))
    made.release(Delete(SLOT_KEY), history.used(0))
    assert_clean(made)
    return made


def broken(batches: list[Batch]) -> bool:
    auditor = Auditor()
    for batch in batches:
        auditor.feed(batch)
    return bool(auditor.verdict().broken)


def test_a_history_from_which_any_one_change_was_taken_is_found_broken() -> None:
    batches = list(life().state.batches(b"/", 1))
    tampered = 0
    for i, batch in enumerate(batches[7:], 7):
        for change in batch.changes:
            rest = Batch(batch.revision, tuple(other for other in batch.changes if other is not change))
            assert broken([*batches[:i], rest, *batches[i + 1 :]]), f"{change.key!r} of revision {batch.revision}"
            tampered += 1
    assert tampered > 60


def test_a_history_with_revisions_repeated_or_out_of_order_is_found_broken() -> None:
    batches = list(life().state.batches(b"/", 1))
    for i in range(8, len(batches)):
        assert broken([*batches[:i], batches[i - 1], *batches[i:]])
        assert broken([*batches[: i - 1], batches[i], batches[i - 1], *batches[i + 1 :]])


# ---- the verdict


def test_the_verdict_says_what_holds_what_does_not_and_what_was_not_checked() -> None:
    made = world()
    assert made.verdict().line(2) == f"I1 I3 I4 I5 I6 I7 I9 I12 hold at revision {made.state.revision}, 2 s ago"
    made.write(ROOT, history.used(2))
    verdict = made.verdict()
    assert verdict.line(0).startswith("I3 BROKEN 1 times; I1 I4")
    assert str(verdict.violations[0]).startswith(f"I3 at revision {made.state.revision}, {ROOT.decode()}used/acme/0:")
    unseen = " ".join(verdict.notes)
    assert all(f" I{n}" in f" {unseen}" for n in range(1, 13) if f"I{n}" not in CHECKED)


def test_a_store_without_the_global_plane_is_not_said_to_keep_x() -> None:
    made = History()
    made.elect(ROOT)
    made.write(ROOT, history.region_slice(2, epoch=7))
    verdict = made.verdict()
    assert not verdict.broken
    assert any("(X)" in note for note in verdict.notes)
    assert not any("(X)" in note for note in world().verdict().notes)


def test_a_snapshot_is_judged_as_a_state_and_the_history_after_it_as_before() -> None:
    made = world()
    made.elect(ROOT)
    auditor = Auditor()
    auditor.begin(made.state.range(b"/", prefix_end(b"/")))
    begun = auditor.verdict()
    assert (begun.broken, begun.since, begun.revision) == ((), made.state.revision, made.state.revision)
    assert any("compacted" in note for note in begun.notes)
    before = made.state.revision
    made.write(ROOT, bound(made, 2))
    for batch in made.state.batches(b"/", before + 1):
        auditor.feed(batch)
    assert [v.invariant for v in auditor.verdict().violations] == ["I1"]


def test_a_snapshot_with_broken_sums_is_found() -> None:
    made = world()
    made.write(ROOT, history.used(2))
    auditor = Auditor()
    auditor.begin(made.state.range(b"/", prefix_end(b"/")))
    assert [v.invariant for v in auditor.verdict().violations] == ["I3"]
