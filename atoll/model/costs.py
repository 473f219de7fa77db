"""What an hour of a node, or of a region beside others, costs: the label that says so, and how it is read.

One currency for a cluster; which one nobody asks. Said by a node's agent, its join token or an operator, as any label.
"""

import re

COST_LABEL = "atoll/cost"
_AMOUNT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def cost_per_hour(text: str) -> float | None:
    """None: it is not said, or not understood."""
    return float(text) if _AMOUNT.fullmatch(text) else None


def mistake_in_cost(key: str, value: str) -> str | None:
    """Of a label: what is wrong with it as a cost, if it is one."""
    if key != COST_LABEL or cost_per_hour(value) is not None:
        return None
    return f"{value[:40]!r} is no cost: a decimal number of up to 9 digits, per hour, like 0.35"
