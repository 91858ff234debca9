"""`wghsm status` and `wghsm rekey`: looking at a running gateway, and asking it for fresh sessions.

Both ask the gateway's control process over the admin socket.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.cli import _completing
from wghsm.exits import ExitCode
from wghsm.ipc.admin import AdminRequest, Status

from ._admin import ask, status_of, statuses
from ._output import CommandError, json_option, print_json
from ._table import counted
from .shapes.gateways import GatewayStatus, Rekeyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wghsm.ipc.admin import AuditState, PeerStatus

__all__ = ["rekey", "status"]

_NOT_OPEN = "not known yet: the token is not open"
_MTU_FROM = {
    "file": "by the file",
    "path": "by the way to the endpoints",
    "runtime": "changed at run time",
}


@click.command(
    epilog="Examples: `wghsm status`, `wghsm status wg0 --json | jq .[0].peers`. Exit codes: 6: no gateway is "
    "running; 1: one of them does not answer, the others are shown."
)
@click.argument("name", required=False, shell_complete=_completing.gateways)
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show the gateway NAME, or all running gateways: token, processes, peers, drops.

    Peers of the file that are disabled or have expired come last; in JSON they are `inactive`, apart from `peers`.
    """
    answers = list(statuses()) if name is None else [status_of(name)]
    found = [each for each in answers if isinstance(each, Status)]
    faults = [each for each in answers if isinstance(each, CommandError)]
    if found and as_json:
        print_json([_shape(each) for each in found])
    elif found:
        click.echo("\n\n".join("\n".join(_describe(each, time.time())) for each in found))
    if faults:
        raise CommandError("; ".join(map(str, faults)), faults[0].exit_code)
    if not found:
        raise CommandError("no gateway is running; start one with: wghsm up FILE", ExitCode.NOT_RUNNING)


@click.command(epilog="Examples: `wghsm rekey wg0`, `wghsm rekey wg0 alice`.")
@click.argument("name", shell_complete=_completing.gateways)
@click.argument("peer", required=False, shell_complete=_completing.peers)
@json_option
def rekey(name: str, peer: str | None, as_json: bool) -> None:
    """Start a fresh handshake with PEER (a name or public key) of the gateway NAME, or with all its peers.

    A peer without a known endpoint, or with a handshake less than five seconds ago, is left as it is.
    """
    keys: list[str] | None = None
    if peer is not None:
        peers = status_of(name).peers
        keys = [each.public_key for each in peers if peer in (each.name, each.public_key)]
        if not keys:
            known = ", ".join(each.name or each.public_key for each in peers[:20]) or "none"
            raise CommandError(f"gateway {name!r} has no peer {peer!r}; its peers: {known}")
    reply = ask(name, AdminRequest(verb="rekey", peers=keys))
    if as_json:
        print_json(Rekeyed(gateway=name, peers=keys, result=reply.text))
    else:
        click.echo(reply.text or "asked")


def _shape(gateway: Status) -> GatewayStatus:
    still = [_name(peer) for peer in gateway.still_on_previous]
    return GatewayStatus(**msgspec.structs.asdict(gateway), still_on_previous_key=still)


def _describe(gateway: Status, now: float) -> Iterator[str]:
    yield f"{click.style('gateway', fg='green', bold=True)}: {click.style(gateway.name, fg='green')}"
    yield f"  {_bold('file')}: {gateway.file}, read {_span(now - gateway.loaded)} ago"
    if gateway.reload_refused:
        yield f"  {_bold('last reload')}: {click.style('refused', fg='red', bold=True)}: {gateway.reload_refused}"
    yield f"  {_bold('public key')}: {gateway.public_key or _NOT_OPEN}{_label(gateway.key_label)}"
    if gateway.previous_key_label is not None:
        yield f"  {_bold('previous key')}: {gateway.previous_key or _NOT_OPEN}{_label(gateway.previous_key_label)}"
    if gateway.previous_key is not None:
        yield f"  {_bold('key rotation')}: {_moving(gateway)}"
    yield f"  {_bold('listening port')}: {gateway.listen_port}"
    if gateway.fwmark:
        yield f"  {_bold('fwmark')}: {gateway.fwmark:#x}"
    yield f"  {_bold('link')}: {'up' if gateway.up else 'down'}, for {_span(now - gateway.started)}"
    yield f"  {_bold('mtu')}: {gateway.mtu} ({_MTU_FROM[gateway.mtu_from]})"
    yield f"  {_bold('token')}: {_token(gateway, now)}"
    if gateway.audit is not None:
        yield f"  {_bold('audit log')}: {_audit(gateway.audit, now)}"
    for process in gateway.processes:
        restarts = f", restarted {counted(process.restarts, 'time')}" if process.restarts else ""
        since = _span(now - process.since)
        engine = f", {process.engine}" if process.engine else ""
        yield f"  {_bold(process.role)}: {process.state}{engine}, pid {process.pid}, for {since}{restarts}"
    for role, counters in gateway.counters.items():
        yield f"  {_bold(role + ' counted')}: " + ", ".join(f"{count} {reason}" for reason, count in counters.items())
    for peer in gateway.peers:
        yield ""
        yield from _describe_peer(peer, now)
        if gateway.previous_key is not None:
            yield f"  {_bold('gateway key')}: {_used_key(gateway, peer)}"
    for each in gateway.inactive:
        yield ""
        state = click.style(each.state, fg="red", bold=True)
        yield f"{click.style('peer', fg='yellow', bold=True)}: {click.style(each.name, fg='yellow')}, {state}"
        yield f"  {_bold('public key')}: {each.public_key}"
        if each.expires is not None:
            yield f"  {_bold('expires')}: {_moment(each.expires)}"


