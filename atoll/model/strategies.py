"""Names of the strategies by which a region chooses among the nodes that can take a replica.

Known to admission, settings and the scheduler; what each weighs is in regional/core/scores.py.
"""

BIN_PACK = "bin-pack"
SPREAD = "spread"
BALANCED = "balanced"
LEAST_LOADED = "least-loaded"
BEST_FIT = "best-fit"
WORST_FIT = "worst-fit"
FIRST_FIT = "first-fit"
ROUND_ROBIN = "round-robin"

STRATEGIES = (BIN_PACK, SPREAD, BALANCED, LEAST_LOADED, BEST_FIT, WORST_FIT, FIRST_FIT, ROUND_ROBIN)
DEFAULT = BIN_PACK
