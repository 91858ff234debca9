"""`wghsm peer add` and `wghsm peer config`: a client in the gateway file, and the configuration it is given.

    add     lock -> free addresses -> the changed file, checked -> PSK made -> gateway's key and PSK from the token
            -> export recorded -> client's files, shown -> gateway file -> reload
    config  the same from the token on, for a client that is there

Until the gateway file is replaced, all that was made is taken back if something fails.
"""

import base64
import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec import UNSET, UnsetType

from wghsm.cli import _completing
from wghsm.cli._addresses import free_addresses
from wghsm.cli._client_file import can_show_code, client_file, picture, terminal_code
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._in_force import bring_into_force
from wghsm.cli._output import CommandError, json_option, print_bytes, print_json
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._peer_file import Value, editing
from wghsm.cli._peer_options import config_option, endpoint_of, moment_text, reload_option
from wghsm.cli._peer_psk import kind_of, make_psk, written_psk
from wghsm.cli._psk_export import peer_of, request_of
from wghsm.cli._psk_file import Exports, new_file
from wghsm.cli._target import Target
from wghsm.cli.psk import fetch
from wghsm.cli.shapes.peers import PeerAdded, PeerConfig
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.config import Endpoint, Gateway, Peer

__all__ = ["add", "config"]


@dataclass(frozen=True)
class _Outputs:
    """Where a client's configuration goes: files, the terminal, or standard output with `-`."""

    out: str | None
    qr: bool
    png: str | None
    svg: str | None

    @property
    def files(self) -> list[tuple[Path, str]]:
        """Each file with its kind."""
        named = ((self.out if self.out != "-" else None, "conf"), (self.png, "png"), (self.svg, "svg"))
        return [(Path(name), kind) for name, kind in named if name is not None]

    def check(self, *, secret: bool, as_json: bool) -> None:
        """Refuse, before anything is made, what could not be written or would leak. Raises CommandError."""
        for path, _ in self.files:
            if path.exists() or path.is_symlink():
                raise CommandError(f"{path} exists; nothing was done: choose another file or remove it")
            if not path.absolute().parent.is_dir():
                raise CommandError(f"{path.parent} is no folder; nothing was done: make it first")
        if self.qr and not can_show_code(sys.stdout.encoding):
            raise CommandError(
                f"standard output is {sys.stdout.encoding}, which cannot show a code; use --png FILE, or a UTF-8 "
                "locale",
                ExitCode.BAD_CONFIG,
            )
        if as_json and not self.files and self.out != "-":
            raise CommandError("--json shows the configuration with --out - only; or --out FILE", ExitCode.BAD_CONFIG)
        if secret and not self.files and self.out != "-" and not sys.stdout.isatty():
            raise CommandError(
                "standard output is no terminal, and secrets in a pipe end up in logs; use --out FILE, --png or --svg, "
                "or --out - to insist",
                ExitCode.BAD_CONFIG,
            )

    def write(self, text: bytearray, undo: contextlib.ExitStack) -> None:
        """Write the files, mode 0600."""
        for path, kind in self.files:
            new_file(path, text if kind == "conf" else picture(text, kind))
            undo.callback(path.unlink, missing_ok=True)

    def show(self, text: bytearray) -> None:
        """Show on standard output what no file has taken."""
        if self.qr:
            click.echo(terminal_code(text))
        if self.out == "-" or not (self.files or self.qr):
            print_bytes(text)

    @property
    def written(self) -> list[str]:
        """The files, for --json."""
        return [str(file.absolute()) for file, _ in self.files]

    def shown(self, text: bytearray) -> str | UnsetType:
        """For --json: the configuration itself where `--out -` asks for it."""
        return text.decode() if self.out == "-" else UNSET


