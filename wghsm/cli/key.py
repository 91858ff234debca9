"""`wghsm key generate|list|show|public|destroy`."""

import base64
from typing import Any

import click

from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._target import identity_of, label_of, target_of, token_options
from wghsm.pkcs11_backend.provision import KeyReport, destroy_key, generate_key, list_keys, show_key

__all__ = ["key"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Make, list, show and destroy X25519 keys in a token."""


@key.command()
@click.argument("label", required=False)
@token_options
@json_option
def generate(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Generate a key in the token: it cannot be read out and may only derive.

    LABEL may be left out with -c: the gateway's own key then.

    Example: wghsm key generate gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)

    def work(pool: Any) -> Answer:
        generate_key(pool, name)
        return Answer(_plain(show_key(pool, name)))

    report = _report(on_token(target.uri, work, read_write=True))
    if as_json:
        print_json(report)
    else:
        click.echo(f"key {name!r} is in the token; its public key:\n{report['public_key']}")


@key.command(name="list")
@token_options
@json_option
def list_(token: str | None, config: str | None, as_json: bool) -> None:
    """List the private keys of the token.

    Example: wghsm key list -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    answer = on_token(target.uri, lambda pool: Answer([_plain(report) for report in list_keys(pool)]))
    reports = answer.data if isinstance(answer.data, list) else []
    if as_json:
        print_json(reports)
        return
    for report in reports:
        kind = "X25519" if report["dialect"] else "other"
        click.echo(
            f"{report['label']}\t{kind}\t{report['id'] or '-'}\t{report['public_key'] or 'public key not stated'}"
        )


@key.command()
@click.argument("label", required=False)
@token_options
@json_option
def show(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Show what the token says about a key: the attributes that prove its custody.

    Example: wghsm key show gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)
    report = _report(on_token(target.uri, lambda pool: Answer(_plain(show_key(pool, name)))))
    if as_json:
        print_json(report)
        return
    click.echo(f"{'label:':24}{report['label']}")
    click.echo(f"{'id:':24}{report['id'] or 'not stated'}")
    click.echo(f"{'public key:':24}{report['public_key']}  (checked by a derive in the token)")
    key_type = report["key_type"]
    click.echo(f"{'CKA_KEY_TYPE:':24}{'not stated' if key_type is None else f'{key_type:#x}'} ({report['dialect']})")
    for attribute, value in report["attributes"].items():
        click.echo(f"{f'CKA_{attribute}:':24}{_said(value)}")
    refused = "the token gives it: this key is not in custody" if report["value_readable"] else "refused by the token"
    click.echo(f"{'CKA_VALUE:':24}{refused}")


@key.command()
@click.argument("label", required=False)
@token_options
@json_option
def public(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Print the base64 public key and nothing else.

    Example: wghsm key public gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label_of(target, label)
    answer = on_token(target.uri, lambda pool: Answer(_base64(pool.find_key(name).public_key)))
    if as_json:
        print_json({"label": name, "public_key": answer.data})
    else:
        click.echo(answer.data)


@key.command()
@click.argument("label")
@click.option("--id", "identity", metavar="HEX", help="CKA_ID, where several keys have the label.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@token_options
@json_option
def destroy(label: str, identity: str | None, yes: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Destroy a key pair in the token, for good.

    Example: wghsm key destroy old-gateway -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    wanted = identity_of(identity)
    confirm(
        f"Destroy key {label!r} in {target.uri.describe_token()} for good?", yes=yes, refused="nothing was destroyed"
    )
    answer = on_token(target.uri, lambda pool: Answer(destroy_key(pool, label, wanted)), read_write=True)
    if as_json:
        print_json({"label": label, "objects_destroyed": answer.data})
    else:
        click.echo(f"key {label!r} is destroyed ({answer.data} objects)")


def _report(answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.data, dict):
        raise CommandError("the token work gave no report")
    return answer.data


def _plain(report: KeyReport) -> dict[str, object]:
    return {
        "label": report.label,
        "id": report.id,
        "key_type": report.key_type,
        "dialect": report.dialect,
        "public_key": None if report.public_key is None else _base64(report.public_key),
        "public_key_checked": report.public_key_checked,
        "attributes": report.attributes,
        "value_readable": report.value_readable,
    }


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _said(value: bool | None) -> str:
    return "not stated" if value is None else str(value).lower()
