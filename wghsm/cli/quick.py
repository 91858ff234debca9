"""`wghsm-quick NAME`: the program that wg-quick(8) starts in place of wireguard-go, and nothing else.

    WG_QUICK_USERSPACE_IMPLEMENTATION=wghsm-quick wg-quick up wg0
        wg-quick -> wghsm-quick wg0 -> /etc/wghsm/wg0.yaml, or the file that WGHSM_GATEWAY_FILE names
                                    -> `wghsm up`: back once the interface serves
        wg-quick -> wg setconf wg0, addresses, MTU, routes
    wg-quick down wg0 -> ip link delete wg0 -> the gateway ends

docs/wg-quick.md is its manual. The gateway file says where the key is; what wg-quick sets itself must not be in it.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from wghsm import __version__, interrupt
from wghsm.exits import ExitCode

from ._gateway_files import FOLDER
from ._output import CommandError, run_command
from .run import load_gateway, run, start_in_background

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["main", "quick"]

_VARIABLE = "WGHSM_GATEWAY_FILE"
_END_LIMIT = 15.0


@click.command(
    name="wghsm-quick",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: WG_QUICK_USERSPACE_IMPLEMENTATION=wghsm-quick wg-quick up wg0",
)
@click.argument("name")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, as `wghsm run` does.")
@click.version_option(__version__, prog_name="wghsm-quick")
@click.pass_context
def quick(context: click.Context, name: str, foreground: bool) -> int:
    """Start the gateway of the interface NAME for wg-quick(8).

    Its file is /etc/wghsm/NAME.yaml, or the one that the environment variable WGHSM_GATEWAY_FILE names.
    """
    file = os.environ.get(_VARIABLE) or str(FOLDER / f"{name}.yaml")
    if not Path(file).exists():
        raise CommandError(
            f"there is no gateway file {file}; write it, or name another one in {_VARIABLE}", ExitCode.BAD_CONFIG
        )
    gateway = load_gateway(file)
    if reason := _unfit(gateway, name):
        raise CommandError(f"{file}: {reason}", ExitCode.BAD_CONFIG)
    _await_end(name)
    if foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1":
        code: int = context.invoke(run, target=file, ready_fd=None, tty_fd=None)
        return code
    log = start_in_background(file, gateway)
    click.echo(f"{name} is up; log in {log}")
    return int(ExitCode.OK)


def _unfit(gateway: Gateway, name: str) -> str | None:
    """Why this gateway cannot be wg-quick's `name`, with what to do, or None."""
    interface = gateway.interface
    if interface.name != name:
        return f"it is for the interface {interface.name}, not {name}; write interface.name: {name}"
    if interface.addresses:
        return "wg-quick sets the addresses; take interface.addresses away, and write Address in the .conf"
    if interface.table != "off":
        return "wg-quick sets the routes; write interface.table: off"
    if interface.authority != "runtime":
        return "wg-quick decides about peers; write interface.authority: runtime"
    return None


def _await_end(name: str) -> None:
    """Wait for the last gateway of this name, if it only has to end: `wg-quick down` does not wait for it."""
    from wghsm import supervisor

    deadline = time.monotonic() + _END_LIMIT
    while supervisor.running_pid(name) is not None and not _exists(name) and time.monotonic() < deadline:
        time.sleep(0.02)


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def main() -> NoReturn:
    """Run the command and end the process."""
    run_command(_main)


def _main() -> Any:
    interrupt.raise_as_usual()
    return quick.main(standalone_mode=False)
