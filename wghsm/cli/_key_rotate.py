"""`wghsm key rotate`: another key for the gateway, with the one before it served beside it while peers move.

    look at the file -> note what begins -> token: the new key, and every wrapped PSK sealed for it
    -> gateway file: key, previous_key -> files of wrapped PSKs -> the note goes

Whatever comes in between, the command can be given again: it goes on where it was (docs/key-rotation.md).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._key_file import changed_keys
from wghsm.cli._key_pending import Pending
from wghsm.cli._key_report import CUSTODY, base64_text, plain_report
from wghsm.cli._key_reseal import Wrapped, resealed, wrapped_files, write_resealed
from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_file import locked, replace_file
from wghsm.cli._recording import Deed, Recording, recording
from wghsm.cli.shapes.keys import KeyRotated, PeerToTell
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool, TokenUri
from wghsm.pkcs11_backend.errors import KeyNotFound, LabelTaken
from wghsm.pkcs11_backend.provision import generate_key, list_keys, show_key

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["rotate"]

_SHOWN = 8


@dataclass(frozen=True)
class _Done:
    """What a rotation has come to. `token` is the token work's report on the new key."""

    file: str
    gateway: "Gateway"
    old: str
    compromised: bool
    token: dict[str, Any]
    resealed: list[Path]

    @property
    def derived(self) -> list[str]:
        """The peers whose PSK is another one with the new key."""
        from wghsm.config import PskDerived

        return [peer.name for peer in self.gateway.peers if isinstance(peer.preshared_key, PskDerived)]

    def shape(self) -> KeyRotated:
        """Return the facts for --json."""
        derived = self.derived
        return KeyRotated(
            file=self.file,
            gateway=self.gateway.interface.name,
            key=self.token["label"],
            public_key=self.token["public_key"],
            custody=self.token["custody"],
            previous_key=self.old,
            previous_public_key=self.token["previous"],
            compromised=self.compromised,
            resealed=[str(path) for path in self.resealed],
            peers=[PeerToTell(peer=peer.name, new_psk=peer.name in derived) for peer in self.gateway.peers],
        )

    def words(self) -> Iterator[str]:
        """Say what was done, and what comes next."""
        name, new, old, derived = self.gateway.interface.name, self.token["label"], self.old, self.derived
        yield f"{self.file}: the key of gateway {name} is {new!r} now" + (
            f"; {old!r} is out of use at once" if self.compromised else f", and {old!r} its previous_key"
        )
        yield f"new public key: {self.token['public_key']}"
        if self.token["custody"] in ("broken", "been-outside"):
            yield f"custody of {new!r}: {CUSTODY[self.token['custody']]}"
        if self.resealed:
            yield f"sealed again for the new key: {', '.join(str(path) for path in self.resealed)}"
        yield "next:"
        if self.compromised:
            yield f"  1. wghsm reload {name}    # from then on every peer is cut off until it has the new public key"
        else:
            yield f"  1. wghsm reload {name}    # from then on the gateway answers under both keys"
        yield "  2. give every peer the new public key"
        if derived:
            yield f"     together with its new PSK, which comes from the key: {_named(derived)}"
            yield f"     wghsm psk export PEER -c {self.file} --peer-section --out PEER.peer    has both"
        if self.compromised:
            yield f"  3. wghsm status {name}    shows who is back"
            yield f"  4. wghsm key destroy {old} -c {self.file}"
            return
        yield f"  3. wghsm status {name}    shows who still uses {old}"
        yield f"  4. wghsm key retire -c {self.file}    when all have moved"
        yield f"  5. wghsm key destroy {old} -c {self.file}"


