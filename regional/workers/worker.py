"""What a scheduler worker does: it evaluates classes of a round as long as it finds some to take, and waits for the
next, until its region's end of the socket closes.
"""

import socket

from regional.core.mirror import Column, Mirror
from regional.workers import arena, rounds
from regional.workers.deques import Deques


def serve(memory: int, locks: int, end: socket.socket, place: int) -> None:
    """`memory`, `locks`: the files that all share. `place`: of its deque."""
    mirror, arrays = Mirror(), dict[str, Column]()
    end.sendall(rounds.ANSWER.pack(0, rounds.READY))
    while (round_ := rounds.received(end)) is not None:
        if round_.begins:
            mirror = Mirror()
        if round_.layout is not None:
            arrays = arena.mapped(memory, round_.layout)
            mirror.see(arrays)
        mirror.hear(round_.news)
        deques = Deques(locks, arrays["deques"], arrays["claims"])
        jobs = rounds.jobs_of(round_)
        while (number := deques.take(place, round_.number, round_.places)) is not None:
            answers = arena.answers_of(arrays, number, round_.news.size)
            mirror.evaluate(jobs[number], answers, arrays["warm"][number, : round_.news.size])
            end.sendall(rounds.ANSWER.pack(round_.number, number))
        end.sendall(rounds.ANSWER.pack(round_.number, rounds.OVER))
