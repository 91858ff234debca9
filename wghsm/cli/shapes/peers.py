"""`wghsm peer ... --json`."""

from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from . import said
from .psks import PskKind

__all__ = ["InForce", "PeerAdded", "PeerChanged", "PeerConfig", "PeerShown", "TimestampForgotten"]


class PeerShown(Struct, frozen=True, kw_only=True):
    """A peer of the gateway file, with what the running gateway knows of it; null where it does not run."""

    name: Annotated[str, said("its name in the gateway file")]
    public_key: Annotated[str, said("base64")]
    state: Annotated[
        Literal["active", "disabled", "expired", "not loaded"],
        said("not loaded: the running gateway has not read the file since, and does otherwise"),
    ]
    allowed_ips: Annotated[list[str], said("its prefixes")]
    preshared_key: Annotated[str, said("as the gateway file says it; never the PSK")]
    expires: Annotated[str | None, said("when it is out, in UTC; null: never")]
    note: Annotated[str | None, said("a few words")]
    tags: Annotated[list[str], said("words to find it by")]
    endpoint: Annotated[str | None, said("where it was last heard, else as the file says; null: not known")]
    latest_handshake: Annotated[float | None, said("Unix time in seconds; null: none")]
    rx_bytes: Annotated[int | None, said("received from it since the gateway knows it")]
    tx_bytes: Annotated[int | None, said("sent to it since the gateway knows it")]


class InForce(Struct, frozen=True, kw_only=True):
    """How the running gateway took the change. The file is changed whatever it says."""

    state: Annotated[
        Literal["in-force", "not-running", "not-asked", "refused"], said("not-asked: --no-reload was given")
    ]
    text: Annotated[str, said("the same in words, with the reason where it refused")]


class PeerChanged(Struct, frozen=True, kw_only=True):
    """A peer that was changed in the gateway file."""

    peer: Annotated[str, said("its name, before it was renamed")]
    gateway_file: Annotated[str, said("the file that was written: the gateway file, or one that it includes")]
    gateway: Annotated[InForce, said("how the running gateway took it")]


class PeerConfig(Struct, frozen=True, kw_only=True):
    """The configuration of a client."""

    peer: Annotated[str, said("its name in the gateway file")]
    gateway_public_key: Annotated[str, said("base64")]
    files: Annotated[list[str], said("what was written: configuration, PNG, SVG")]
    config: Annotated[str | UnsetType, said("with --out -: the configuration itself, with its secrets")] = UNSET


class PeerAdded(Struct, frozen=True, kw_only=True):
    """A client that was added."""

    peer: Annotated[str, said("its name in the gateway file")]
    public_key: Annotated[str, said("base64")]
    allowed_ips: Annotated[list[str], said("its prefixes")]
    preshared_key: Annotated[PskKind, said("the kind of its PSK")]
    gateway_public_key: Annotated[str, said("base64")]
    gateway_file: Annotated[str, said("the file that was written: the gateway file, or one that it includes")]
    gateway: Annotated[InForce, said("how the running gateway took it")]
    files: Annotated[list[str], said("what was written: configuration, PNG, SVG")]
    config: Annotated[str | UnsetType, said("with --out -: the configuration itself, with its secrets")] = UNSET


class TimestampForgotten(Struct, frozen=True, kw_only=True):
    """A peer whose greatest timestamp was forgotten."""

    peer: Annotated[str, said("its name in the gateway file")]
    public_key: Annotated[str, said("base64")]
    result: Annotated[str, said("how it was done, in words")]
