"""`wghsm key generate|import|list|show|public|backup|restore|destroy`; `rotate`, `retire` have modules of their own."""

from typing import Any

import click
import msgspec

from wghsm.cli import _completing
from wghsm.cli._backup_file import backup_from, backup_of, read_backup, write_backup
from wghsm.cli._dependents import in_use, refuse_in_use
from wghsm.cli._every import each_token, first_only, in_every_token, names_of
from wghsm.cli._key_report import CUSTODY, base64_text, plain_report
from wghsm.cli._key_retire import retire
from wghsm.cli._key_rotate import rotate
from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._private_key import key_from_stdin, key_from_wg_quick, open_to_others
from wghsm.cli._recording import Deed, recording
from wghsm.cli._table import counted, show_table
from wghsm.cli._target import identity_of, label_of, target_of, token_options
from wghsm.cli.shapes.keys import (
    KeyBackedUp,
    KeyDestroyed,
    KeyImported,
    KeyPublic,
    KeyReported,
    KeySeen,
    KeyShown,
)
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.errors import KeyNotFound
from wghsm.pkcs11_backend.key_backup import backup_key, restore_key
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import destroy_key, generate_key, list_keys, show_key
from wghsm.wipe import wipe

__all__ = ["key"]

_OUTSIDE = (
    "this key has been outside the token: whoever has had a copy of it can pose as this gateway. Destroy every copy; "
    "wghsm key show goes on to say so. A key that was never outside: wghsm key generate"
)

