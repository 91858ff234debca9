"""Who depends on a key of a token, as far as one gateway file tells: asked before the key is destroyed."""

from dataclasses import dataclass

from wghsm.cli._target import Target

__all__ = ["Dependents", "dependents_of"]

_SHOWN = 8


@dataclass(frozen=True)
class Dependents:
    """The gateway whose own key it is (None: the file's gateway has another one), and what goes with the key.

    `peers` know the gateway by this key; the PSKs of `derived_psks` are computed from it too.
    """

    gateway: str | None
    running: bool
    peers: tuple[str, ...]
    derived_psks: tuple[str, ...]

    def sentence(self, file: str) -> str:
        """One sentence for the operator."""
        if self.gateway is None:
            return f"{file} does not use it; other gateway files are not known here."
        text = f"It is the key of gateway {self.gateway}" + (", which is running" if self.running else "")
        text += f": {_named(self.peers)} cannot reach it any more" if self.peers else ", which has no peers"
        if self.derived_psks:
            text += (
                f", and the derived {'PSK' if len(self.derived_psks) == 1 else 'PSKs'} of {_named(self.derived_psks)} "
            )
            text += "cannot be made again"
        return text + "."


def dependents_of(target: Target, label: str) -> Dependents | None:
    """Return who depends on the key `label`; None where no gateway file was given."""
    if target.gateway is None:
        return None
    from wghsm.cli._admin import running_gateways
    from wghsm.config import PskDerived

    gateway = target.gateway
    if gateway.interface.key != label:
        return Dependents(None, running=False, peers=(), derived_psks=())
    return Dependents(
        gateway.interface.name,
        running=gateway.interface.name in running_gateways(),
        peers=tuple(peer.name for peer in gateway.peers),
        derived_psks=tuple(peer.name for peer in gateway.peers if isinstance(peer.preshared_key, PskDerived)),
    )


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{len(names)} {'peer' if len(names) == 1 else 'peers'} ({shown})"
