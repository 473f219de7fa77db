"""The core while it does not lead: it sends everybody away, and reads the records of a reign that is about to begin."""

from atoll.lane import Authority
from regional.config import CoreSettings
from regional.core import authority
from regional.core.events import Event, LeadershipLost, LeadershipWon, RecordsRead
from regional.core.state import State, Turn
from regional.core.takeover import Takeover


class Standby:
    def __init__(self, region: str, settings: CoreSettings) -> None:
        self._region = region
        self._settings = settings
        self._takeover: Takeover | None = None

    def handle(self, event: Event, turn: Turn) -> State | None:
        """The state to lead with, once all its records have been read."""
        match event:
            case RecordsRead():
                self._of(event.authority, turn).read(event.records, turn)
            case LeadershipWon():
                takeover, self._takeover = self._of(event.authority, turn), None
                takeover.read(event.records, turn)
                return takeover.complete(event.revision, turn)
            case LeadershipLost():
                self._takeover = None
            case _:
                authority.refuse(event, turn)
        return None

    def _of(self, won: Authority, turn: Turn) -> Takeover:
        """The takeover of this reign."""
        if self._takeover is None or self._takeover.state.authority != won:
            self._takeover = Takeover(State(self._region, self._settings, won, turn.now_ms))
        return self._takeover
