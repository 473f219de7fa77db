"""The parts of a parallelism, and how they go from one region to another."""

from atoll.api.v1 import objects_pb2
from global_cp.core.parallelism import Part, parts, standing, step, stored


def test_a_parallelism_is_parted_over_the_regions_that_still_need_it() -> None:
    assert parts(4, {"a": 5, "b": 5}, ()) == {"a": 2, "b": 2}
    assert parts(1, {"a": 5, "b": 5}, ()) == {"a": 1, "b": 0}
    assert parts(1, {"a": 5, "b": 5}, ["a"]) == {"a": 0, "b": 1}
    assert parts(9, {"a": 2, "b": 5, "c": 0}, ()) == {"a": 2, "b": 5, "c": 0}
    assert sum(parts(7, {"a": 1, "b": 100, "c": 3}, ()).values()) == 7


def test_a_part_rises_only_into_what_others_leave() -> None:
    now = {"a": Part(2, 2)}
    told = step(2, {"a": 1, "b": 1}, now)
    assert told == {"a": Part(1, 2), "b": Part(0, 0)}
    assert step(2, {"a": 1, "b": 1}, told) == told, "until the region has said that it keeps to its part"
    assert step(2, {"a": 1, "b": 1}, {**told, "a": Part(1, 1)}) == {"a": Part(1, 1), "b": Part(1, 1)}
    assert step(2, {"b": 2}, {**told, "a": Part(0, 2)}) == {"a": Part(0, 2), "b": Part(0, 0)}, "nobody else wants it"
    assert step(3, {"a": 0, "b": 3}, told) == {"a": Part(0, 2), "b": Part(1, 1)}


def test_a_region_is_taken_at_its_word_on_its_present_share_alone() -> None:
    share = objects_pb2.Share(parallel=stored({"main": Part(1, 3), "b": Part(2, 2)}))
    assert [part.held for part in share.parallel] == [0, 3]
    assert standing(share, "main", None) == standing(share, "main", 1) == Part(1, 3)
    assert standing(share, "main", 0) == Part(1, 1)
    assert standing(share, "b", None) == Part(2, 2)
    share.spec.tasks.add(name="c", replicas=2).speculation.most = 1
    assert standing(share, "c", None) == Part(3, 3), "it had no parallelism"
    assert standing(share, "d", None) == Part(0, 0)
