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

FOR_GPUS = (FGD, EXPECTED_FILL, GPU_BEST_FIT, DOT_PRODUCT, GPU_PACKING, GPU_CLUSTERING)
DECREASING = (BEST_FIT_DECREASING, WORST_FIT_DECREASING, FIRST_FIT_DECREASING)  # of a batch the larger first
FITS = (BEST_FIT, WORST_FIT, FIRST_FIT)
GENERAL = (BIN_PACK, SPREAD, BALANCED, LEAST_LOADED, *FITS, *DECREASING, WARM_IMAGE, COST, ROUND_ROBIN)
STRATEGIES = (*GENERAL, *FOR_GPUS)
SPREADING = (SPREAD, BALANCED, LEAST_LOADED, WORST_FIT, ROUND_ROBIN)  # they leave no node much fuller than others
DEFAULT = BIN_PACK
