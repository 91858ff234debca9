"""`wghsm audit key generate|public`: the key of the token that signs the audit log's checkpoints."""

import click
import msgspec

from wghsm.cli import _completing
from wghsm.cli._every import in_every_token
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._recording import Deed, recording
from wghsm.cli._target import Target, target_of, token_options
from wghsm.cli.shapes.keys import AuditKeyShown
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.audit_key import AuditKey, find_audit_key, generate_audit_key

__all__ = ["key"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Make and show the key that signs checkpoints of the audit log."""


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@token_options
@json_option
def generate(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Generate the audit key in the token (with -c in each that the file names): it may only sign and cannot leave.

    Ed25519 where the token has it, else ECDSA P-256. Prints the public key, which is all that a verifier needs. LABEL
    may be left out where the gateway file names one (audit.key).

    Example: wghsm audit key generate audit -c /etc/wghsm/wg0.yaml > audit.pem
    """
    target = target_of(token, config)
    name = _label(target, label)
    work = lambda pool: Answer(_report(generate_audit_key(pool, name)))  # noqa: E731
    with recording(target.gateway, Deed("audit.key.generate", name)) as record:
        answers = in_every_token(target, work, read_write=True, do=record.on_token)
    _show(answers, as_json=as_json)


@key.command()
@click.argument("label", required=False, shell_complete=_completing.keys)
@token_options
@json_option
def public(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Print the audit key's public key as PEM, and nothing else; with -c that of each token the file names.

    Example: wghsm audit key public audit -c /etc/wghsm/wg0.yaml > audit.pem
    """
    target = target_of(token, config)
    name = _label(target, label)
    _show(in_every_token(target, lambda pool: Answer(_report(find_audit_key(pool, name)))), as_json=as_json)


def _label(target: Target, label: str | None) -> str:
    found = label or (target.gateway.audit.key if target.gateway is not None else None)
    if found is not None:
        return found
    raise CommandError(
        "name the audit key: give its LABEL, or write key: under audit: in the file", ExitCode.BAD_CONFIG
    )


def _report(found: AuditKey) -> dict[str, object]:
    shown = AuditKeyShown(
        token=found.pool.token_name,
        label=found.label,
        algorithm=found.algorithm,
        public_key=found.pem,
        fingerprint=found.fingerprint,
    )
    return msgspec.structs.asdict(shown)


def _show(answers: list[Answer], *, as_json: bool) -> None:
    reports = [msgspec.convert(answer.data, AuditKeyShown) for answer in answers]
    if as_json:
        print_json(reports)
        return
    for report in reports:
        click.echo(report.public_key, nl=False)
