from hypothesis import given
from hypothesis import strategies as st

from atoll.model.dag import cycle, ordered

NAMES = st.sampled_from("abcdefg")
GRAPHS = st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4))


@given(GRAPHS)
def test_a_graph_has_a_circle_or_an_order(graph: dict[str, list[str]]) -> None:
    known = {name: [up for up in upstream if up in graph and up != name] for name, upstream in graph.items()}
    found = cycle(known)
    if found:
        assert len(found) > 1
        assert all(after in known[name] for name, after in zip(found, [*found[1:], found[0]], strict=True))
    else:
        order = ordered(known)
        assert sorted(order) == sorted(known)
        assert all(order.index(up) < order.index(name) for name in known for up in known[name])
