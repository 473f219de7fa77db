"""The strategies by which a region chooses among the nodes that can take a replica: names of scores, and what each
strategy weighs them.

These weights are the built-in policy, revision 0; later revisions of the policy override or add to them. Known to
admission, settings and the scheduler; what a score is, is in regional/core/scores.py.
"""

BIN_PACK = "bin-pack"
SPREAD = "spread"
BALANCED = "balanced"
LEAST_LOADED = "least-loaded"
BEST_FIT = "best-fit"
WORST_FIT = "worst-fit"
FIRST_FIT = "first-fit"
ROUND_ROBIN = "round-robin"
BEST_FIT_DECREASING = "best-fit-decreasing"
WORST_FIT_DECREASING = "worst-fit-decreasing"
FIRST_FIT_DECREASING = "first-fit-decreasing"
WARM_IMAGE = "warm-image"
COST = "cost"

# for nodes with GPUs
FGD = "fgd"
EXPECTED_FILL = "expected-fill"
GPU_BEST_FIT = "gpu-best-fit"
DOT_PRODUCT = "dot-product"
GPU_PACKING = "gpu-packing"
GPU_CLUSTERING = "gpu-clustering"

DECREASING = (BEST_FIT_DECREASING, WORST_FIT_DECREASING, FIRST_FIT_DECREASING)  # of a batch the larger first
SPREADING = (SPREAD, BALANCED, LEAST_LOADED, WORST_FIT, ROUND_ROBIN)  # they leave no node much fuller than others
DEFAULT = BIN_PACK

Weights = tuple[tuple[str, float], ...]  # of scores

# What the user and the operator said counts under every strategy that does not say otherwise.
WISHES: Weights = (("preferred", 2.0), ("untainted", 4.0))
_SLIGHTLY_WARM = ("warm", 1 / 16)  # of a node's fullness: it decides between nodes that are about as full
WEIGHTS: dict[str, Weights] = {
    BIN_PACK: (("fullness", 1.0), _SLIGHTLY_WARM, *WISHES),
    SPREAD: (("apart", 2.0), ("emptiness", 1.0), _SLIGHTLY_WARM, *WISHES),
    BALANCED: (("evenness", 1.0), _SLIGHTLY_WARM, *WISHES),
    LEAST_LOADED: (("emptiness", 1.0), _SLIGHTLY_WARM, *WISHES),
    BEST_FIT: (("tightness", 1.0), _SLIGHTLY_WARM, *WISHES),
    WORST_FIT: (("looseness", 1.0), _SLIGHTLY_WARM, *WISHES),
    FIRST_FIT: (("alike", 1.0), *WISHES),
    BEST_FIT_DECREASING: (("tightness", 1.0), _SLIGHTLY_WARM, *WISHES),
    WORST_FIT_DECREASING: (("looseness", 1.0), _SLIGHTLY_WARM, *WISHES),
    FIRST_FIT_DECREASING: (("alike", 1.0), *WISHES),
    WARM_IMAGE: (("warm", 1.0), ("fullness", 1.0), *WISHES),
    COST: (("cheapness", 1.0), ("fullness", 1 / 1024), *WISHES),  # of those that cost the same the fuller one
    ROUND_ROBIN: (("apart", 1.0), *WISHES),  # the n-th replica on every node before any gets one more
    FGD: (("wholeness", 1.0), *WISHES),
    EXPECTED_FILL: (("expected-fill", 1.0), *WISHES),
    GPU_BEST_FIT: (("gpu-best-fit", 1.0), *WISHES),
    DOT_PRODUCT: (("dot-product", 1.0), *WISHES),
    GPU_PACKING: (("gpu-packing", 1.0), *WISHES),
    GPU_CLUSTERING: (("gpu-clustering", 1.0), *WISHES),
}
STRATEGIES = tuple(WEIGHTS)
FOR_GPUS = (FGD, EXPECTED_FILL, GPU_BEST_FIT, DOT_PRODUCT, GPU_PACKING, GPU_CLUSTERING)
SCORES = tuple(dict.fromkeys(score for weights in WEIGHTS.values() for score, _ in weights))
SCORES_OF_GPUS = frozenset(WEIGHTS[name][0][0] for name in FOR_GPUS)  # they look at each device
