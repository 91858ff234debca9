"""What a file says of a WireGuard interface and its peers, whatever its syntax was."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from wghsm.wipe import wipe

__all__ = ["BadSiteError", "Left", "Site", "SitePeer", "peer_names"]

_PREFIX = re.compile(r"\W*(begin_peer|friendly_name|client|name|peer)(\s*[=:]\s*|\s+)(?=\D)", re.IGNORECASE)
_SETTING = re.compile(r"\W*(publickey|presharedkey|allowedips|endpoint|persistentkeepalive)\s*=", re.IGNORECASE)
_KEYLIKE = re.compile(r"[A-Za-z0-9+/_-]{40,}")


class BadSiteError(Exception):
    """The file cannot be read as what it was taken for; one line, without a value that may be a key."""


@dataclass(frozen=True, slots=True)
class Left:
    """A setting that has no place in a gateway file: its line, its name, and what to do in its stead."""

    line: int
    key: str
    advice: str


@dataclass(slots=True)
class SitePeer:
    """One peer. `psk`: 44 characters of base64 or empty; `psk_file`: where it stands instead."""

    line: int
    name: str = ""
    public_key: str = ""
    psk: bytearray = field(default_factory=bytearray, repr=False)
    psk_file: str = ""
    allowed_ips: list[str] = field(default_factory=list)
    endpoint: str = ""
    keepalive: int = 0


@dataclass(slots=True)
class Site:
    """An interface and its peers. `private_key` as `SitePeer.psk`, and `private_key_file` as `psk_file`.

    `table`: auto, off, or the number of a routing table.
    """

    name: str = ""
    addresses: list[str] = field(default_factory=list)
    listen_port: int = 0
    mtu: int | None = None
    table: str = "auto"
    fwmark: str = ""
    private_key: bytearray = field(default_factory=bytearray, repr=False)
    private_key_file: str = ""
    peers: list[SitePeer] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def wipe(self) -> None:
        """Overwrite every key in clear."""
        for secret in (self.private_key, *(peer.psk for peer in self.peers)):
            wipe(secret)


def peer_names(comments: Iterable[str]) -> list[str]:
    """A name for each peer from the comment beside it, or peer-1, peer-2, ...; no two alike."""
    names: list[str] = []
    for number, comment in enumerate(comments, 1):
        text = re.sub(
            r"^\W*(begin_peer|friendly_name|client|name|peer)(\s*[=:]\s*|\s+)", "", comment.strip(), flags=re.I
        )
        text = "" if _SETTING.match(text) else text
        text = " ".join(re.sub(r"[/\x00-\x1f\x7f]", " ", text.strip("#; \t=-")).split())[:50].strip()
        if not text or not text.isprintable() or _KEYLIKE.search(text):
            text = f"peer-{number}"
        name, again = text, 2
        while name in names:
            name, again = f"{text}-{again}", again + 1
        names.append(name)
    return names
