"""How long something waits before it is tried again: pauses double, and differ between those that wait.

What fails together must not come back together. Cores have no randomness: what a pause differs by is a hash of who
waits, and for which time. So the same input gives the same pause, in whichever process. Pure.
"""

from zlib import crc32


def doubled_ms(first_ms: int, longest_ms: int, tries: int, who: str) -> int:
    """After so many failures in a row: first, twice that, up to the longest; each give or take a quarter."""
    pause_ms = min(first_ms << min(max(tries, 1) - 1, 30), longest_ms)
    return pause_ms + pause_ms * (_thousandths(who, tries) - 500) // 2_000


def stretched_ms(least_ms: int, who: str, tries: int = 1) -> int:
    """That long at least, and up to a quarter more."""
    return least_ms + least_ms * _thousandths(who, tries) // 4_000


def _thousandths(who: str, tries: int) -> int:
    return crc32(f"{who} {tries}".encode()) % 1_001