def _output_options(command: "Callable[..., Any]") -> "Callable[..., Any]":
    for option in (
        click.option("--svg", metavar="FILE", help="Write its QR code as SVG, mode 0600."),
        click.option("--png", metavar="FILE", help="Write its QR code as PNG, mode 0600."),
        click.option("--qr", is_flag=True, help="Show its QR code on the terminal."),
        click.option("--out", metavar="FILE", help="Write the configuration to a new file, mode 0600; - for stdout."),
        click.option(
            "--endpoint", metavar="HOST[:PORT]", help="Where the client finds the gateway (default: clients.endpoint)."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.option("--public-key", metavar="KEY", help="The client's public key, where it has a key pair of its own.")
@click.option(
    "--generate-client-key", "generate", is_flag=True, help="Make its key pair here; the private key is kept nowhere."
)
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, help="Its address (default: free ones).")
@click.option("--allowed-ip", "extra", metavar="PREFIX", multiple=True, help="A network behind the client.")
@click.option(
    "--psk", "kind", type=click.Choice(["derived", "wrapped", "object", "none"]), help="Default: clients.preshared_key."
)
@click.option("--expires", metavar="WHEN", help="A day, a moment in UTC, or 30d, 12h from now.")
@click.option("--note", metavar="TEXT", help="A few words.")
@click.option(
    "--tag",
    "tags",
    metavar="WORD",
    multiple=True,
    shell_complete=_completing.tags,
    help="A word to find it by; may be repeated.",
)
@click.option(
    "--keepalive", metavar="SECONDS", type=click.IntRange(0, 65535), help="persistent_keepalive at the gateway."
)
@_output_options
@reload_option
@config_option
@json_option
def add(
    name: str,
    public_key: str | None,
    generate: bool,
    addresses: tuple[str, ...],
    extra: tuple[str, ...],
    kind: str | None,
    expires: str | None,
    note: str | None,
    tags: tuple[str, ...],
    keepalive: int | None,
    endpoint: str | None,
    out: str | None,
    qr: bool,
    png: str | None,
    svg: str | None,
    reload: bool,
    config: str | None,
    as_json: bool,
) -> int:
    """Add the client NAME: free addresses, a pre-shared key, and its configuration as file or QR code.

    Its key pair is its own (--public-key), or made here (--generate-client-key): then the private key is in the
    configuration, which is shown once and kept nowhere. A running gateway knows the client at once.

    \b
    Examples:
      wghsm peer add alice-phone --generate-client-key --qr
      wghsm peer add bob --public-key "$(cat bob.pub)" --out bob.conf
      wghsm peer add temp --generate-client-key --png temp.png --expires 7d --tag guest
    """
    if (public_key is None) == (not generate):
        raise CommandError(
            "whose key? --public-key KEY for a client that has made its own, or --generate-client-key",
            ExitCode.BAD_CONFIG,
        )
    from wghsm.config import written

    outputs = _Outputs(out, qr, png, svg)
    path = gateway_path(config)
    private, public = _key_pair() if generate else (bytearray(), str(public_key).strip())
    psk = bytearray()
    text = bytearray()
    try:
        with editing(path) as edit, contextlib.ExitStack() as undo:
            gateway = edit.gateway
            if any(peer.name == name for peer in gateway.peers):
                raise CommandError(f"there is a peer {name!r} already; choose another name", ExitCode.BAD_CONFIG)
            reached = _endpoint(gateway, endpoint)
            chosen = kind_of(gateway, kind)
            outputs.check(secret=bool(private) or chosen != "none", as_json=as_json)
            prefixes = [_with_length(each) for each in addresses] or _free(gateway)
            fields: dict[str, Value | None] = {
                "name": name,
                "public_key": public,
                "preshared_key": written_psk(chosen, name),
                "allowed_ips": [*prefixes, *extra],
                "persistent_keepalive": keepalive or None,
                "expires": None if expires is None else moment_text(expires),
                "note": note or None,
                "tags": list(tags) or None,
            }
            change = edit.add({key: value for key, value in fields.items() if value is not None})
            peer = peer_of(change.gateway, name)
            make_psk(path, change.gateway, name, undo)
            psk, gateway_key = _secrets_of(change.gateway, peer, "add")
            text = client_file(change.gateway, peer, gateway_key, reached, psk, private)
            outputs.write(text, undo)
            if not as_json:
                # It is shown once: whom it cannot be shown to must not be in the file.
                outputs.show(text)
            change.write()
            undo.pop_all()
        in_force = bring_into_force(path, gateway.interface.name, wanted=reload)
        allowed = [str(prefix) for prefix in peer.allowed_ips]
        if as_json:
            print_json(
                PeerAdded(
                    peer=name,
                    public_key=public,
                    allowed_ips=allowed,
                    preshared_key=chosen,
                    gateway_public_key=gateway_key,
                    gateway_file=str(change.file),
                    gateway=in_force.shape(),
                    files=outputs.written,
                    config=outputs.shown(text),
                )
            )
        else:
            _tell(f"peer {name!r} is in {change.file}, with {', '.join(allowed)}")
            if not peer.active_at(time.time()):
                _tell(f"it has expired already, at {written(peer.expires)}; give it another moment: wghsm peer expire")
            for file, _ in outputs.files:
                _tell(f"{file}: bring it to the client, then remove it")
            if private:
                _tell("the client's private key is kept nowhere else: what is lost now can only be made anew")
            elif qr or png or svg:
                _tell("the code has no private key, so an app cannot take it as it is; the client adds its own")
            _tell(in_force.text)
        return int(in_force.exit_code)
    finally:
        for secret in (private, psk, text):
            wipe(secret)


@click.command()
@click.argument("name", shell_complete=_completing.peers)
@_output_options
@config_option
@json_option
def config(
    name: str,
    endpoint: str | None,
    out: str | None,
    qr: bool,
    png: str | None,
    svg: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Give the configuration of the client NAME again, with its pre-shared key, without its private key.

    Example: wghsm peer config bob --out bob.conf
    """
    from wghsm.config import PskNone, load

    outputs = _Outputs(out, qr, png, svg)
    gateway = load(gateway_path(config))
    peer = peer_of(gateway, name)
    reached = _endpoint(gateway, endpoint)
    outputs.check(secret=not isinstance(peer.preshared_key, PskNone), as_json=as_json)
    psk, gateway_key = _secrets_of(gateway, peer, "config")
    text = client_file(gateway, peer, gateway_key, reached, psk, bytearray())
    try:
        with contextlib.ExitStack() as undo:
            outputs.write(text, undo)
            undo.pop_all()
        if as_json:
            written, shown = outputs.written, outputs.shown(text)
            print_json(PeerConfig(peer=peer.name, gateway_public_key=gateway_key, files=written, config=shown))
        else:
            outputs.show(text)
            for file, _ in outputs.files:
                _tell(f"{file}: bring it to the client, then remove it; the client's private key goes into it there")
    finally:
        wipe(psk)
        wipe(text)


def _secrets_of(gateway: "Gateway", peer: "Peer", verb: str) -> tuple[bytearray, str]:
    """The peer's PSK in base64 (empty: none; wiped by the caller) and the gateway's public key; the export is recorded.

    Raises TokenError and CommandError.
    """
    from wghsm.config import PskNone

    target = Target(TokenUri.parse(gateway.token.uri), gateway)
    if isinstance(peer.preshared_key, PskNone):
        key = gateway.interface.key

        def work(pool: Any) -> Answer:
            return Answer(base64.b64encode(pool.find_key(key).public_key).decode())

        return bytearray(), str(on_token(target.uri, work).data)
    request = request_of(target, peer=peer.name, stored=None, root=None, key=None, epoch=None)
    secret, gateway_key = fetch(target, request, f"peer {verb}", with_key=True)
    try:
        Exports.of(gateway.state_directory).append(
            {"token": str(target.uri.describe_token()), **request.record(), "to": f"peer {verb}"}
        )
        return bytearray(base64.b64encode(secret)), str(gateway_key)
    finally:
        wipe(secret)


def _endpoint(gateway: "Gateway", wanted: str | None) -> "Endpoint":
    """Where clients find the gateway: --endpoint, or the file's. Raises CommandError."""
    if wanted is not None:
        return endpoint_of(wanted, gateway.interface.listen_port)
    if gateway.clients.endpoint is None:
        raise CommandError(
            "where do clients find this gateway? Write endpoint: HOST:PORT under clients: in the gateway file, or use "
            "--endpoint HOST:PORT",
            ExitCode.BAD_CONFIG,
        )
    return gateway.clients.endpoint


def _key_pair() -> tuple[bytearray, str]:
    """A fresh private key in base64, for the caller to wipe, and the public one."""
    made = X25519PrivateKey.generate()
    raw = made.private_bytes_raw()
    text = base64.b64encode(raw)
    try:
        return bytearray(text), base64.b64encode(made.public_key().public_bytes_raw()).decode()
    finally:
        wipe(raw)
        wipe(text)


def _free(gateway: "Gateway") -> list[str]:
    interfaces = gateway.interface.addresses
    if not interfaces:
        raise CommandError(
            "interface.addresses is empty, so there is no network to choose from; use --address", ExitCode.BAD_CONFIG
        )
    found = free_addresses(interfaces, [prefix for peer in gateway.peers for prefix in peer.allowed_ips])
    if not found:
        networks = ", ".join(str(each.network) for each in interfaces)
        raise CommandError(f"no address is free in {networks}; use --address", ExitCode.BAD_CONFIG)
    return [_with_length(str(each)) for each in found]


def _with_length(address: str) -> str:
    if "/" in address:
        return address
    return f"{address}/128" if ":" in address else f"{address}/32"


def _tell(line: str) -> None:
    click.echo(line, err=True)
