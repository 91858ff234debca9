"""Putting an inventory together: gateway files, what tokens say, what was noted -> items. Pure.

objects of each token -> what the files use them for, who depends on them
peers of each file    -> their PSKs that are in no token: derived, wrapped
each item             -> made, last used, limit -> rotation
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from wghsm.config import Gateway, Peer, PskDerived, PskNone, PskObject, PskWrapped
from wghsm.inventory.model import Inventory, Item, Kind, Origin, TokenSeen
from wghsm.inventory.notes import Notes, Seen, first_export

__all__ = ["Asked", "Known", "build"]


@dataclass(frozen=True)
class Asked:
    """One token and what it answered. `keys` and `secrets` are the reports of pkcs11_backend.provision in JSON values,
    keys with `custody` and base64 public keys; `wrap_keys` are the labels of keys that wrap PSKs.
    """

    uri: str
    name: str
    keys: Sequence[Mapping[str, Any]] = ()
    secrets: Sequence[Mapping[str, Any]] = ()
    error: str = ""


@dataclass(frozen=True)
class Known:
    """One gateway file, the tokens that it names, what was noted of it, and the newest epochs of its wrapped PSKs."""

    gateway: Gateway
    uris: Sequence[str]
    notes: Notes = field(default_factory=Notes)
    epochs: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The interface's."""
        return self.gateway.interface.name


@dataclass
class _Use:
    """What the files use a label for, and which of them do."""

    files: list[Known] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    peers: list[tuple[Known, Peer]] = field(default_factory=list)


def build(known: Sequence[Known], asked: Sequence[Asked], now: float) -> Inventory:
    """The inventory at Unix time `now`."""
    items = [item for token in asked for item in _objects(token, known, now)]
    for one in known:
        items += _missing(one, asked)
        items += _outside(one, asked, items, now)
    return Inventory(
        time=_rfc3339(now),
        gateways=sorted({one.name for one in known}),
        tokens=[
            TokenSeen(
                uri=token.uri,
                name=token.name,
                gateways=sorted({one.name for one in known if token.uri in one.uris}),
                error=token.error,
            )
            for token in asked
        ],
        items=items,
        peers_without_psk=[
            f"{one.name}/{peer.name}"
            for one in known
            for peer in one.gateway.peers
            if isinstance(peer.preshared_key, PskNone)
        ],
        due=sum(item.rotation == "due" for item in items),
        age_unknown=sum(item.rotation == "age-unknown" for item in items),
        missing=sum(item.rotation == "missing" for item in items),
    )


def _objects(token: Asked, known: Sequence[Known], now: float) -> Iterator[Item]:
    users = [one for one in known if token.uri in one.uris]
    wrap_labels = {one.gateway.token.psk_wrap_key for one in users}
    for report in token.keys:
        kind: Kind = "key" if report["dialect"] else "audit-key" if report["attributes"].get("SIGN") else "other"
        public = None if report["public_key"] is None else base64.b64decode(report["public_key"])
        use = _used(users, report["label"])
        if kind == "audit-key":
            own = [one.notes.sealed for one in use.files if one.notes.sealed is not None]
        else:
            own = [seen for one in users if public is not None and (seen := one.notes.keys.get(public)) is not None]
        item = _object(token, report, kind, use)
        yield _judged(item, _made(report), max(own, key=_at, default=None), use.files, now)
    for report in token.secrets:
        kind = (
            "psk-wrap-key"
            if report["label"] in wrap_labels
            else report["kind"]
            if report["kind"] in ("psk-root", "psk")
            else "other"
        )
        use = _used(users, report["label"])
        heard = [seen for one, peer in use.peers if (seen := one.notes.peers.get(peer.public_key)) is not None]
        made = _made(report)
        if kind == "psk" and made is None:
            made = next((seen for one, peer in use.peers if (seen := _since(one, peer, "object", 0))), None)
        item = _object(token, report, kind, use)
        yield _judged(item, made, max(heard, key=_at, default=None), use.files, now)


def _object(token: Asked, report: Mapping[str, Any], kind: Kind, use: _Use) -> Item:
    return Item(
        kind=kind,
        label=report["label"],
        token=token.name,
        stored="token",
        roles=use.roles,
        peers=[f"{one.name}/{peer.name}" for one, peer in use.peers],
        origin=_origin(report["attributes"]),
        id=report["id"] or None,
        public_key=report.get("public_key"),
        custody=report.get("custody"),
        attributes=dict(report["attributes"]),
    )


def _used(users: Sequence[Known], label: str) -> _Use:
    use = _Use()
    for one in users:
        before = len(use.roles)
        for role, named, depends in _roles(one):
            if named == label:
                use.roles.append(f"{role} of {one.name}")
                use.peers += [(one, peer) for peer in one.gateway.peers if depends(peer)]
        for peer in one.gateway.peers:
            if isinstance(peer.preshared_key, PskObject) and peer.preshared_key.label == label:
                use.roles.append(f"PSK of {one.name}/{peer.name}")
                use.peers.append((one, peer))
        if len(use.roles) > before:
            use.files.append(one)
    return use


