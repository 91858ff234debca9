"""`wghsm reload FILE|NAME`: have a running gateway read its file again. The gateway does it; this asks and tells."""

from __future__ import annotations

import errno
import os

import click
import msgspec

from wghsm.cli import _completing
from wghsm.exits import ExitCode
from wghsm.ipc.admin import AdminReply, AdminRequest

from ._admin import exchange, gateway_with
from ._gateway_files import names_a_file
from ._output import CommandError, json_option, print_json
from .shapes.gateways import ProblemFound, Reloaded

__all__ = ["exit_code_of", "reload"]

# A custodian may take two minutes to open its token, and another reload may be at work.
_PATIENCE = 600.0


@click.command(
    epilog="Examples: `wghsm reload wg0`, `wghsm reload /etc/wghsm/wg0.yaml`. Exit codes: 2: the file is bad, and "
    "nothing has changed; 6: no such gateway is running; 10: a change needs a restart, and nothing has changed; 1: the "
    "change was refused, as by the token, and nothing has changed, unless the answer says that there is no custodian "
    "now. See `wghsm plan` for what would change."
)
@click.argument("target", metavar="FILE|NAME", shell_complete=_completing.targets)
@click.option("--login", is_flag=True, help="Log in to the token anew, also where no file of its PIN has changed.")
@json_option
def reload(target: str, login: bool, as_json: bool) -> int:
    """Bring a changed gateway file into force: the one that the gateway NAME runs, or FILE.

    Sessions of peers that have not changed go on, and so do their addresses and routes. All or nothing. Another PIN in
    the file or credential that it comes from is taken as well; one that a command gives or that is typed needs --login.
    """
    gateway, reply = _ask(target, login=login)
    if as_json:
        problems = [msgspec.convert(each, ProblemFound, from_attributes=True) for each in reply.problems]
        print_json(Reloaded(gateway=gateway, ok=not reply.errno, result=reply.text, problems=problems))
    elif not reply.errno:
        click.echo(f"{gateway}: {reply.text}")
    elif reply.problems:
        for each in reply.problems:
            where = f"{each.file}:{each.line}" if each.line else each.file
            click.echo(f"{where}: {each.message}; {each.remedy}", err=True)
    else:
        click.echo(f"wghsm: gateway {gateway!r} is not reloaded: {reply.text}", err=True)
    return int(exit_code_of(reply.errno))


def _ask(target: str, *, login: bool) -> tuple[str, AdminReply]:
    """The gateway that is meant, and its answer. Raises CommandError."""
    request = AdminRequest(verb="reload", login=login)
    if not names_a_file(target):
        return target, exchange(target, request, _PATIENCE)
    file = os.path.abspath(target)  # noqa: PTH100  (links are the gateway's to follow)
    name = gateway_with(file)
    if name is None:
        text = f"no running gateway has the file {file}; start one with: wghsm up FILE"
        raise CommandError(text, ExitCode.NOT_RUNNING)
    return name, exchange(name, msgspec.structs.replace(request, file=file), _PATIENCE)


def exit_code_of(number: int) -> ExitCode:
    """The exit status for the errno of a reload's answer."""
    match number:
        case 0:
            return ExitCode.OK
        case errno.EINVAL:
            return ExitCode.BAD_CONFIG
        case errno.ENOTSUP:
            return ExitCode.NEEDS_RESTART
        case _:
            return ExitCode.FAILURE
