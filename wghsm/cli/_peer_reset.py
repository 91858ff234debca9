"""`wghsm peer reset-timestamp`: let a client in again whose clock went back, as after it was restored from a backup.

running gateway -> admin socket -> custodian     no gateway -> the custodian's state file, by its owner
"""

import subprocess
import sys
from pathlib import Path

import click

from wghsm.cli import _completing
from wghsm.cli._admin import NotRunningError, ask
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_export import peer_of
from wghsm.cli.shapes.peers import TimestampForgotten
from wghsm.exits import ExitCode
from wghsm.ipc.admin import AdminRequest

__all__ = ["reset_timestamp"]


@click.command(name="reset-timestamp")
@click.argument("name", shell_complete=_completing.peers)
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def reset_timestamp(name: str, yes: bool, config: str | None, as_json: bool) -> None:
    """Forget the greatest timestamp of NAME: its next handshake is taken, whatever its clock says.

    The gateway refuses a handshake that is not later than the last one, so that a recorded one is of no use. A client
    that was restored from a backup, or whose clock once ran ahead, is refused until its clock has passed that moment.
    The risk: somebody who has recorded handshakes of this client can play one back, once. That gives no access and no
    key, but ends what the client had under way.

    Example: wghsm peer reset-timestamp alice-phone
    """
    from wghsm.config import load, written

    gateway = load(gateway_path(config))
    peer = peer_of(gateway, name)
    own = gateway.interface.name
    confirm(
        f"Forget the greatest timestamp of {peer.name!r}? A recorded handshake could be played back once.",
        yes=yes,
        refused="nothing was forgotten",
    )
    key = str(written(peer.public_key))
    try:
        text = ask(own, AdminRequest(verb="reset-timestamp", peers=[key])).text
    except NotRunningError:
        text = _forget_in_state(gateway.state_directory / "custodian", key)
    if as_json:
        print_json(TimestampForgotten(peer=peer.name, public_key=key, result=text))
    else:
        click.echo(f"{peer.name}: {text}")


def _forget_in_state(folder: Path, key: str) -> str:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-m", "wghsm.custodian.forgetting", str(folder), key],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        code = done.returncode if done.returncode in set(ExitCode) else ExitCode.FAILURE
        raise CommandError(done.stderr.strip() or "the state could not be changed", ExitCode(code))
    return "forgotten in the state file; the gateway is not running"