def _roles(one: Known) -> Iterator[tuple[str, str | None, Callable[[Peer], bool]]]:
    own, token = one.gateway.interface, one.gateway.token
    yield "key", own.key, lambda _: True
    yield "previous key", own.previous_key, lambda _: True
    yield "PSK root", token.psk_root, lambda peer: isinstance(peer.preshared_key, PskDerived)
    yield "PSK wrapping key", token.psk_wrap_key, lambda peer: isinstance(peer.preshared_key, PskWrapped)
    yield "audit key", one.gateway.audit.key, lambda _: False


def _missing(one: Known, asked: Sequence[Asked]) -> Iterator[Item]:
    """What the file names and a token that was asked does not have."""
    labels: dict[str, Kind] = {}
    kinds: dict[str, Kind] = {
        "key": "key",
        "previous key": "key",
        "PSK root": "psk-root",
        "PSK wrapping key": "psk-wrap-key",
        "audit key": "audit-key",
    }
    for role, label, _ in _roles(one):
        if label is not None:
            labels[label] = kinds[role]
    for peer in one.gateway.peers:
        if isinstance(peer.preshared_key, PskObject):
            labels[peer.preshared_key.label] = "psk"
    for token in asked:
        if token.error or token.uri not in one.uris:
            continue
        there = {report["label"] for report in (*token.keys, *token.secrets)}
        for label, kind in labels.items():
            if label not in there:
                use = _used([one], label)
                yield Item(
                    kind=kind,
                    label=label,
                    token=token.name,
                    stored="token",
                    roles=use.roles,
                    peers=[f"{each.name}/{peer.name}" for each, peer in use.peers],
                    origin="not-stated",
                    rotation="missing",
                )


def _outside(one: Known, asked: Sequence[Asked], items: Sequence[Item], now: float) -> Iterator[Item]:
    """The PSKs that no token holds."""
    first = next((token for token in asked if token.uri in one.uris and not token.error), None)
    own, section = one.gateway.interface, one.gateway.token
    dates = {
        item.label: Seen(_unix(item.made), f"{item.made_from} of {item.label}")
        for item in items
        if first is not None and item.token == first.name and item.stored == "token" and item.made is not None
    }
    for peer in one.gateway.peers:
        psk, key = peer.preshared_key, base64.b64encode(peer.public_key).decode()
        if isinstance(psk, PskDerived):
            # It cannot be older than what it is made from, and is another one with each key and root.
            floor = [dates.get(label) for label in (own.key, section.psk_root or "")]
            made = _since(one, peer, "derived", psk.epoch) or first_export(
                one.notes,
                {"kind": "derived", "epoch": psk.epoch, "public_key": key, "key": own.key, "root": section.psk_root},
            )
            known_floor = [each for each in floor if each is not None]
            if made is not None or len(known_floor) == 2:
                made = max([*known_floor, *([] if made is None else [made])], key=_at)
            label, origin = f"derived:{psk.epoch}", "derived"
        elif isinstance(psk, PskWrapped):
            epoch = one.epochs.get(str(psk.file))
            wanted = {"kind": "wrapped", "epoch": epoch, "public_key": key}
            made = None if epoch is None else _since(one, peer, "wrapped", epoch) or first_export(one.notes, wanted)
            label, origin = f"wrapped:{psk.file}", "outside"
        else:
            continue
        item = Item(
            kind="psk",
            label=label,
            token="" if first is None else first.name,
            stored="derived" if origin == "derived" else "wrapped",
            roles=[f"PSK of {one.name}/{peer.name}"],
            peers=[f"{one.name}/{peer.name}"],
            origin="derived" if origin == "derived" else "outside",
        )
        yield _judged(item, made, one.notes.peers.get(peer.public_key), [one], now)


def _since(one: Known, peer: Peer, kind: str, epoch: int) -> Seen | None:
    """Since when the custodian knows this PSK as the file's."""
    found = one.notes.psks.get((peer.public_key, kind))
    return found[1] if found is not None and found[0] == epoch else None


def _judged(item: Item, made: Seen | None, used: Seen | None, users: Sequence[Known], now: float) -> Item:
    limits = [
        limit
        for one in users
        if (limit := one.gateway.policy.psk_max_age if item.kind == "psk" else one.gateway.policy.key_max_age)
        is not None
    ]
    limit = min(limits, default=None)
    age = None if made is None else max(0, int(now - made.at))
    if not item.roles:
        rotation = "unused"
    elif limit is None:
        rotation = "no-limit"
    elif age is None:
        rotation = "age-unknown"
    else:
        rotation = "due" if age >= limit else "ok"
    return msgspec.structs.replace(
        item,
        made=None if made is None else _rfc3339(made.at),
        made_from=None if made is None else made.source,
        age=age,
        last_used=None if used is None else _rfc3339(used.at),
        last_used_from=None if used is None else used.source,
        max_age=limit,
        due=None if made is None or limit is None else _rfc3339(made.at + limit),
        rotation=rotation,
    )


def _origin(attributes: Mapping[str, bool | None]) -> Origin:
    """LOCAL false alone proves nothing, since NSS never sets it."""
    if attributes.get("LOCAL"):
        return "made-inside"
    if attributes.get("ALWAYS_SENSITIVE") is False:
        return "imported"
    return "not-stated"


def _made(report: Mapping[str, Any]) -> Seen | None:
    if report["made"] is None:
        return None
    when, source = report["made"]
    return Seen(_unix(when), str(source))


def _at(seen: Seen) -> float:
    return seen.at


def _unix(text: str | None) -> float:
    return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
