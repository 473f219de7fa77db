"""What users and operators of one history make use of, beside services. Every seed draws its own subset, so that rare
combinations meet.

Decides which kinds of wishes there are; users.py, operators.py and jobs.py draw the wishes themselves.
"""

import random
from dataclasses import dataclass, fields

PLAIN = 0.3  # of the histories have none of them
EACH = 0.4  # of the others have one of them


@dataclass(frozen=True, slots=True)
class Features:
    crowded: bool = False  # large requests: nodes are full, work waits for room, preempts and is preempted
    strict: bool = False  # tenants whose quota pays for what may still run, and whose weights change
    rules: bool = False  # labels of nodes; selectors, affinity, colocation and topology spread
    gpus: bool = False  # nodes with GPUs, and work that asks for some or for a part of one
    long_jobs: bool = False  # that say how long they run, and of which some are gangs
    schedules: bool = False  # jobs that run each minute
    removals: bool = False  # nodes that are removed, some with their machine, and join again
    tokens: bool = False  # of users, made and revoked
    protected: bool = False  # tenants that have parts of regions protected
    flurries: bool = False  # many changes at once
    policies: bool = False  # of placement, made, promoted, tried in a region and rolled back
    notices: bool = False  # jobs whose ends are told to a web server
    burst: bool = False  # tenants that may use more than their quota for low work, and have less quota
    recovery: bool = False  # services that ask for room should any one region be lost, where there are several


NO_FEATURES = Features()


def draw(seed: int) -> Features:
    """A source of randomness of its own: what else a seed draws stays as it is."""
    rng = random.Random(seed ^ 0xFEA7)
    if rng.random() < PLAIN:
        return NO_FEATURES
    return Features(*(rng.random() < EACH for _ in fields(Features)))
