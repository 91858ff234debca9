"""wg-quick(8)'s file: [Interface] and a [Peer] for each peer.

A comment right above a [Peer], or the first one in it, names the peer, as people and other tools write it.
"""

from wghsm.wgquick._lines import Line, lines, number, words
from wghsm.wgquick._site import BadSiteError, Left, Site, SitePeer, peer_names

__all__ = ["TABLES", "parse_wg_quick"]

TABLES = {"main": "254", "default": "253", "local": "255"}

_HOOKS = (
    "wg-quick runs it in a shell, and wghsm has none; write what is still needed as programs with their arguments "
    "under hooks:, and masquerading as masquerade: under firewall: (docs/routing.md, docs/firewall.md)"
)
_ADVICE = {
    "preup": _HOOKS,
    "postup": _HOOKS,
    "predown": _HOOKS,
    "postdown": _HOOKS,
    "dns": "the gateway leaves the machine's own resolver alone; what clients are told is dns: under clients:",
    "saveconfig": "what is set at run time with wg set lasts until the next reload; write it into the gateway file",
}


def parse_wg_quick(buffer: bytearray, name: str) -> Site:
    """The site in a wg-quick file for the interface `name`. Raises BadSiteError."""
    site = Site(name=name)
    try:
        _read(site, buffer)
    except BaseException:
        site.wipe()
        raise
    return site


def _read(site: Site, buffer: bytearray) -> None:
    comments: list[str] = []
    above = (0, "")
    begun = False
    for line in lines(buffer, inline_comments=True):
        if line.begins:
            begun = True
            if line.section == "peer":
                site.peers.append(SitePeer(line.number))
                comments.append(line.comment or (above[1] if above[0] == line.number - 1 else ""))
            elif line.section != "interface":
                raise BadSiteError(f"line {line.number}: a section that wg-quick does not have")
        elif not line.key:
            # In a [Peer] above its key, or above the next one.
            if line.section == "peer" and not comments[-1] and not site.peers[-1].public_key:
                comments[-1] = line.comment
            else:
                above = (line.number, line.comment)
        elif not begun:
            raise BadSiteError(f"line {line.number}: a setting outside of [Interface] and [Peer]")
        elif line.section == "interface":
            _interface(site, line)
        else:
            _peer(site, line)
    if not begun:
        raise BadSiteError("there is no [Interface] in it; is this a wg-quick file?")
    _finish(site, comments)


def _interface(site: Site, line: Line) -> None:
    match line.key:
        case "privatekey":
            site.private_key = line.secret
        case "listenport":
            site.listen_port = number(line, 65535)
        case "address":
            site.addresses += words(line.value)
        case "mtu":
            site.mtu = number(line, 65535)
        case "fwmark":
            site.fwmark = line.value
        case "table":
            table = TABLES.get(line.value, line.value)
            if table in ("auto", "off") or table.isdigit():
                site.table = table
            else:
                site.left.append(
                    Left(
                        line.number, line.shown_key, "write the table's number under interface: table:; auto is set now"
                    )
                )
        case _:
            advice = _ADVICE.get(line.key, "wghsm has nothing of this name")
            site.left.append(Left(line.number, line.shown_key, advice))


def _peer(site: Site, line: Line) -> None:
    peer = site.peers[-1]
    match line.key:
        case "publickey":
            peer.public_key = line.value
        case "presharedkey":
            peer.psk = line.secret
        case "allowedips":
            peer.allowed_ips += words(line.value)
        case "endpoint":
            peer.endpoint = line.value
        case "persistentkeepalive":
            peer.keepalive = number(line, 65535)
        case _:
            site.left.append(Left(line.number, line.shown_key, _ADVICE.get(line.key, "wghsm has nothing of this name")))


def _finish(site: Site, comments: list[str]) -> None:
    for peer, name in zip(site.peers, peer_names(comments), strict=True):
        if not peer.public_key:
            raise BadSiteError(f"line {peer.line}: a [Peer] without PublicKey")
        peer.name = name
