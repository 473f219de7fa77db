"""A class evaluated in a mirror of the node table has the answers that it has in the table itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from regional.core.class_row import ClassRow
from regional.core.class_rows import Due
from tests.support.mirrored import Mirrored
from tests.support.random_tables import RandomTable, same


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32))
def test_answers_of_a_mirror_are_those_of_the_table(seed: int) -> None:
    random = RandomTable(seed, 12)
    mirrored = Mirrored()
    requests = [random.request() for _ in range(4)]
    own = [ClassRow(random.table, request) for request in requests]
    elsewhere = [ClassRow(random.table, request) for request in requests]
    for _ in range(4):
        mirrored.evaluate([Due(row, random.copies) for row in elsewhere])
        for one, other in zip(own, elsewhere, strict=True):
            one.refresh(random.copies)
            same(one, other)
        for _ in range(random.draw.randint(0, 6)):
            random.change()
        copies = random.copies  # whose rows are charged, so they changed
        random.copies = dict(copies)
    assert mirrored.evaluated == 16
