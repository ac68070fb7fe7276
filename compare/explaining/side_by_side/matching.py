"""Which layer of one network is which of the other: by shape and by place in the graph, never by name.

Colours, as in the Weisfeiler-Lehman test of isomorphism: a layer's colour is its shape, refined step by step by the
colours of the layers before and behind it. Layers that alone have a colour on both sides are one layer, and give their
neighbours a firmer colour in turn. Inputs and outputs, which keep their order, hold both ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compare.explaining.side_by_side.layers import Label, Network, Source

_ROUNDS = (8, 4, 2, 1, 0)
"""How far a colour looks: as far as it helps, then less, where a converter wrote something between two layers."""
_FIRM = 2
"""From this many rounds on, layers of one colour are interchangeable, and their numbers tell them apart; below, their
order does."""

Neighbour = tuple[str, Label, Source]


@dataclass(frozen=True, eq=False)
class _Side:
    signatures: Sequence[tuple[object, ...]]
    neighbours: Sequence[Sequence[Neighbour]]


def _side(network: Network) -> _Side:
    found: list[list[Neighbour]] = [[] for _ in network.layers]
    for index, layer in enumerate(network.layers):
        for source, label in network.made_of(layer):
            found[index].append(("before", label, source))
            if source[0] == "layer":
                found[source[1]].append(("behind", label, ("layer", index)))
    for place, name in enumerate(network.outputs):
        for source, label in network.reach.get(name, frozenset()):
            if source[0] == "layer":
                found[source[1]].append(("behind", label, ("output", place)))
    return _Side([layer.signature for layer in network.layers], found)


def matched(one: Network, other: Network, alike: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """(index of a layer of `one`, of `other`), in the order of `one`.

    `alike` says how much two layers of one shape hold the same numbers, -1 to 2; it decides between layers that stand in the same
    place in every other way, such as two branches that are added.
    """
    sides = _side(one), _side(other)
    pairs: dict[int, int] = {}
    while True:
        found = _next(sides, pairs, alike)
        if not found:
            break
        pairs.update(found)
    pairs.update(_in_order(sides, pairs, alike))
    return sorted(pairs.items())


def _next(sides: tuple[_Side, _Side], pairs: Mapping[int, int], alike: Callable[[int, int], float]) -> dict[int, int]:
    """What can be matched next, by the colours that look furthest."""
    for rounds in _ROUNDS:
        ours, theirs = _by_colour(sides, pairs, rounds)
        shared = [colour for colour in ours if len(ours[colour]) == len(theirs.get(colour, ()))]
        alone = {ours[colour][0]: theirs[colour][0] for colour in shared if len(ours[colour]) == 1}
        if alone:
            return alone
        if shared:
            colour = min(shared, key=lambda each: (len(ours[each]), ours[each][0]))
            if rounds >= _FIRM:
                return _by_numbers(ours[colour], theirs[colour], alike)
            return dict(zip(ours[colour], theirs[colour], strict=True))
    return {}


def _by_colour(
    sides: tuple[_Side, _Side], pairs: Mapping[int, int], rounds: int
) -> tuple[Mapping[int, list[int]], Mapping[int, list[int]]]:
    """The layers without a partner, by colour, on both sides."""
    known = (dict(pairs), {theirs: ours for ours, theirs in pairs.items()})
    names: dict[object, int] = {}

    def colour(key: object) -> int:
        return names.setdefault(key, len(names))

    colours = []
    for place, side in enumerate(sides):
        partner = known[place]
        colours.append(
            [
                colour(("pair", index if place == 0 else partner[index]) if index in partner else signature)
                for index, signature in enumerate(side.signatures)
            ]
        )
    for _ in range(rounds):
        colours = [
            [
                now[index]
                if index in known[place]
                else colour((now[index], tuple(sorted(_seen(each, now) for each in side.neighbours[index]))))
                for index in range(len(now))
            ]
            for place, (side, now) in enumerate(zip(sides, colours, strict=True))
        ]
    groups: tuple[dict[int, list[int]], dict[int, list[int]]] = (defaultdict(list), defaultdict(list))
    for place, now in enumerate(colours):
        for index, name in enumerate(now):
            if index not in known[place]:
                groups[place][name].append(index)
    return dict(groups[0]), dict(groups[1])


def _seen(neighbour: Neighbour, colours: Sequence[int]) -> tuple[str, Label, str, int]:
    direction, label, (kind, index) = neighbour
    return (direction, label, kind, colours[index] if kind == "layer" else index)


def _by_numbers(ours: Sequence[int], theirs: Sequence[int], alike: Callable[[int, int], float]) -> dict[int, int]:
    """The most alike first; in order where nothing is alike."""
    ranked = sorted(
        ((alike(one, other), -abs(i - j), one, other) for i, one in enumerate(ours) for j, other in enumerate(theirs)),
        key=lambda each: (-round(each[0], 6), -each[1], each[2]),
    )
    found: dict[int, int] = {}
    for _, _, one, other in ranked:
        if one not in found and other not in found.values():
            found[one] = other
    return found


def _in_order(
    sides: tuple[_Side, _Side], pairs: Mapping[int, int], alike: Callable[[int, int], float]
) -> dict[int, int]:
    """Of what is left, the longest sequence of one shape after the other that both sides have; the most alike of those."""
    ours = [index for index in range(len(sides[0].signatures)) if index not in pairs]
    taken = set(pairs.values())
    theirs = [index for index in range(len(sides[1].signatures)) if index not in taken]
    one, other = ([side.signatures[i] for i in left] for side, left in zip(sides, (ours, theirs), strict=True))
    gains = [
        [_ONE + abs(alike(i, j)) if mine == their else 0.0 for j, their in zip(theirs, other, strict=True)]
        for i, mine in zip(ours, one, strict=True)
    ]
    best = [[0.0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    """best[a][b]: the most that can be gained from the first a of ours and the first b of theirs."""
    for a, row in enumerate(gains):
        for b, gain in enumerate(row):
            together = best[a][b] + gain if gain else 0.0
            best[a + 1][b + 1] = max(best[a][b + 1], best[a + 1][b], together)
    found: dict[int, int] = {}
    a, b = len(ours), len(theirs)
    while a and b:
        if best[a][b] == best[a - 1][b]:
            a -= 1
        elif best[a][b] == best[a][b - 1]:
            b -= 1
        else:
            a, b = a - 1, b - 1
            found[ours[a]] = theirs[b]
    return found


_ONE = 3.0
"""A pair more counts for more than pairs that are more alike."""
