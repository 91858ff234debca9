"""The key ceremony: what is done in which order, what is written down of it, and how that reads on paper. Pure.

    Order -> plan -> steps, one after the other -> Journal (what is done, without a secret)
    Journal -> Transcript -> JSON | text | a page that prints
    Transcript + the tokens of today -> compare -> what differs

Called by `wghsm ceremony`, which talks to people and tokens (docs/ceremony.md).
"""

from wghsm.ceremony.compare import Difference, compare
from wghsm.ceremony.page import render_page
from wghsm.ceremony.pins import complaint, join_halves
from wghsm.ceremony.record import (
    Done,
    Finding,
    Journal,
    ObjectSeen,
    Order,
    Participant,
    Software,
    TokenSeen,
    Transcript,
    encode,
    fingerprint,
    journal_of,
    transcript_of,
)
from wghsm.ceremony.steps import Step, plan
from wghsm.ceremony.text import render_text

__all__ = [
    "Difference",
    "Done",
    "Finding",
    "Journal",
    "ObjectSeen",
    "Order",
    "Participant",
    "Software",
    "Step",
    "TokenSeen",
    "Transcript",
    "compare",
    "complaint",
    "encode",
    "fingerprint",
    "join_halves",
    "journal_of",
    "plan",
    "render_page",
    "render_text",
    "transcript_of",
]
