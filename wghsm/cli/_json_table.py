"""Which command prints which shape (wghsm/cli/shapes) with --json, and its JSON Schema.

Called by `wghsm schema --output`, and by `_json_page`, which makes docs/json.md of it. Tests hold the table to the
commands that have --json, and what they print to its shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wghsm.audit import Record
from wghsm.cli.shapes import audits, gateways, keys, peers, psks, tokens
from wghsm.inventory import Inventory

__all__ = ["OUTPUTS", "VERSION", "Output", "schema"]

VERSION = 1
"""Raised when a field goes, gets another name or type, or may be missing or null where it could not be."""

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Output:
    """What a command prints: one document of this shape, or with `lines` one on each line."""

    shape: Any
    lines: bool = False


OUTPUTS: Mapping[str, Output] = {
    "init": Output(gateways.Initialised),
    "token init": Output(tokens.TokenMade),
    "token list": Output(list[tokens.TokenDescribed]),
    "token show": Output(tokens.TokenDescribed),
    "token doctor": Output(tokens.DoctorReport),
    "key generate": Output(keys.KeyReported),
    "key import": Output(keys.KeyImported),
    "key list": Output(list[keys.KeySeen]),
    "key show": Output(keys.KeyShown),
    "key public": Output(keys.KeyPublic),
    "key backup": Output(keys.KeyBackedUp),
    "key restore": Output(keys.KeyReported),
    "key destroy": Output(keys.KeyDestroyed),
    "key rotate": Output(keys.KeyRotated),
    "key retire": Output(keys.KeyRetired),
    "psk derive-root": Output(psks.SecretReported),
    "psk put": Output(psks.PskStored),
    "psk list": Output(list[psks.SecretSeen]),
    "psk list --peers": Output(list[psks.PskOfPeer]),
    "psk destroy": Output(psks.PskDestroyed),
    "psk export": Output(psks.PskExported),
    "psk rotate": Output(psks.PskRotated),
    "psk wrap": Output(psks.PskSealed),
    "psk wrap --make-key": Output(psks.WrapKeyMade),
    "audit key generate": Output(list[keys.AuditKeyShown]),
    "audit key public": Output(list[keys.AuditKeyShown]),
    "audit show": Output(Record, lines=True),
    "audit verify": Output(audits.LogsVerified),
    "ceremony verify": Output(audits.CeremonyVerified),
    "peer add": Output(peers.PeerAdded),
    "peer config": Output(peers.PeerConfig),
    "peer list": Output(list[peers.PeerShown]),
    "peer show": Output(peers.PeerShown),
    "peer disable": Output(peers.PeerChanged),
    "peer enable": Output(peers.PeerChanged),
    "peer expire": Output(peers.PeerChanged),
    "peer rename": Output(peers.PeerChanged),
    "peer set": Output(peers.PeerChanged),
    "peer remove": Output(peers.PeerChanged),
    "peer reset-timestamp": Output(peers.TimestampForgotten),
    "import": Output(gateways.Imported),
    "export": Output(gateways.Exported),
    "check": Output(gateways.Checked),
    "up": Output(gateways.Started),
    "plan": Output(gateways.Planned),
    "reload": Output(gateways.Reloaded),
    "status": Output(list[gateways.GatewayStatus]),
    "rekey": Output(gateways.Rekeyed),
    "inventory": Output(Inventory),
}
"""By the command's words, with an option where that changes what is printed."""


def schema(command: str) -> dict[str, Any]:
    """The JSON Schema of what `command` prints with --json. Raises KeyError."""
    output = OUTPUTS[command]
    # Fields may be added within a version, so nothing forbids those that are not known.
    return {
        "$schema": _DRAFT,
        "$id": f"urn:wghsm:json:{VERSION}:{command.replace(' --', '-').replace(' ', '-')}",
        "title": f"wghsm {command} --json, version {VERSION}" + (", each line" if output.lines else ""),
        **msgspec.json.schema(output.shape),
    }