_wrappable = click.option(
    "--wrappable", is_flag=True, help="Let the key leave the token wrapped under another key: a backup needs it."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Make, import, list, show, back up, rotate and destroy X25519 keys in a token."""


key.add_command(rotate)
key.add_command(retire)


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@_wrappable
@token_options
@json_option
def generate(label: str | None, wrappable: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Generate a key in the token: it cannot be read out and may only derive.

    LABEL may be left out with -c: the gateway's own key then. Of several tokens that the file names the first one gets
    it; the command says how the others come by it.

    Example: wghsm key generate gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)

    def work(pool: Any) -> Answer:
        generate_key(pool, name, wrappable=wrappable)
        return Answer(plain_report(show_key(pool, name)))

    with recording(target.gateway, Deed("key.generate", name)) as record:
        report = _report(record.on_token(target.uri, work, read_write=True))
    if as_json:
        print_json(report)
    else:
        click.echo(f"key {name!r} is in the token; its public key:\n{report.public_key}")
    how = "wghsm key backup and restore (it takes --wrappable), cloning by their maker's means, or key import into all"
    first_only(target, f"key {name!r}", how)


@key.command(name="import")
@click.argument("label", required=False, shell_complete=_completing.keys)
@click.option("--wg-quick", "file", metavar="FILE", help="Take PrivateKey of this wg-quick file.", type=click.Path())
@_wrappable
@token_options
@json_option
def import_(
    label: str | None, file: str | None, wrappable: bool, token: str | None, config: str | None, as_json: bool
) -> None:
    """Bring a WireGuard private key into the token; its base64 comes on standard input.

    The peers need no change, but the key has been outside: the token says so for good. With -c it goes into every
    token that the file names.

    \b
    Examples:
      wghsm key import gateway -c /etc/wghsm/wg0.yaml --wg-quick /etc/wireguard/wg0.conf
      wghsm key import gateway -c /etc/wghsm/wg0.yaml < private.key
    """
    target = target_of(token, config)
    name = label_of(target, label)
    private = key_from_stdin() if file is None else key_from_wg_quick(file)

    def work(pool: Any) -> Answer:
        own = bytearray(private)
        try:
            import_key(pool, name, own, wrappable=wrappable)
        finally:
            wipe(own)
        return Answer(plain_report(show_key(pool, name)))

    try:
        with recording(target.gateway, Deed("key.import", name)) as record:
            report = _report(in_every_token(target, work, read_write=True, do=record.on_token)[0])
    finally:
        wipe(private)
    notice = _OUTSIDE
    if file is not None:
        exposed = ", which others can read" if open_to_others(file) else ""
        notice += f". One copy is in {file}{exposed}"
    if as_json:
        print_json(KeyImported(**msgspec.structs.asdict(report), notice=notice))
    else:
        click.echo(f"key {name!r} is in the token; its public key:\n{report.public_key}")
        click.echo(notice, err=True)


@key.command(name="list")
@token_options
@json_option
def list_(token: str | None, config: str | None, as_json: bool) -> None:
    """List the private keys of the token, or of every token that the file names.

    Example: wghsm key list -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    looked = each_token(target, lambda pool: Answer([plain_report(report) for report in list_keys(pool)]))
    reports = looked.reports(KeySeen)
    if as_json:
        print_json(reports)
    else:
        several = len(target.uris) > 1
        rows = [
            (
                report.label,
                *((report.token,) if several else ()),
                "X25519" if report.dialect else "other",
                report.public_key or "not stated",
                report.id or "-",
            )
            for report in reports
        ]
        show_table(("LABEL", *(("TOKEN",) if several else ()), "KIND", "PUBLIC KEY", "ID"), rows)
    looked.tell_faults()


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@token_options
@json_option
def show(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Show what the token says about a key: the attributes that prove its custody.

    With -c it is shown in every token that the file names; in JSON those after the first are its `others`.

    Example: wghsm key show gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)
    looked = each_token(target, lambda pool: Answer([plain_report(show_key(pool, name))]))
    first, *others = looked.reports(KeySeen)
    several = len(target.uris) > 1
    if as_json:
        print_json(KeyShown(**msgspec.structs.asdict(first), others=others if several else msgspec.UNSET))
    for report in [] if as_json else [first, *others]:
        if several:
            click.echo(f"{'token:':24}{report.token}")
        _show(report)
    looked.tell_faults()
    looked.expect_same(name, [report.public_key for report in (first, *others)])


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@token_options
@json_option
def public(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Print the base64 public key and nothing else.

    With -c every token that the file names must have the same one.

    Example: wghsm key public gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)
    looked = each_token(target, lambda pool: Answer(base64_text(pool.find_key(name).public_key)))
    keys = [found for _, found in looked.found]
    looked.expect_same(name, keys)
    if as_json:
        print_json(KeyPublic(label=name, public_key=str(keys[0])))
    else:
        click.echo(keys[0])
    looked.tell_faults()


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@click.option("--wrap-key", metavar="LABEL", required=True, help="The AES key of the token to wrap it under.")
@click.option("--out", metavar="FILE", required=True, help="Write a new file of mode 0600.", type=click.Path())
@token_options
@json_option
def backup(label: str | None, wrap_key: str, out: str, token: str | None, config: str | None, as_json: bool) -> None:
    """Back up a key, wrapped under another key of the token (AES key wrap with padding, RFC 5649).

    The key must have been made with --wrappable. The backup is unwrapped once and compared before it is written; it
    comes back into a token of the same make that holds the same wrapping key.

    Example: wghsm key backup gateway -c /etc/wghsm/wg0.yaml --wrap-key backup-aes --out gateway.backup
    """
    target = target_of(token, config)
    name = label_of(target, label)
    with recording(target.gateway, Deed("key.backup", name, detail={"wrap_key": wrap_key, "file": out})) as record:
        work = lambda pool: Answer(backup_of(backup_key(pool, name, wrap_key)))  # noqa: E731
        made = backup_from(record.on_token(target.uri, work, read_write=True).data)
        if made is None:
            raise CommandError("the token work gave no backup")
        write_backup(out, made)
    if as_json:
        public = base64_text(made.public_key)
        print_json(KeyBackedUp(label=name, public_key=public, wrap_key=wrap_key, file=out))
    else:
        click.echo(f"{out}: key {name!r}, wrapped under {wrap_key!r} and proved; it is as safe as that key is")


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@click.option("--wrap-key", metavar="LABEL", help="The AES key to unwrap it with (default: the backup names it).")
@click.option("--in", "file", metavar="FILE", required=True, help="What key backup wrote.", type=click.Path())
@_wrappable
@token_options
@json_option
def restore(
    label: str | None,
    wrap_key: str | None,
    file: str,
    wrappable: bool,
    token: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Bring a backup into the token (with -c into each that the file names), as LABEL or under the label that it had.

    Example: wghsm key restore -c /etc/wghsm/wg0.yaml --in gateway.backup
    """
    target = target_of(token, config)
    saved = read_backup(file)
    name = label or saved.label

    def work(pool: Any) -> Answer:
        restore_key(pool, saved, name, wrap_key or saved.wrap_key, wrappable=wrappable)
        return Answer(plain_report(show_key(pool, name)))

    with recording(target.gateway, Deed("key.restore", name, detail={"file": file})) as record:
        report = _report(in_every_token(target, work, read_write=True, do=record.on_token)[0])
    if as_json:
        print_json(report)
    else:
        click.echo(f"key {name!r} is in the token; its public key:\n{report.public_key}")


@key.command()
@click.argument("label", shell_complete=_completing.keys)
@click.option("--id", "identity", metavar="HEX", help="CKA_ID, where several keys have the label.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@token_options
@json_option
def destroy(label: str, identity: str | None, yes: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Destroy a key pair in the token, for good.

    Nothing but a backup brings it back. With -c it is destroyed in every token that the file names; a key that the
    file names as the gateway's, or that the gateway runs with, is refused: rotate and retire it first. Of
    several keys with the same label one may go, where --id says which.

    Example: wghsm key destroy old-gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    wanted = identity_of(identity)
    gateway = target.gateway
    named = None
    if gateway is not None:
        named = in_use(lambda: refuse_in_use(gateway, str(config), label), one_of_several=wanted is not None)
    several = len(target.uris) > 1
    if several and wanted is not None:
        raise CommandError("--id names an object of one token; name the token with --token", ExitCode.BAD_CONFIG)
    confirm(
        f"Destroy key {label!r} in {names_of(target)} for good?",
        yes=yes,
        refused="nothing was destroyed",
    )

    def work(pool: Any) -> Answer:
        if named and sum(report.label == label for report in list_keys(pool)) < 2:
            raise named
        try:
            return Answer(destroy_key(pool, label, wanted))
        except KeyNotFound:
            if not several:
                raise
            return Answer(0)

    with recording(target.gateway, Deed("key.destroy", label)) as record:
        answers = in_every_token(target, work, read_write=True, do=record.on_token)
        destroyed = sum(int(str(answer.data)) for answer in answers)
        if not destroyed:
            raise CommandError(f"no key with the label {label!r} in {names_of(target)}", ExitCode.TOKEN_UNUSABLE)
    if as_json:
        print_json(KeyDestroyed(label=label, objects_destroyed=destroyed))
    else:
        click.echo(f"key {label!r} is destroyed ({counted(destroyed, 'object')})")


def _report(answer: Answer) -> KeyReported:
    return msgspec.convert(answer.data, KeyReported)


def _show(report: KeyReported) -> None:
    click.echo(f"{'label:':24}{report.label}")
    click.echo(f"{'id:':24}{report.id or 'not stated'}")
    click.echo(f"{'public key:':24}{report.public_key}  (checked by a derive in the token)")
    key_type = "not stated" if report.key_type is None else f"{report.key_type:#x}"
    click.echo(f"{'CKA_KEY_TYPE:':24}{key_type} ({report.dialect})")
    for attribute, value in report.attributes.items():
        click.echo(f"{f'CKA_{attribute}:':24}{_said(value)}")
    refused = "the token gives it: this key is not in custody" if report.value_readable else "refused by the token"
    click.echo(f"{'CKA_VALUE:':24}{refused}")
    click.echo(f"{'custody:':24}{CUSTODY[report.custody]}")


def _said(value: bool | None) -> str:
    return "not stated" if value is None else str(value).lower()
