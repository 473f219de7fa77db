"""Which one region a workload with a gang runs in: a gang is all or none, so it is never split over regions.

It stays where it is while it runs there, or waits there with nothing better in sight; a gang of which no replica has
found a node for a while goes where all of it has room. Where a region gives it up (spread.py says which do), the first
one that takes it, in order of preference, one with room before one without.
"""

from collections.abc import Mapping, Sequence

from global_cp.core.spread import Outlook, Place


def home(at: Sequence[Place], told: Mapping[str, int], wanted: Sequence[int], outlooks: Sequence[Outlook]) -> str:
    """`told`: how many replicas of its gang each region runs; `wanted` and `outlooks`: of each of its tasks. Empty: no
    region takes it."""
    present = [place for place in at if told.get(place.region)]
    stuck = {p.region: sum(outlook.stuck.get(p.region, 0) for outlook in outlooks) >= told[p.region] for p in present}
    roomy = [
        place.region
        for place in at
        if place.takes and all(outlook.room_of(place.region) >= n for n, outlook in zip(wanted, outlooks, strict=True))
    ]
    for place in present:
        if (place.keeps or place.takes) and not (stuck[place.region] and roomy):
            return place.region
    takers = [*roomy, *(place.region for place in at if place.takes), *(place.region for place in present)]
    return takers[0] if takers else ""