@click.command()
@config_option
@click.option("--to", metavar="LABEL", help="Take this key, which is in the token (in every token) already.")
@click.option(
    "--wrappable", is_flag=True, help="Let the key that is made leave the token wrapped under another: for a backup."
)
@click.option("--compromised", is_flag=True, help="No overlap: the old key serves nobody any more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rotate(config: str | None, to: str | None, wrappable: bool, compromised: bool, yes: bool, as_json: bool) -> None:
    """Give the gateway another key, and serve the old one beside it until every peer has moved.

    A key is made in the token, and the gateway file names it as key and the old one as previous_key; nothing else in
    the file changes. Wrapped PSKs are sealed again for the new key. The peers are told the new public key, those with
    derived PSKs a new PSK too. If it is interrupted, give it again.

    With --compromised the old key is out of use at once: every peer is cut off until it has the new public key.

    \b
    Examples:
      wghsm key rotate -c /etc/wghsm/wg0.yaml
      wghsm key rotate -c /etc/wghsm/wg0.yaml --to gateway-2026
      wghsm key rotate -c /etc/wghsm/wg0.yaml --compromised
    """
    path = gateway_path(config)
    if wrappable and to is not None:
        _bad("--wrappable is for a key that is made; leave it out with --to, whose key is what it is")
    with locked(path):
        done = _rotate(path, to, wrappable=wrappable, compromised=compromised, yes=yes)
    if as_json:
        print_json(done.shape())
    else:
        for line in done.words():
            click.echo(line)


def _rotate(path: Path, to: str | None, *, wrappable: bool, compromised: bool, yes: bool) -> _Done:
    from wghsm.config import load

    gateway = load(path)
    own = gateway.interface
    pending = Pending.read(path)
    if pending is not None and pending.old != own.key:
        return _finish(path, gateway, pending, to, compromised=compromised)
    if own.previous_key is not None:
        refuse = f"{path} has a previous_key already: retire {own.previous_key!r} first: wghsm key retire -c {path}"
        _bad(refuse + (" --force" if compromised else ""))
    if to == own.key:
        _bad(f"{to!r} is the gateway's key already; name another one, or leave --to out")
    uris = [TokenUri.parse(uri) for uri in gateway.token.in_order]
    if to is None and len(uris) > 1:
        _bad(_ceremony(path, gateway))
    text = path.read_bytes().decode("utf-8")

    def changed(label: str) -> str:
        return changed_keys(text, str(path), label, None if compromised else own.key)

    # Whether the file can be changed at all must be known before there is another key.
    changed(to or next(_labels(own.key)))
    files = wrapped_files(gateway)
    confirm(_question(path, gateway, to, compromised=compromised), yes=yes, refused="nothing was changed")
    pending = Pending(own.key, (pending or Pending.begin(own.key, compromised=False)).identity, compromised)
    with recording(gateway, _deed(pending)) as record:
        if to is None:
            pending.write(path)
        token = _on_first(record, uris[0], gateway, pending, to, files, wrappable=wrappable)
        for uri in uris[1:]:
            _expect_twin(uri, token)
        edited = changed(str(token["label"]))
        if path.read_bytes().decode("utf-8") != text:
            raise CommandError(f"{path} has changed meanwhile; nothing was written to it: give the command again")
        pending.write(path)
        replace_file(path, edited)
        return _reseal(path, gateway, pending, files, token)


def _finish(path: Path, gateway: "Gateway", pending: Pending, to: str | None, *, compromised: bool) -> _Done:
    """The rest of a rotation whose key stands in the file."""
    own = gateway.interface
    if own.previous_key != (None if pending.compromised else pending.old):
        _bad(
            f"{Pending.path(path)} tells of a rotation from {pending.old!r} that does not fit to {path}; where the "
            "file is as it should be, remove the note"
        )
    if to not in (None, own.key) or (compromised and not pending.compromised):
        _bad(
            f"{path}: a rotation from {pending.old!r} to {own.key!r} is not through; first: wghsm key rotate -c {path}"
        )
    files = wrapped_files(gateway)
    with recording(gateway, _deed(pending)) as record:
        token = _on_first(record, TokenUri.parse(gateway.token.uri), gateway, pending, own.key, files)
        return _reseal(path, gateway, pending, files, token)


def _deed(pending: Pending) -> Deed:
    return Deed("key.rotate", pending.old, detail={"compromised": int(pending.compromised)})


def _reseal(path: Path, gateway: "Gateway", pending: Pending, files: list[Wrapped], token: dict[str, Any]) -> _Done:
    changed = write_resealed(files, token["sealed"])
    Pending.remove(path)
    return _Done(str(path), gateway, pending.old, pending.compromised, token, changed)


def _on_first(
    record: Recording,
    uri: TokenUri,
    gateway: "Gateway",
    pending: Pending,
    to: str | None,
    files: list[Wrapped],
    *,
    wrappable: bool = False,
) -> dict[str, Any]:
    """Have the new key in the token, and return its report with `previous` (base64 or None) and `sealed`."""
    wrap_key = gateway.token.psk_wrap_key

    def work(pool: TokenPool) -> Answer:
        old = _public(pool, pending.old, optional=pending.compromised)
        label = to or _made(pool, pending, wrappable=wrappable)
        new = pool.find_key(label).public_key
        if new == old:
            raise CommandError(f"{pool.token_name}: key {label!r} is the same key as {pending.old!r}; name another one")
        sealed = resealed(pool, wrap_key, new, old, files)
        previous = None if old is None else base64_text(old)
        return Answer({**plain_report(show_key(pool, label)), "previous": previous, "sealed": sealed})

    answer = record.on_token(uri, work, read_write=to is None)
    if not isinstance(answer.data, dict):
        raise CommandError("the token work gave no report")
    return answer.data


def _public(pool: TokenPool, label: str, *, optional: bool) -> bytes | None:
    try:
        return pool.find_key(label).public_key
    except KeyNotFound:
        # A key that was stolen may have been destroyed in a hurry.
        if optional:
            return None
        raise


def _made(pool: TokenPool, pending: Pending, *, wrappable: bool) -> str:
    """The label of the key that this rotation has made before, or makes now."""
    for report in list_keys(pool):
        if report.id == pending.identity.hex():
            return report.label
    for label in _labels(pending.old):
        try:
            generate_key(pool, label, identity=pending.identity, wrappable=wrappable)
        except LabelTaken:
            continue
        return label
    raise AssertionError("there is always another label")


def _labels(old: str) -> Iterator[str]:
    """Labels for the key after `old`: gateway -> gateway-2, gateway-3, ...; gw-2024 -> gw-2025, ..."""
    numbered = re.fullmatch(r"(.*)-([0-9]{1,6})", old, re.ASCII)
    stem, number = (numbered[1], int(numbered[2])) if numbered else (old, 1)
    while True:
        number += 1
        yield f"{stem}-{number}"


def _expect_twin(uri: TokenUri, token: dict[str, Any]) -> None:
    label = str(token["label"])
    answer = on_token(uri, lambda pool: Answer(base64_text(pool.find_key(label).public_key)))
    if answer.data != token["public_key"]:
        raise CommandError(
            f"{uri.describe_token()}: key {label!r} is not the one that the first token has; nothing was changed: "
            "make them the same, or choose another label",
            ExitCode.TOKEN_UNUSABLE,
        )


def _question(path: Path, gateway: "Gateway", to: str | None, *, compromised: bool) -> str:
    own = gateway.interface
    made = f"key {to!r}" if to is not None else "a new key, made in its token,"
    said = f"Gateway {own.name} gets {made} in place of {own.key!r}, in {path}."
    if compromised:
        said += " No peer can reach it any more until it has the new public key (and, where its PSK is derived, the new"
        said += " PSK)."
    return said + " Go on?"


def _ceremony(path: Path, gateway: "Gateway") -> str:
    """What to do where one command cannot have the new key in every token."""
    first, *others = gateway.token.in_order
    label = next(_labels(gateway.interface.key))
    lines = [
        f"{path} names {len(others) + 1} tokens, and a key that is made in one cannot be made in another; "
        "have it in all of them first:",
        f"  1. wghsm key generate {label} --wrappable --token '{first}'",
        f"  2. wghsm key backup {label} --wrap-key AES-KEY --out {label}.backup --token '{first}'",
        *(f"  3. wghsm key restore --in {label}.backup --token '{uri}'" for uri in others),
        f"  4. wghsm key rotate -c {path} --to {label}",
        "AES-KEY is a wrapping key that all of them hold; where they hold none or cannot wrap, clone the token by its "
        "maker's means,",
        f"or import one private key into each, on a machine without a network: wghsm key import {label} --token URI",
    ]
    return "\n".join(lines)


def _named(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _bad(message: str) -> NoReturn:
    raise CommandError(message, ExitCode.BAD_CONFIG)
