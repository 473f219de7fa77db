"""The store contract of transactions, point by point, on every back end."""

import pytest

from atoll.store.store import (
    MAX_OPERATIONS,
    MAX_REQUEST_BYTES,
    Applied,
    Compare,
    Delete,
    Get,
    KeyValue,
    Put,
    Refusal,
    Relation,
    Target,
    Txn,
    absent,
    created_at,
    mod_is,
    not_written_since,
    prefix_end,
)
from tests.contracts.store.place import Place, applied, refused

# ---- revisions


async def test_a_key_carries_its_revisions(place: Place) -> None:
    created = await place.put("a", b"1")
    changed = await place.put("a", b"2")
    item, revision = await place.store.get(place.key("a"))
    assert changed == created + 1 == revision
    assert item == KeyValue(place.key("a"), b"2", created, changed, version=2)


async def test_a_key_that_comes_back_starts_a_new_life(place: Place) -> None:
    await place.put("a")
    applied(await place.transact(Txn(success=(Delete(place.key("a")),))))
    again = await place.put("a")
    item, _ = await place.store.get(place.key("a"))
    assert item is not None and (item.create_revision, item.version) == (again, 1)


async def test_one_transaction_is_one_revision(place: Place) -> None:
    before = await place.put("a")
    outcome = applied(
        await place.transact(Txn(success=(Put(place.key("b"), b""), Put(place.key("c"), b""), Delete(place.key("a")))))
    )
    assert outcome.revision == before + 1


async def test_a_transaction_that_changes_nothing_makes_no_revision(place: Place) -> None:
    before = await place.put("a")
    for txn in (Txn(), Txn(success=(Get(place.key("a")),)), Txn(success=(Delete(place.key("nobody")),))):
        assert applied(await place.transact(txn)).revision == before


async def test_a_get_sees_the_writes_before_it_in_its_transaction(place: Place) -> None:
    key = place.key("a")
    outcome = applied(await place.transact(Txn(success=(Get(key), Put(key, b"1"), Get(key)))))
    assert outcome.reads == (None, KeyValue(key, b"1", outcome.revision, outcome.revision, 1))


# ---- compares


@pytest.mark.parametrize("target", [Target.VERSION, Target.CREATE, Target.MOD])
@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize("offset", [-1, 0, 1])
async def test_each_compare_means_what_it_says(place: Place, target: Target, relation: Relation, offset: int) -> None:
    created = await place.put("a")
    changed = await place.put("a")
    found = {Target.VERSION: 2, Target.CREATE: created, Target.MOD: changed}[target]
    operand = found + offset
    expected = {
        Relation.EQUAL: found == operand,
        Relation.NOT_EQUAL: found != operand,
        Relation.GREATER: found > operand,
        Relation.LESS: found < operand,
    }[relation]
    outcome = await place.transact(Txn((Compare(place.key("a"), target, relation, operand),)))
    assert isinstance(outcome, Applied) is expected


@pytest.mark.parametrize(
    ("relation", "operand", "holds"),
    [
        (Relation.EQUAL, b"m", True),
        (Relation.EQUAL, b"n", False),
        (Relation.NOT_EQUAL, b"n", True),
        (Relation.GREATER, b"l", True),
        (Relation.GREATER, b"m", False),
        (Relation.LESS, b"n", True),
        (Relation.LESS, b"", False),
    ],
)
async def test_values_compare_as_bytes(place: Place, relation: Relation, operand: bytes, holds: bool) -> None:
    await place.put("a", b"m")
    outcome = await place.transact(Txn((Compare(place.key("a"), Target.VALUE, relation, operand),)))
    assert isinstance(outcome, Applied) is holds


@pytest.mark.parametrize("relation", list(Relation))
async def test_a_value_compare_on_an_absent_key_never_holds(place: Place, relation: Relation) -> None:
    refused(await place.transact(Txn((Compare(place.key("a"), Target.VALUE, relation, b""),))))


async def test_an_absent_key_has_revision_and_version_zero(place: Place) -> None:
    key = place.key("a")
    applied(await place.transact(Txn((absent(key), mod_is(key, 0), created_at(key, 0)))))


