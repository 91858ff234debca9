"""`wghsm token doctor`: everything that a gateway needs of its tokens, tried on the tokens themselves.

URIs of --token or the gateway file -> PIN of each -> examined one after the other, each in a process of its
own that is the store's owner -> compared with each other -> the worst of all as the exit status
"""

import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import msgspec

from wghsm.cli import _completing
from wghsm.cli._gateway_files import known_gateways, only_gateway
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import owner_to_become
from wghsm.cli._table import show_beside
from wghsm.cli.shapes.tokens import DoctorFinding, DoctorReport, DoctorToken
from wghsm.config import ConfigError, Gateway, PskObject, PskWrapped, load, read_wrapped
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, TokenUri, open_pin
from wghsm.pkcs11_backend.doctor import (
    Finding,
    Level,
    Order,
    SealedPsk,
    TokenReport,
    compare,
    examine,
    exit_code,
    failed,
    verdict,
)
from wghsm.wipe import wipe

__all__ = ["doctor"]

_COLOURS = {Level.GREEN: "green", Level.YELLOW: "yellow", Level.RED: "red"}
_SESSIONS = 4


@dataclass(frozen=True)
class _Wanted:
    """What the command line and the gateway file ask for."""

    key: str | None
    psk_root: str | None
    wrap_key: str | None
    sessions: int
    at_final_try: bool
    write: bool
    patience: float
    gateway: Gateway | None


