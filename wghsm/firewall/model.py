"""What a gateway wants of the kernel's packet filter. Pure data; the supervisor makes it of file and running model."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wghsm.config import Allow

__all__ = ["PeerRules", "Prefix", "Rules"]

Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class PeerRules:
    """The limits of one peer, known by the source and destination addresses that cryptokey routing gives it.

    `key`: a word that is its own, letters and digits. `allow` None: anywhere; empty: nowhere. `rate`: bytes a second,
    each way; `quota`: bytes, both ways together; 0 for none.
    """

    key: str
    prefixes: tuple[Prefix, ...]
    allow: tuple[Allow, ...] | None = None
    rate: int = 0
    quota: int = 0

    @property
    def limited(self) -> bool:
        """Whether there is anything to hold the peer to."""
        return bool(self.allow is not None or self.rate or self.quota)


@dataclass(frozen=True, slots=True)
class Rules:
    """A gateway's wishes. `masquerade`: interfaces by which all its peers go out with their address; `*`: all others.

    `peers`: those with limits, and those whose prefixes lie inside the ones of a limited peer or are masqueraded.
    `mark`: given to outer packets that come in for the UDP `ports`, 0 for none: checks of source addresses then ask for
    the way that the outer packets take, where a default route leads into the tunnel.
    """

    interface: str
    masquerade: tuple[str, ...] = ()
    isolate_clients: bool = False
    peers: tuple[PeerRules, ...] = ()
    mark: int = 0
    ports: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether no table is needed."""
        limited = any(peer.limited for peer in self.peers)
        return not (self.masquerade or self.isolate_clients or limited or self.mark)
