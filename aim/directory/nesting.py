"""Who is in a container in the end: below it in the tree, and by nested membership. Pure.

In come sets of people by place and by direct membership; out go complete sets. Both algorithms are linear in
what they are given and use no recursion, so that neither depth nor cycles can hurt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pyroaring import BitMap

from aim.directory.dn import depth, parent
from aim.directory.roster import People


def below(places: Mapping[str, Iterable[int]], wanted: Collection[str]) -> dict[str, BitMap]:
    """Everybody below each of the `wanted` DNs, however deep, whether or not the DNs between exist.

    `places` maps the canonical DN that people are directly below to their numbers. DNs in `wanted` with
    nobody below are left out.
    """
    levels: defaultdict[int, dict[str, BitMap]] = defaultdict(dict)
    for dn, numbers in places.items():
        levels[depth(dn)][dn] = BitMap(numbers)
    found: dict[str, BitMap] = {}
    for level in range(max(levels, default=0), 0, -1):
        above = levels[level - 1]
        for dn, people in levels.pop(level, {}).items():
            if dn in wanted:
                found[dn] = people
            up = parent(dn)
            if up in above:
                above[up] |= people
            elif up:
                above[up] = people.copy()
    return found


def closure(direct: Sequence[BitMap], nested: Sequence[Sequence[int]]) -> list[People]:
    """For each container the people in it or in any container it reaches.

    Container `i` has the people `direct[i]` and the containers `nested[i]` (positions) in it.
    Containers that contain each other form a strongly connected component and hold the same people.
    """
    complete: list[People | None] = [None] * len(direct)
    for component in _components(nested):
        people = BitMap()
        for container in component:
            people |= direct[container]
            for inner in nested[container]:
                inside = complete[inner]  # None only within the component itself
                if inside is not None:
                    people |= inside
        shared = People(people)
        for container in component:
            complete[container] = shared
    return [people for people in complete if people is not None]


def _components(edges: Sequence[Sequence[int]]) -> Iterable[list[int]]:
    """Strongly connected components, each after all that it reaches."""
    search = _Search(edges)
    for root in range(len(edges)):
        yield from search.components_from(root)


class _Search:
    """One depth-first search for strongly connected components (Tarjan 1972) with a stack of our own."""

    def __init__(self, edges: Sequence[Sequence[int]]) -> None:
        self._edges = edges
        self._order: dict[int, int] = {}
        self._lowest: dict[int, int] = {}
        self._open: list[int] = []
        self._is_open: set[int] = set()
        self._work: list[tuple[int, Iterator[int]]] = []

    def components_from(self, root: int) -> Iterable[list[int]]:
        """The components reached from `root` that no earlier root reached."""
        if root in self._order:
            return
        self._enter(root)
        while self._work:
            node, successors = self._work[-1]
            inner = self._step(node, successors)
            if inner is not None:
                self._enter(inner)
                continue
            self._work.pop()
            if self._work:
                self._lower(self._work[-1][0], self._lowest[node])
            if self._lowest[node] == self._order[node]:
                yield self._close(node)

    def _enter(self, node: int) -> None:
        self._order[node] = self._lowest[node] = len(self._order)
        self._open.append(node)
        self._is_open.add(node)
        self._work.append((node, iter(self._edges[node])))

    def _step(self, node: int, successors: Iterator[int]) -> int | None:
        """The next successor never seen before; notes those still open on the way."""
        for successor in successors:
            if successor not in self._order:
                return successor
            if successor in self._is_open:
                self._lower(node, self._order[successor])
        return None

    def _lower(self, node: int, order: int) -> None:
        self._lowest[node] = min(self._lowest[node], order)

    def _close(self, root: int) -> list[int]:
        start = self._open.index(root) if self._open[-1] != root else len(self._open) - 1
        component = self._open[start:]
        del self._open[start:]
        self._is_open.difference_update(component)
        return component