@click.command()
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="URI",
    shell_complete=_completing.tokens,
    help="pkcs11: URI of a token; repeat it for its twins.",
)
@click.option(
    "-c",
    "--config",
    metavar="GATEWAY.yaml",
    type=click.Path(),
    help="Gateway file that names the tokens (default: the only one in /etc/wghsm).",
)
@click.option(
    "--key",
    metavar="LABEL",
    shell_complete=_completing.keys,
    help="The gateway's key (default: the file's or the URI's, or the only one).",
)
@click.option("--psk-root", metavar="LABEL", help="The root of derived PSKs (default: the file's).")
@click.option("--wrap-key", metavar="LABEL", help="The key of wrapped PSKs (default: the file's).")
@click.option(
    "--sessions",
    metavar="NUMBER",
    type=click.IntRange(1, 64),
    help="Worker sessions to try (default: the file's, or 4).",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(1),
    default=60.0,
    help="Seconds that the module has for a check (default: 60).",
)
@click.option("--write", is_flag=True, help="Log in read-write; put a PSK object into the token, and destroy it.")
@click.option("--yes", is_flag=True, help="Log in although one more wrong PIN locks the token.")
@json_option
def doctor(
    tokens: Sequence[str],
    config: str | None,
    key: str | None,
    psk_root: str | None,
    wrap_key: str | None,
    sessions: int | None,
    timeout: float,
    write: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Try everything that a gateway needs of its token; nothing is written (but with --write), the PIN is sent once.

    Each line is green, yellow (a gateway serves with it) or red. Exit status: 0 without a red line, 3 where the PIN
    is the trouble, 4 where the token is, 2 where the file or the way to the PIN is. Several tokens are compared: keys
    and PSK root must be the same.

    \b
    Examples:
      wghsm token doctor -c /etc/wghsm/wg0.yaml
      wghsm token doctor --token 'pkcs11:token=gw?module-path=/usr/lib/x.so&pin-source=prompt' --key gateway
    """
    if not tokens and config is None and (only := only_gateway()) is not None:
        config = str(only)
    if bool(tokens) == (config is not None):
        there = ", not both" if tokens else f"; {known_gateways()}"
        raise CommandError(
            f"name the tokens: either --token URI (once or more) or -c GATEWAY.yaml{there}", ExitCode.BAD_CONFIG
        )
    gateway = None if config is None else load(config)
    uris = [TokenUri.parse(uri) for uri in (tokens if gateway is None else gateway.token.in_order)]
    wanted = _Wanted(
        key=key or (gateway.interface.key if gateway else None),
        psk_root=psk_root or (gateway.token.psk_root if gateway else None),
        wrap_key=wrap_key or (gateway.token.psk_wrap_key if gateway else None),
        sessions=sessions or (gateway.token.sessions if gateway else _SESSIONS),
        at_final_try=yes,
        write=write,
        patience=timeout,
        gateway=gateway,
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reports: list[TokenReport] = []
    for place, uri in enumerate(uris, 1):
        if not as_json:
            click.echo(f"{_bold(f'token {place} of {len(uris)}')}: {uri}" if len(uris) > 1 else _bold(str(uri)))
        sample = next((report.facts["wrap_sample"] for report in reports if "wrap_sample" in report.facts), None)
        reports.append(_examine(uri, wanted, sample, quiet=as_json))
    twins = compare(reports)
    if not as_json and twins:
        click.echo(_bold("all tokens"))
    for finding in () if as_json else twins:
        show_finding(finding)
    every = [finding for report in reports for finding in report.findings] + twins
    code = exit_code(every)
    if as_json:
        print_json(
            DoctorReport(
                verdict=verdict(every).value,
                exit_code=int(code),
                tokens=[msgspec.convert(report.as_json(), DoctorToken) for report in reports],
                twins=[msgspec.convert(finding.as_json(), DoctorFinding) for finding in twins],
            )
        )
    else:
        _sum_up(every)
    return int(code)


def _examine(uri: TokenUri, wanted: _Wanted, wrap_sample: str | None, *, quiet: bool) -> TokenReport:
    def show(finding: Finding) -> None:
        if not quiet:
            show_finding(finding)

    order = Order(
        uri=uri,
        key=wanted.key or uri.object,
        psk_root=wanted.psk_root,
        wrap_key=wanted.wrap_key,
        sessions=wanted.sessions,
        strict=wanted.gateway is not None,
        kinds=_kinds(wanted.gateway),
        objects=_objects(wanted.gateway),
        sealed=tuple(_sealed(wanted.gateway)),
        at_final_try=wanted.at_final_try,
        write=wanted.write,
        wrap_sample=None if wrap_sample is None else bytes.fromhex(wrap_sample),
        previous_key=None if wanted.gateway is None else wanted.gateway.interface.previous_key,
        audit_key=None if wanted.gateway is None else wanted.gateway.audit.key,
    )
    owner = owner_to_become(uri)
    pin: bytearray | None = None
    try:
        with open_pin(uri.pin_source) as source:
            if source.pinpad and uri.pin_source is not None:
                click.echo(f"type the PIN of {uri.describe_token()} at its pinpad when it asks", err=True)
            pin = source.read_for_login(f"PIN of {uri.describe_token()}: ")
    except TokenError as error:
        report = TokenReport(str(uri), [failed("pin", error, "mend what pin-source names, or correct it")])
        show(report.findings[0])
        return report
    try:
        return examine(order, pin, owner, show, wanted.patience)
    finally:
        wipe(pin)


def _kinds(gateway: Gateway | None) -> frozenset[str]:
    """The PSK kinds that the gateway's peers have: derived, wrapped, object."""
    peers = () if gateway is None else gateway.peers
    # The model names its types after the kinds: PskNone, PskDerived, PskObject ...
    return frozenset(type(peer.preshared_key).__name__.removeprefix("Psk").lower() for peer in peers) - {"none"}


def _objects(gateway: Gateway | None) -> tuple[str, ...]:
    """The labels of the PSK objects that the gateway's peers have."""
    peers = () if gateway is None else gateway.peers
    return tuple(peer.preshared_key.label for peer in peers if isinstance(peer.preshared_key, PskObject))


def _sealed(gateway: Gateway | None) -> Iterator[SealedPsk]:
    """The wrapped PSKs of the gateway's peers, every epoch of each file."""
    for peer in () if gateway is None else gateway.peers:
        if isinstance(peer.preshared_key, PskWrapped):
            try:
                entries = read_wrapped(peer.preshared_key.file)
            except ConfigError:
                entries = [(0, b"")]
            for epoch, sealed in entries:
                yield SealedPsk(peer.name, peer.public_key, epoch, sealed)


def show_finding(finding: Finding) -> None:
    """Print one line of the doctor's, with the remedy below if it is not green; `ceremony` shows the same."""
    level = click.style(f"{finding.level:7}", fg=_COLOURS[finding.level])
    show_beside(f"  {level} {finding.check + ':':18} ", finding.text)
    if finding.remedy and finding.level is not Level.GREEN:
        show_beside(f"{'':29} -> ", finding.remedy)
    sys.stdout.flush()


def _sum_up(findings: Sequence[Finding]) -> None:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    worst = verdict(findings)
    said = {
        Level.GREEN: "a gateway can rely on it",
        Level.YELLOW: "a gateway serves with it; read the yellow lines",
        Level.RED: "do not rely on it before the red lines are mended",
    }[worst]
    numbers = ", ".join(f"{count} {level}" for level, count in counts.items())
    click.echo(f"{_bold('verdict')}: {click.style(str(worst), fg=_COLOURS[worst], bold=True)} ({numbers}): {said}")


def _bold(text: str) -> str:
    return click.style(text, bold=True)
