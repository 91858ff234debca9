"""What to say about a key that the schema does not have. Called by `_load`."""

import difflib
import re

from pydantic import BaseModel

from wghsm.config._model import Audit, Clients, Gateway, Interface, Peer, Policy, Token, Tunnel, Users

__all__ = ["section", "unknown_key"]

_SECTIONS: dict[str, type[BaseModel]] = {
    "": Gateway,
    "token": Token,
    "interface": Interface,
    "peers": Peer,
    "clients": Clients,
    "policy": Policy,
    "audit": Audit,
    "tunnel": Tunnel,
    "users": Users,
}

_KNOWN_MISTAKES = {
    "privatekey": "keep the private key in the token; interface.key names its label",
    "pin": "write pin-source=file:PATH in token.uri; a PIN has no place in this file",
    "pinvalue": "write pin-source=file:PATH in token.uri; a PIN has no place in this file",
    "address": "write addresses: [ADDRESS/LENGTH, ...] under interface:",
    "publickey": "write public_key: under the peer; the gateway's own comes from the token",
    "presharedkey": "write preshared_key: derived, wrapped:FILE, object:LABEL or none under the peer",
    "psk": "write preshared_key: derived, wrapped:FILE, object:LABEL or none under the peer",
    "peer": "write peers: and a list of peers",
    "module": "write module-path= in token.uri",
    "dns": "write dns: under clients: for the files of clients; the gateway's own resolver is not wghsm's matter",
    "postup": "leave it out: wghsm runs no commands; use a systemd unit",
    "postdown": "leave it out: wghsm runs no commands; use a systemd unit",
    "saveconfig": "leave it out: what is set at run time is not written into this file",
}


def section(loc: tuple[str | int, ...]) -> str:
    """The section that a path lies in, as _SECTIONS names it."""
    return str(loc[0]) if loc and str(loc[0]) in _SECTIONS else ""


def unknown_key(loc: tuple[str | int, ...]) -> tuple[str, str]:
    """Message and remedy for the unknown key at `loc`. The key is not repeated where it may be a secret."""
    key, where = str(loc[-1]), section(loc[:-1])
    fields = list(_SECTIONS[where].model_fields)
    place = {"": "at the top of the file", "peers": "in a peer"}.get(where, f"under {where}:")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,29}", key):
        return f"an unknown key {place} (not shown)", "known here: " + ", ".join(fields)
    message = f"unknown key {key} {place}"
    plain = _plain(key)
    by_plain = {_plain(name): name for name in fields}
    near = difflib.get_close_matches(plain, by_plain, n=1, cutoff=0.7)
    if plain in _KNOWN_MISTAKES and plain not in by_plain:
        return message, _KNOWN_MISTAKES[plain]
    if near:
        return message, f"write {by_plain[near[0]]}"
    for other, model in _SECTIONS.items():
        for name in model.model_fields:
            if _plain(name) == plain:
                home = {"": "at the top of the file", "peers": "in a peer of peers:"}.get(other, f"under {other}:")
                return message, f"move it: {name} belongs {home}"
    return message, "remove it; known here: " + ", ".join(fields)


def _plain(key: str) -> str:
    return re.sub(r"[_.-]", "", key).lower()
