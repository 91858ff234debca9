"""Reading a wg-quick or systemd-networkd file with the keys in it, and settling what WireGuard would let pass.

FILE.conf | FILE.netdev + FILE.network + key files -> a buffer, wiped -> wgquick -> Site -> settled: what a gateway
file can say, and what is left in words
"""

import ipaddress
import os
import stat
from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode
from wghsm.wgquick import BadSiteError, Left, Site, parse_networkd, parse_wg_quick
from wghsm.wipe import wipe

__all__ = ["read_site"]

_MOST = 16 << 20


def read_site(path: Path, name: str | None = None) -> Site:
    """The site of a .conf or .netdev file; the caller wipes it. Raises CommandError and OSError."""
    if path.suffix == ".network":
        raise _bad(
            path, f"name the .netdev file, {path.with_suffix('.netdev').name}; the .network beside it is read too"
        )
    try:
        site = _networkd(path) if path.suffix == ".netdev" else _wg_quick(path, name)
        try:
            _settle(site)
        except BaseException:
            site.wipe()
            raise
    except BadSiteError as error:
        raise _bad(path, str(error)) from None
    if name is not None:
        site.name = name
    return site


def _wg_quick(path: Path, name: str | None) -> Site:
    buffer = _bytes(path)
    try:
        return parse_wg_quick(buffer, name or path.stem)
    finally:
        wipe(buffer)


def _networkd(path: Path) -> Site:
    netdev = _bytes(path)
    beside = path.with_suffix(".network")
    network = _bytes(beside) if beside.exists() else None
    try:
        site = parse_networkd(netdev, network)
        if network is None:
            text = f"there is no {beside.name} beside it; write interface: addresses:"
            site.left.append(Left(0, "Address", text))
        if site.private_key_file:
            site.private_key = _key_file(Path(site.private_key_file))
        for peer in site.peers:
            if peer.psk_file:
                peer.psk = _key_file(Path(peer.psk_file))
        return site
    finally:
        wipe(netdev)
        wipe(network)


def _key_file(path: Path) -> bytearray:
    buffer = _bytes(path)
    try:
        value = buffer.strip()
        if len(value) != 44:
            wipe(value)
            raise _bad(path, "no key of 44 characters of base64 (not shown)")
        return value
    finally:
        wipe(buffer)


def _bytes(path: Path) -> bytearray:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST:
            raise _bad(path, "no regular file of up to 16 MiB")
        buffer = bytearray(about.st_size)
        length = 0
        while got := file.readinto(memoryview(buffer)[length:]):
            length += got
        return buffer


def _settle(site: Site) -> None:
    """As WireGuard would: the last of two owners of a prefix has it, the last of two entries of a peer counts."""
    kept = {peer.public_key: peer for peer in site.peers}
    for peer in site.peers:
        if kept[peer.public_key] is not peer:
            text = f"this peer comes again on line {kept[peer.public_key].line}, which is what WireGuard takes"
            site.left.append(Left(peer.line, "[Peer]", text))
            wipe(peer.psk)
    site.peers = list(kept.values())
    owners: dict[str, int] = {}
    for number, peer in enumerate(site.peers):
        try:
            prefixes = dict.fromkeys(str(ipaddress.ip_network(each, strict=False)) for each in peer.allowed_ips)
        except ValueError:
            raise BadSiteError(f"line {peer.line}: AllowedIPs of this peer has what is no prefix") from None
        peer.allowed_ips = list(prefixes)
        for prefix in prefixes:
            before = owners.get(prefix)
            if before is not None:
                site.peers[before].allowed_ips.remove(prefix)
                text = f"{prefix} is also {peer.name}'s, who comes later and has it, as with WireGuard"
                site.left.append(Left(site.peers[before].line, "AllowedIPs", text))
            owners[prefix] = number


def _bad(path: Path, text: str) -> CommandError:
    return CommandError(f"{path}: {text}; nothing was changed", ExitCode.BAD_CONFIG)
