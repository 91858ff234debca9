"""Who depends on a key or secret of a token, as far as one gateway file and its gateway tell.

Asked before it is destroyed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.cli._admin import status_if_running
from wghsm.cli._key_pending import Pending
from wghsm.cli._output import CommandError
from wghsm.cli._table import counted
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["in_use", "refuse_in_use", "refuse_secret_in_use"]

_SHOWN = 8


def in_use(refuse: Callable[[], None], *, one_of_several: bool) -> CommandError | None:
    """Raise what `refuse` raises; with `one_of_several` give it back, for it to be raised if there is only one.

    No gateway can use a label that several objects have, so all but one of them may go.
    """
    try:
        refuse()
    except CommandError as fault:
        if not one_of_several:
            raise
        return fault
    return None


def refuse_in_use(gateway: "Gateway", file: str, label: str) -> None:
    """Raise CommandError where the key `label` is the gateway's, by its file or as it runs."""
    own = gateway.interface
    if label == own.key:
        raise CommandError(
            f"{label!r} is the key of gateway {own.name}{_lost(gateway)}; nothing was destroyed: give the gateway "
            f"another key (wghsm key rotate -c {file}), or name the token with --token if the gateway is to go",
            ExitCode.BAD_CONFIG,
        )
    if label == own.previous_key:
        raise CommandError(
            f"{label!r} is the previous_key of gateway {own.name}, and its peers may still use it; nothing was "
            f"destroyed: first: wghsm key retire -c {file}",
            ExitCode.BAD_CONFIG,
        )
    pending = Pending.read(Path(file))
    if pending is not None and pending.old == label:
        raise CommandError(
            f"a rotation from {label!r} is not through; nothing was destroyed: first: wghsm key rotate -c {file}",
            ExitCode.BAD_CONFIG,
        )
    status = status_if_running(own.name)
    if status is not None and label in (status.key_label, status.previous_key_label):
        raise CommandError(
            f"gateway {own.name} still runs with {label!r}; nothing was destroyed: first: wghsm reload {own.name}"
        )


def refuse_secret_in_use(gateway: "Gateway", label: str) -> None:
    """Raise CommandError where the file names the secret `label` as PSK root, as wrapping key or as a peer's PSK."""
    from wghsm.config import PskDerived, PskObject, PskWrapped

    name, peers = gateway.interface.name, gateway.peers
    if label == gateway.token.psk_root:
        derived = [peer.name for peer in peers if isinstance(peer.preshared_key, PskDerived)]
        lost = f": the derived PSKs of {_named(derived)} could not be made again" if derived else ""
        raise CommandError(
            f"{label!r} is the psk_root of gateway {name}{lost}; nothing was destroyed: name another one in the file "
            "first, or name the token with --token if the gateway is to go",
            ExitCode.BAD_CONFIG,
        )
    if label == gateway.token.psk_wrap_key:
        wrapped = [peer.name for peer in peers if isinstance(peer.preshared_key, PskWrapped)]
        lost = f": the wrapped PSKs of {_named(wrapped)} could not be opened any more" if wrapped else ""
        raise CommandError(
            f"{label!r} is the psk_wrap_key of gateway {name}{lost}; nothing was destroyed: name another one in the "
            "file first, or name the token with --token if the gateway is to go",
            ExitCode.BAD_CONFIG,
        )
    for peer in peers:
        if isinstance(peer.preshared_key, PskObject) and peer.preshared_key.label == label:
            raise CommandError(
                f"{label!r} is the PSK of peer {peer.name!r}; nothing was destroyed: give it another one in the file "
                "first, or name the token with --token if the gateway is to go",
                ExitCode.BAD_CONFIG,
            )


def _lost(gateway: "Gateway") -> str:
    """What would go with the gateway's own key."""
    from wghsm.config import PskDerived

    peers = [peer.name for peer in gateway.peers]
    derived = [peer.name for peer in gateway.peers if isinstance(peer.preshared_key, PskDerived)]
    said = f": {_named(peers)} could not reach it any more" if peers else ""
    if derived:
        said += (
            f", and the derived {'PSK' if len(derived) == 1 else 'PSKs'} of {_named(derived)} could not be made again"
        )
    return said


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{counted(len(names), 'peer')} ({shown})"
