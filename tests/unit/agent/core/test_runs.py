from hypothesis import given
from hypothesis import strategies as st

from agent.core.runs import Rank, RunName, run_name
from atoll.model.names import NAME
from atoll.model.slots import AttemptId, SlotName

NAMES = st.from_regex(NAME, fullmatch=True)
NUMBERS = st.integers(0, 2**62)


@given(NAMES, NAMES, NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_runs_name_reads_back(
    tenant: str, workload: str, task: str, index: int, life: int, term: int, n: int
) -> None:
    run = RunName(SlotName(tenant, workload, task, index), Rank(life, AttemptId(term, n)))
    assert run_name(str(run)) == run
    assert len(str(run)) <= 255


def test_other_names_are_nobodys() -> None:
    for text in ("", "x", "a.b.c.0", "a.b.c.0.1-2", "a.b.c.-1.1-2-3", "a.b.c.0.1-2-3.new", "..", "a.b.c.0.1-2-3/.."):
        assert run_name(text) is None


def test_a_higher_store_life_outranks_every_attempt() -> None:
    assert Rank(2, AttemptId(1, 1)) > Rank(1, AttemptId(9, 9))