async def test_absence_of_a_range(place: Place) -> None:
    txn = Txn((not_written_since(place.key("slot/"), 0),), (Put(place.key("slot/1"), b""),))
    await place.put("slot")
    await place.put("slot0")
    applied(await place.transact(txn))
    refused(await place.transact(txn))


async def test_a_range_not_written_since(place: Place) -> None:
    prefix = place.key("slot/")
    applied(await place.transact(Txn((not_written_since(prefix, 0),))))
    await place.put("slot/1")
    newest = await place.put("slot/2")
    await place.put("slot0")
    refused(await place.transact(Txn((not_written_since(prefix, newest - 1),))))
    txn = Txn((not_written_since(prefix, newest),), (Delete(prefix, prefix_end(prefix)),))
    applied(await place.transact(txn))
    assert (await place.store.get(place.key("slot/1")))[0] is None
    assert (await place.store.get(place.key("slot0")))[0] is not None


async def test_a_failed_compare_does_the_other_branch_and_says_what_is_there(place: Place) -> None:
    revision = await place.put("a", b"1")
    txn = Txn((absent(place.key("a")),), (Put(place.key("b"), b""),), (Get(place.key("a")), Get(place.key("b"))))
    outcome = refused(await place.transact(txn))
    assert outcome.revision == revision
    assert outcome.reads == (KeyValue(place.key("a"), b"1", revision, revision, 1), None)


async def test_writes_of_the_other_branch_count(place: Place) -> None:
    before = await place.put("a")
    txn = Txn((absent(place.key("a")),), failure=(Put(place.key("b"), b"1"),))
    assert refused(await place.transact(txn)).revision == before + 1
    assert (await place.store.get(place.key("b")))[0] is not None


# ---- form and limits


async def test_a_key_may_be_put_once(place: Place) -> None:
    a = place.key("a")
    for twice in (
        (Put(a, b"1"), Put(a, b"2")),
        (Put(a, b"1"), Delete(a)),
        (Delete(place.prefix, b"\x00"), Put(a, b"")),
    ):
        refused(await place.transact(Txn(success=twice)), Refusal.INVALID)
        refused(await place.transact(Txn(failure=twice)), Refusal.INVALID)
    assert (await place.store.get(a))[0] is None


async def test_a_key_may_be_deleted_twice(place: Place) -> None:
    before = await place.put("a")
    twice = (Delete(place.key("a")), Delete(place.prefix, prefix_end(place.prefix)))
    assert applied(await place.transact(Txn(success=twice))).revision == before + 1


@pytest.mark.parametrize("count", [MAX_OPERATIONS, MAX_OPERATIONS + 1])
async def test_the_number_of_operations_is_bounded_in_each_part(place: Place, count: int) -> None:
    gets = tuple(Get(place.key(str(i))) for i in range(count))
    compares = tuple(absent(place.key(str(i))) for i in range(count))
    full = MAX_OPERATIONS
    for txn in (
        Txn(compares, gets[:full], gets[:full]),
        Txn(compares[:full], gets, gets[:full]),
        Txn(compares[:full], gets[:full], gets),
    ):
        outcome = await place.transact(txn)
        if count <= MAX_OPERATIONS:
            assert len(applied(outcome).reads) == full
        else:
            refused(outcome, Refusal.INVALID)


async def test_the_size_is_bounded(place: Place) -> None:
    half = bytes(MAX_REQUEST_BYTES // 2)
    fits = Txn(success=(Put(place.key("a"), half), Put(place.key("b"), half[2_000:])))
    applied(await place.transact(fits))
    too_large = Txn(success=(Put(place.key("a"), half), Put(place.key("c"), half)))
    refused(await place.transact(too_large), Refusal.TOO_LARGE)
    assert (await place.store.get(place.key("c")))[0] is None


async def test_a_key_is_needed(place: Place) -> None:
    for txn in (Txn((absent(b""),)), Txn(success=(Put(b"", b""),)), Txn(failure=(Delete(b""),)), Txn((), (Get(b""),))):
        refused(await place.transact(txn), Refusal.INVALID)