def _label(label: str) -> str:
    return f" ({label})" if label else ""


def _moving(gateway: Status) -> str:
    """Who is still to move to the new key, by name."""
    still = [_name(peer) for peer in gateway.still_on_previous]
    unseen = [_name(peer) for peer in gateway.peers if peer.gateway_key is None]
    said = f"{len(still)} of {len(gateway.peers)} peers still use {gateway.previous_key_label}"
    said += f": {', '.join(still)}" if still else ""
    return said + (f"; {len(unseen)} not seen yet: {', '.join(unseen)}" if unseen else "")


def _used_key(gateway: Status, peer: PeerStatus) -> str:
    if peer.gateway_key is None:
        return "not seen yet"
    if peer.gateway_key == gateway.previous_key:
        return f"the peer still uses {gateway.previous_key_label}"
    return f"the peer uses {gateway.key_label}"


def _name(peer: PeerStatus) -> str:
    return peer.name or peer.public_key


def _token(gateway: Status, now: float) -> str:
    token = gateway.token
    if token is None:
        return "not open yet"
    detail = f" ({token.detail})" if token.detail else ""
    uses = f"{token.accepted} handshakes done, {token.created} begun, {token.refused} refused"
    name = f"{token.token}, " if token.token else ""
    if token.state == "ready":
        return f"{name}ready for {_span(now - token.since)}{detail}; {uses}"
    away = click.style(f"{token.state} since {_moment(token.since)}", fg="red", bold=True)
    return f"{name}{away}, for {_span(now - token.since)}{detail}; {uses}"


def _audit(audit: AuditState, now: float) -> str:
    state = audit.state
    if state != "ok":
        state = click.style(f"{state} for {_span(now - audit.since)}: {audit.detail}", fg="red", bold=True)
    sealed = "not sealed yet" if audit.sealed is None else f"sealed {_span(now - audit.sealed)} ago"
    if audit.seal_detail:
        sealed = f"not sealed: {audit.seal_detail}"
    said = [state, f"{audit.records} records, {audit.unsealed} since the last seal", sealed, audit.directory]
    if audit.unwritten:
        said.append(click.style(f"{audit.unwritten} events were not written", fg="red"))
    return "; ".join(said + [f"{name}: {text}" for name, text in audit.sinks.items()])


def _describe_peer(peer: PeerStatus, now: float) -> Iterator[str]:
    yield f"{click.style('peer', fg='yellow', bold=True)}: {click.style(_name(peer), fg='yellow')}"
    if peer.name:
        yield f"  {_bold('public key')}: {peer.public_key}"
    yield f"  {_bold('preshared key')}: {peer.preshared_key}{_psk_epoch(peer)}"
    yield f"  {_bold('endpoint')}: {peer.endpoint or 'not known yet'}"
    yield f"  {_bold('allowed ips')}: {', '.join(peer.allowed_ips) or '(none)'}"
    if peer.latest_handshake is None:
        yield f"  {_bold('latest handshake')}: never"
    else:
        yield f"  {_bold('latest handshake')}: {_span(now - peer.latest_handshake)} ago"
    yield f"  {_bold('transfer')}: {_bytes(peer.rx_bytes)} received, {_bytes(peer.tx_bytes)} sent"
    if peer.persistent_keepalive:
        yield f"  {_bold('persistent keepalive')}: every {peer.persistent_keepalive} seconds"


def _psk_epoch(peer: PeerStatus) -> str:
    """Whether the peer has moved to the file's pre-shared key."""
    confirmed = peer.psk_confirmed
    wanted = peer.psk_epoch or 0
    if peer.preshared_key == "none":
        return ""
    shown = "" if peer.psk_epoch is None else f", epoch {peer.psk_epoch}"
    if confirmed is None:
        return f"{shown}; not used by the peer yet"
    if confirmed == wanted:
        return f"{shown}; the peer {'has moved' if wanted else 'uses it'}" if shown else ""
    return f"{shown}; the peer still {f'uses epoch {confirmed}' if confirmed >= 0 else 'has none'}"


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _span(seconds: float) -> str:
    left = max(0, int(seconds))
    parts = []
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if left >= length:
            count, left = divmod(left, length)
            parts.append(f"{count} {unit}{'s' if count != 1 else ''}")
    parts.append(f"{left} second{'s' if left != 1 else ''}")
    return ", ".join(parts[:2])


def _moment(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix))


def _bytes(number: int) -> str:
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{number} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"
