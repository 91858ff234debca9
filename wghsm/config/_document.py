"""A gateway's settings as plain data, in the shape of its file, and back: what one program tells another of them.

    Gateway -> to_document -> dict of text, numbers and lists (JSON) -> from_document -> an equal Gateway

Called by the supervisor, which shows what it has loaded, and by `wghsm plan`. No secret is in a gateway's settings.
"""

import base64
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wghsm.config._model import Gateway
from wghsm.config._psk import PskDerived, PskNone, PskObject, PskWrapped

__all__ = ["from_document", "to_document", "written"]

_WRAPPED = "wrapped:"


def to_document(gateway: Gateway) -> dict[str, Any]:
    """Every setting of the gateway, those that were left out in the file as well."""
    return _section(gateway)


def from_document(document: Mapping[str, Any]) -> Gateway:
    """The gateway of a document that `to_document` made. Raises pydantic's ValidationError for any other."""
    peers = [
        # Absolute by now, and so perhaps longer than a file may write it.
        {**peer, "preshared_key": PskWrapped(Path(peer["preshared_key"].removeprefix(_WRAPPED)))}
        if str(peer["preshared_key"]).startswith(_WRAPPED)
        else peer
        for peer in document["peers"]
    ]
    return Gateway.model_validate({**document, "peers": peers})


def written(value: object) -> Any:
    """One value as a gateway file could write it: text, number, true or false, none, or a list."""
    match value:
        case None | bool() | int() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case tuple():
            return [written(each) for each in value]
        case BaseModel():
            return _section(value)
        case PskNone():
            return "none"
        case PskDerived():
            return f"derived:{value.epoch}" if value.epoch else "derived"
        case PskObject():
            return f"object:{value.label}"
        case PskWrapped():
            return f"{_WRAPPED}{value.file}"
        case _:
            return str(value)


def _section(section: BaseModel) -> dict[str, Any]:
    return {name: written(getattr(section, name)) for name in type(section).model_fields}
