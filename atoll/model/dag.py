"""Tasks that depend on each other: a cycle if there is one, and an order that keeps to the dependencies.

A graph names, for each task, those that must come before it. Names that are no task of it are left out of account.
"""

from collections.abc import Collection, Mapping

Graph = Mapping[str, Collection[str]]


def cycle(graph: Graph) -> list[str]:
    """The tasks of a circle longer than one, each depending on the next one and the last on the first; empty: none."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        upstream = [iter([start])]
        while upstream:
            name = next(upstream[-1], None)
            if name is None:
                upstream.pop()
                if path:
                    done.add(path.pop())
            elif name in path and name != path[-1]:
                return path[path.index(name) :]
            elif name not in done and name not in path and name in graph:
                path.append(name)
                upstream.append(iter(graph[name]))
    return []


def ordered(graph: Graph) -> list[str]:
    """Every task behind those that it depends on, else in the order given. Of a graph without a cycle."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in graph and name not in found:
            for upstream in graph[name]:
                visit(upstream)
            found[name] = None

    for name in graph:
        visit(name)
    return list(found)
