"""Which pre-shared keys may be tried with a peer, and which one it has proven to have.

    told       the file's PSK of a peer; a new epoch begins its overlap now
    choices    what may be tried, the newest first: the file's PSK, and while the peer has not proven that one and the
               overlap lasts, the one before it (or none, where the file says migrate_from_none)
    offer      as responder, where message 1 does not show the PSK: the first choice, and at the peer's next attempt
               the one after it, until data has confirmed a session
    confirm    the peer has proven a PSK: an older one is refused from then on, whatever the file says

One `Epochs` for a custodian, called by `core` on the main thread. Pure: times are arguments. What it must not forget
are `Record` values, by public key and kind; `state` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Epochs", "Offer", "Record", "epoch_of", "kind_of", "next_offer", "shown"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a peer's PSKs of one kind: the epoch it has proven, the file's, and since when (Unix ns)."""

    confirmed: int | None
    newest: int
    since: int


@dataclass(slots=True)
class Offer:
    """The PSK of the last message 2 that was made for a peer, at CLOCK_BOOTTIME ns `at`."""

    session: int
    source: m.PskSource
    at: int
    confirmed: bool = False


def kind_of(source: m.PskSource) -> str | None:
    """The name that a record of the source goes by; None for no PSK."""
    match source:
        case m.PskDerived():
            return "derived"
        case m.PskWrapped():
            return "wrapped"
        case m.PskObject():
            return "object"
        case _:
            return None


def epoch_of(source: m.PskSource) -> int:
    """The source's epoch; 0 for an object, which has no other."""
    return source.epoch if isinstance(source, m.PskDerived | m.PskWrapped) else 0


def shown(source: m.PskSource) -> int:
    """The source as the statistics table shows it: 1 for none, else its epoch + 2; 0 is left for "not known"."""
    return 1 if kind_of(source) is None else epoch_of(source) + 2


class Epochs:
    """The records of all peers ever known, and the rules over them. `overlap` is in nanoseconds."""

    def __init__(self, records: Mapping[tuple[bytes, str], Record], overlap: int) -> None:
        self._records = dict(records)
        self._overlap = overlap

    def record(self, public_key: bytes, source: m.PskSource) -> Record | None:
        """What is known of the peer (32 bytes) and PSKs of the source's kind."""
        kind = kind_of(source)
        return None if kind is None else self._records.get((public_key, kind))

    def told(self, public_key: bytes, source: m.PskSource, unix_ns: int) -> Record | None:
        """Take the file's PSK in; returns the record where it has changed, to be remembered."""
        kind = kind_of(source)
        if kind is None or self.is_outdated(public_key, source):
            return None
        record, epoch = self._records.get((public_key, kind)), epoch_of(source)
        if record is not None and record.newest == epoch:
            return None
        record = Record(None if record is None else record.confirmed, epoch, unix_ns)
        self._records[public_key, kind] = record
        return record

    def is_outdated(self, public_key: bytes, source: m.PskSource) -> bool:
        """Whether the peer has proven a later epoch than the file's."""
        record = self.record(public_key, source)
        return record is not None and record.confirmed is not None and epoch_of(source) < record.confirmed

    def choices(
        self, public_key: bytes, source: m.PskSource, unix_ns: int, *, migrate: bool = False
    ) -> tuple[m.PskSource, ...]:
        """What may be tried with the peer at the wall clock's `unix_ns`, the newest first; empty: nothing.

        `migrate`: a peer that has not proven any PSK of this kind may still be without one.
        """
        if kind_of(source) is None:
            return (source,)
        if self.is_outdated(public_key, source):
            return ()
        record, epoch = self.record(public_key, source), epoch_of(source)
        confirmed = None if record is None else record.confirmed
        if confirmed == epoch or (record is not None and unix_ns - record.since >= self._overlap):
            return (source,)
        found = [source]
        if (previous := _before(source, confirmed)) is not None:
            found.append(previous)
        if migrate and confirmed is None:
            found.append(m.PskNone())
        return tuple(found)

    def confirm(self, public_key: bytes, source: m.PskSource) -> Record | None:
        """The peer has proven `source`; returns the record where it has changed, to be remembered."""
        kind, epoch = kind_of(source), epoch_of(source)
        if kind is None:
            return None
        record = self._records.get((public_key, kind), Record(None, epoch, 0))
        if record.confirmed is not None and record.confirmed >= epoch:
            return None
        record = self._records[public_key, kind] = replace(record, confirmed=epoch)
        return record


def _before(source: m.PskSource, confirmed: int | None) -> m.PskSource | None:
    """The PSK before `source`: the one that the peer has proven, as far as that is known."""
    match source:
        case m.PskDerived(epoch) if epoch > 0:
            return m.PskDerived(epoch - 1 if confirmed is None else confirmed)
        case m.PskWrapped() if source.previous and source.previous_epoch >= (confirmed or 0):
            return m.PskWrapped(source.previous_epoch, source.previous)
        case _:
            return None


def next_offer(choices: Sequence[m.PskSource], last: Offer | None, now: int, patience: int) -> m.PskSource:
    """The PSK for the next message 2 to a peer: the one after the last offer if that came to nothing.

    An offer that is `patience` nanoseconds old or more belongs to an attempt that the peer has long given up.
    """
    if last is None or last.confirmed or now - last.at >= patience or last.source not in choices:
        return choices[0]
    return choices[(choices.index(last.source) + 1) % len(choices)]
