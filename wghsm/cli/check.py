"""`wghsm check FILE|NAME`: read a gateway file and say everything that is wrong with it; start nothing."""

from collections.abc import Sequence

import click

from wghsm.cli import _completing
from wghsm.cli._gateway_files import gateway_file
from wghsm.cli._output import json_option, print_json
from wghsm.cli._table import counted
from wghsm.cli.shapes.gateways import Checked, ProblemFound
from wghsm.config import ConfigError, Gateway, Problem, load, read_wrapped_files
from wghsm.exits import ExitCode

__all__ = ["check"]


@click.command(epilog="Examples: `wghsm check /etc/wghsm/wg0.yaml`, `wghsm check wg0 && wghsm reload wg0`.")
@click.argument("target", metavar="FILE|NAME", shell_complete=_completing.files)
@json_option
def check(target: str, as_json: bool) -> int:
    """Check the gateway FILE, or /etc/wghsm/NAME.yaml.

    Exit status 0 if it can be used, 2 with one line for each problem if not.
    """
    file = str(gateway_file(target))
    warnings: list[Problem] = []
    try:
        gateway = load(file, warn=warnings.append)
        read_wrapped_files(gateway)
    except ConfigError as error:
        if as_json:
            print_json(Checked(file=file, ok=False, problems=_records(error.problems), warnings=_records(warnings)))
        _tell(warnings)
        if not as_json:
            for problem in error.problems:
                click.echo(str(problem), err=True)
        return int(error.exit_code)
    if as_json:
        names = [peer.name for peer in gateway.peers]
        found = Checked(file=file, ok=True, interface=gateway.interface.name, peers=names, warnings=_records(warnings))
        print_json(found)
    else:
        click.echo(f"{file}: ok, {_summary(gateway)}")
    _tell(warnings)
    return int(ExitCode.OK)


def _summary(gateway: Gateway) -> str:
    interface = gateway.interface
    port = f"port {interface.listen_port}" if interface.listen_port else "a port of the kernel's choice"
    key = f"key {interface.key!r}" + (f" and before it {interface.previous_key!r}" if interface.previous_key else "")
    return f"{interface.name}, {port}, {counted(len(gateway.peers), 'peer')}, {key}"


def _records(problems: Sequence[Problem]) -> list[ProblemFound]:
    return [ProblemFound(file=each.file, line=each.line, message=each.message, remedy=each.remedy) for each in problems]


def _tell(warnings: list[Problem]) -> None:
    for problem in warnings:
        click.echo(f"warning: {problem}", err=True)
