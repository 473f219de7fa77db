"""Over-commit: pools whose nodes promise more processors or memory than they have, as requests are rarely used up."""

from atoll.model.resources import Vector
from regional.config import CoreSettings


def promised(there: Vector, pool: str, settings: CoreSettings) -> Vector:
    """What a node of the pool may be charged."""
    cpu, memory = settings.overcommit_cpu_percent, settings.overcommit_memory_percent
    return there._replace(
        cpu_milli=there.cpu_milli * cpu.get(pool, 100) // 100,
        memory_mib=there.memory_mib * memory.get(pool, 100) // 100,
    )
