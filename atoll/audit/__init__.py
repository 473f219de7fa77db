"""The auditor: replays a store's history and checks the invariants at every revision.

Shares no decision with the programs it audits: it imports the store, the documents and the values, never a core.
Keeps only what the next revision's check needs, and spends time only on what a revision changed.
"""

from atoll.audit.auditor import Auditor
from atoll.audit.findings import CHECKED, NOT_YET, Verdict, Violation
from atoll.audit.replay import verify

__all__ = ["CHECKED", "NOT_YET", "Auditor", "Verdict", "Violation", "verify"]
