"""systemd-networkd's files: a .netdev of Kind=wireguard, and the .network that gives it addresses and routes."""

import ipaddress

from wghsm.wgquick._lines import Line, lines, number, words
from wghsm.wgquick._site import BadSiteError, Left, Site, SitePeer, peer_names
from wghsm.wgquick._wg_quick import TABLES

__all__ = ["parse_networkd"]

_NO_PLACE = "systemd-networkd's alone; wghsm sets address, MTU and routes itself"


def parse_networkd(netdev: bytearray, network: bytearray | None = None) -> Site:
    """The site in a .netdev, with what its .network says. Raises BadSiteError.

    networkd routes allowed IPs only where RouteTable= says so, or a [Route]; without either the site's table is off.
    """
    site = Site(table="off")
    try:
        _read(site, netdev)
        if network is not None:
            _network(site, network)
    except BaseException:
        site.wipe()
        raise
    return site


def _read(site: Site, netdev: bytearray) -> None:
    comments: list[str] = []
    above = (0, "")
    for line in lines(netdev, inline_comments=False):
        if line.begins:
            if line.section == "wireguardpeer":
                site.peers.append(SitePeer(line.number))
                comments.append(above[1] if above[0] == line.number - 1 else "")
        elif not line.key:
            if line.section == "wireguardpeer" and not comments[-1] and not site.peers[-1].public_key:
                comments[-1] = line.comment
            else:
                above = (line.number, line.comment)
        else:
            _netdev(site, line)
    if not site.name:
        raise BadSiteError("there is no Name= in [NetDev]; is this a .netdev file?")
    for peer, name in zip(site.peers, peer_names(comments), strict=True):
        if not peer.public_key:
            raise BadSiteError(f"line {peer.line}: a [WireGuardPeer] without PublicKey")
        peer.name = name


def _netdev(site: Site, line: Line) -> None:
    match line.section, line.key:
        case "netdev", "name":
            site.name = line.value
        case "netdev", "kind":
            if line.value != "wireguard":
                raise BadSiteError(f"line {line.number}: Kind is not wireguard")
        case "netdev", "mtubytes":
            site.mtu = number(line, 65535)
        case "netdev", "description":
            pass
        case "wireguard", "privatekey":
            if line.buffer[line.start : line.start + 1] == b"@":
                raise BadSiteError(f"line {line.number}: PrivateKey is a credential; import it with wghsm key import")
            site.private_key = line.secret
        case "wireguard", "privatekeyfile":
            site.private_key_file = line.value
        case "wireguard", "listenport":
            site.listen_port = 0 if line.value == "auto" else number(line, 65535)
        case "wireguard", ("firewallmark" | "fwmark"):
            site.fwmark = line.value
        case "wireguard", "routetable":
            site.table = _table(line)
        case "wireguardpeer", key:
            _peer(site.peers[-1], site, line, key)
        case _:
            site.left.append(Left(line.number, line.shown_key, _NO_PLACE))


def _peer(peer: SitePeer, site: Site, line: Line, key: str) -> None:
    match key:
        case "publickey":
            peer.public_key = line.value
        case "presharedkey":
            peer.psk = line.secret
        case "presharedkeyfile":
            peer.psk_file = line.value
        case "allowedips":
            peer.allowed_ips += words(line.value)
        case "endpoint":
            peer.endpoint = line.value
        case "persistentkeepalive":
            peer.keepalive = number(line, 65535)
        case "routetable":
            site.left.append(Left(line.number, line.shown_key, "one table for all peers: interface: table:"))
        case _:
            site.left.append(Left(line.number, line.shown_key, _NO_PLACE))


def _network(site: Site, buffer: bytearray) -> None:
    allowed = {ipaddress.ip_network(each, strict=False) for peer in site.peers for each in peer.allowed_ips}
    for line in lines(buffer, inline_comments=False):
        match line.section, line.key:
            case _, "":
                pass
            case "match", "name":
                if line.value != site.name:
                    raise BadSiteError(f"line {line.number}: the .network is for {line.value}, not for {site.name}")
            case (("network" | "address"), "address"):
                site.addresses += words(line.value)
            case "link", "mtubytes":
                site.mtu = number(line, 65535)
            case "route", "destination":
                try:
                    known = ipaddress.ip_network(line.value, strict=False) in allowed
                except ValueError:
                    known = False
                if known:
                    site.table = "auto" if site.table == "off" else site.table
                else:
                    site.left.append(
                        Left(
                            line.number, line.shown_key, "no peer has exactly this prefix; add it to one's allowed_ips"
                        )
                    )
            case "network", "dns":
                advice = "the gateway leaves the machine's own resolver alone; dns: under clients: is for clients"
                site.left.append(Left(line.number, line.shown_key, advice))
            case _:
                site.left.append(Left(line.number, line.shown_key, f"of the .network: {_NO_PLACE}"))


def _table(line: Line) -> str:
    table = TABLES.get(line.value, line.value)
    if table in ("off", "false", "no", "0"):
        return "off"
    if table == "254":
        return "auto"
    if not table.isdigit():
        raise BadSiteError(f"line {line.number}: RouteTable is the name of a table; write its number")
    return table
