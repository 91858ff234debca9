"""Which of the gateway's own keys is used with which peer, while two are served and the peers move one by one.

    confirm   the peer has proven to use one: an initiation made for it, or a response to one made with it
    choose    for an own initiation: the key that the peer last confirmed, the current one where none is known;
              after three initiations that were not answered the other, and after three more the first again

One `Identities` for a custodian, called on the main thread. Pure. What it must not forget are own public keys
(32 bytes) by the peer's; `state` keeps them. Source: SEAMS.md "Two identities".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Identities", "choose"]

_TRIES: Final = 3


class Identities:
    """What each peer ever known has last confirmed."""

    def __init__(self, confirmed: Mapping[bytes, bytes]) -> None:
        self._confirmed = dict(confirmed)

    def of(self, peer_public: bytes) -> bytes | None:
        """The own key that the peer last confirmed; it may be one that is not served any more."""
        return self._confirmed.get(peer_public)

    def confirm(self, peer_public: bytes, identity: bytes) -> bool:
        """The peer has made a handshake with `identity`; whether that is news, to be remembered."""
        if self._confirmed.get(peer_public) == identity:
            return False
        self._confirmed[peer_public] = identity
        return True


def choose(served: Sequence[bytes], confirmed: bytes | None, attempt: int) -> bytes:
    """The own key, one of `served` (the current one first), for the initiation after `attempt` unanswered ones."""
    first = served.index(confirmed) if confirmed in served else 0
    return served[(first + attempt // _TRIES) % len(served)]
