"""What an inventory makes of gateway files, tokens and notes."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.inventory.samples import DAY, KEYS, NOW, OWN, URI, gateway, key, secret
from wghsm.inventory import Asked, Inventory, Item, Known, Notes, Seen, TokenSeen, build, json_schema, write_metrics

if TYPE_CHECKING:
    from wghsm.config import Gateway

DOCS = Path(__file__).parents[3] / "docs" / "inventory.md"


def _ago(days: float) -> tuple[str, str]:
    return datetime.fromtimestamp(NOW - days * DAY, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "CKA_ID"


def _token(*, key_age: float = 10, root_age: float = 20) -> Asked:
    return Asked(
        URI,
        "'gw'",
        [key("gateway", _ago(key_age)), key("before", _ago(800)), key("stray")],
        [
            secret("root", "psk-root", _ago(root_age)),
            secret("wrap", "other"),
            secret("bob-psk", "psk", _ago(5), ALWAYS_SENSITIVE=False, LOCAL=False),
        ],
    )


def _known(file: Gateway, notes: Notes | None = None) -> Known:
    epochs = {str(peer.preshared_key.file): 4 for peer in file.peers if hasattr(peer.preshared_key, "file")}
    return Known(file, file.token.in_order, notes or Notes(), epochs)


def _by_label(found: Inventory) -> dict[str, Item]:
    return {item.label if item.stored != "wrapped" else "wrapped": item for item in found.items}


def test_every_key_and_psk_is_there_with_who_uses_it() -> None:
    items = _by_label(build([_known(gateway())], [_token()], NOW))
    assert {label: (item.kind, item.roles) for label, item in items.items()} == {
        "gateway": ("key", ["key of wg0"]),
        "before": ("key", ["previous key of wg0"]),
        "stray": ("key", []),
        "root": ("psk-root", ["PSK root of wg0"]),
        "wrap": ("psk-wrap-key", ["PSK wrapping key of wg0"]),
        "bob-psk": ("psk", ["PSK of wg0/bob"]),
        "derived:2": ("psk", ["PSK of wg0/alice"]),
        "wrapped": ("psk", ["PSK of wg0/carol"]),
    }
    assert items["gateway"].peers == [f"wg0/{name}" for name in KEYS]
    assert (items["root"].peers, items["wrap"].peers, items["stray"].peers) == (["wg0/alice"], ["wg0/carol"], [])
    assert items["stray"].rotation == "unused"
    assert {items[name].origin for name in ("gateway", "root")} == {"made-inside"}
    assert [items[name].origin for name in ("bob-psk", "derived:2", "wrapped")] == ["imported", "derived", "outside"]


def test_peers_without_a_psk_are_named() -> None:
    assert build([_known(gateway())], [_token()], NOW).peers_without_psk == ["wg0/dora"]


def test_without_a_policy_nothing_is_due() -> None:
    found = build([_known(gateway())], [_token()], NOW)
    assert (found.due, found.age_unknown) == (0, 0)
    assert {item.rotation for item in found.items} == {"no-limit", "unused"}


def test_what_is_due_by_the_policy() -> None:
    found = build([_known(gateway("{key_max_age: 365d, psk_max_age: 6d}"))], [_token()], NOW)
    items = _by_label(found)
    assert {label: item.rotation for label, item in items.items()} == {
        "gateway": "ok",
        "before": "due",
        "stray": "unused",
        "root": "ok",
        "wrap": "age-unknown",
        "bob-psk": "ok",
        # No younger than the younger of what it is made from.
        "derived:2": "due",
        "wrapped": "age-unknown",
    }
    assert (found.due, found.age_unknown) == (2, 2)
    assert items["derived:2"].made == _ago(10)[0]
    assert items["derived:2"].made_from == "CKA_ID of gateway"
    assert items["bob-psk"].due == _ago(-1)[0]


def test_the_custodian_knows_since_when_an_epoch_is_the_files() -> None:
    notes = Notes(
        psks={
            (KEYS["alice"], "derived"): (2, Seen(NOW - 3 * DAY, "state file")),
            (KEYS["carol"], "wrapped"): (3, Seen(NOW - 3 * DAY, "state file")),
        }
    )
    items = _by_label(build([_known(gateway(), notes)], [_token()], NOW))
    assert (items["derived:2"].age, items["derived:2"].made_from) == (3 * DAY, "state file")
    # It knows another epoch than the file's.
    assert items["wrapped"].age is None


def test_another_key_makes_another_derived_psk() -> None:
    notes = Notes(psks={(KEYS["alice"], "derived"): (2, Seen(NOW - 90 * DAY, "state file"))})
    items = _by_label(build([_known(gateway(), notes)], [_token(key_age=1)], NOW))
    assert (items["derived:2"].age, items["derived:2"].made_from) == (DAY, "CKA_ID of gateway")


def test_the_first_export_of_a_psk_dates_it() -> None:
    record: dict[str, object] = {"kind": "wrapped", "epoch": 4, "public_key": base64.b64encode(KEYS["carol"]).decode()}
    notes = Notes(exports=[{**record, "time": when} for when in (_ago(3)[0], _ago(7)[0], _ago(5)[0], "?")])
    items = _by_label(build([_known(gateway(), notes)], [_token()], NOW))
    assert (items["wrapped"].age, items["wrapped"].made_from) == (7 * DAY, "first export")


def test_a_psk_was_last_used_with_its_peer_and_a_key_with_any() -> None:
    notes = Notes()
    notes.saw_peer(KEYS["alice"], OWN, Seen(NOW - 50, "state file"))
    notes.saw_peer(KEYS["alice"], OWN, Seen(NOW - 5, "running gateway"))
    notes.saw_peer(KEYS["alice"], OWN, Seen(NOW - 20, "state file"))
    notes.saw_peer(KEYS["bob"], None, Seen(NOW - 7, "state file"))
    items = _by_label(build([_known(gateway(), notes)], [_token()], NOW))
    moments = {label: item.last_used for label, item in items.items()}
    assert moments["derived:2"] == moments["root"] == moments["gateway"] == _ago(5 / DAY)[0]
    assert items["derived:2"].last_used_from == "running gateway"
    assert moments["bob-psk"] == _ago(7 / DAY)[0]
    assert moments["wrap"] is moments["wrapped"] is None


def test_what_a_file_names_and_the_token_lacks_is_missing() -> None:
    found = build([_known(gateway())], [Asked(URI, "'gw'", [key("gateway")], [])], NOW)
    assert {item.label for item in found.items if item.rotation == "missing"} == {"before", "root", "wrap", "bob-psk"}
    assert found.missing == 4


def test_of_a_token_that_could_not_be_asked_nothing_is_missing() -> None:
    found = build([_known(gateway())], [Asked(URI, "'gw'", error="it is away")], NOW)
    assert found.missing == 0
    assert [token.error for token in found.tokens] == ["it is away"]
    assert {item.kind for item in found.items} == {"psk"}


def test_two_gateways_may_share_a_key_and_the_stricter_limit_counts() -> None:
    files = [_known(gateway("{key_max_age: 30d}")), _known(gateway("{key_max_age: 9d}", "wg1"))]
    item = _by_label(build(files, [_token()], NOW))["gateway"]
    assert item.roles == ["key of wg0", "key of wg1"]
    assert (item.max_age, item.rotation) == (9 * DAY, "due")


@given(age=st.integers(0, 4000), limit=st.integers(0, 3650))
def test_due_is_what_has_reached_its_limit(age: int, limit: int) -> None:
    found = build([_known(gateway(f"{{key_max_age: {limit}d}}"))], [_token(key_age=age)], NOW)
    item = _by_label(found)["gateway"]
    assert (item.rotation == "due") == (age >= limit)
    assert found.due == sum(each.rotation == "due" for each in found.items)


def test_the_document_fits_its_schema_and_its_page() -> None:
    found = build([_known(gateway("{key_max_age: 1d}"))], [_token()], NOW)
    assert msgspec.json.decode(json.dumps(msgspec.to_builtins(found)), type=Inventory) == found
    assert json_schema()["$defs"]["Item"]["properties"].keys() == set(Item.__struct_fields__)
    cells = re.findall(r"^\| (`[^|]+) \|", DOCS.read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell) if not name.startswith("wghsm_")}
    assert named == {name for each in (Inventory, Item, TokenSeen) for name in each.__struct_fields__}


def test_the_metrics(tmp_path: Path) -> None:
    path = tmp_path / "wghsm.prom"
    write_metrics(build([_known(gateway("{key_max_age: 365d, psk_max_age: 6d}"))], [_token()], NOW), path)
    lines = path.read_text().splitlines()
    assert 'wghsm_inventory_rotation_due{kind="key",label="before",peer="",token="\'gw\'"} 1.0' in lines
    assert 'wghsm_inventory_age_seconds{kind="psk",label="bob-psk",peer="wg0/bob",token="\'gw\'"} 432000.0' in lines
    assert not any(line.startswith("wghsm_inventory_age_seconds") and '"wrap"' in line for line in lines)
    assert "wghsm_inventory_due 2.0" in lines
    assert f"wghsm_inventory_timestamp_seconds {NOW / 1e9!r}e+09" in lines
    told = set(re.findall(r"`(wghsm_inventory_[a-z_]+)`", DOCS.read_text()))
    assert told == {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert [each.name for each in tmp_path.iterdir()] == ["wghsm.prom"]


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        ({"LOCAL": True, "ALWAYS_SENSITIVE": True}, "made-inside"),
        ({"LOCAL": False, "ALWAYS_SENSITIVE": False}, "imported"),
        ({"LOCAL": False, "ALWAYS_SENSITIVE": True}, "not-stated"),
        ({"LOCAL": None, "ALWAYS_SENSITIVE": None}, "not-stated"),
    ],
)
def test_where_a_key_comes_from(said: dict[str, bool | None], origin: str) -> None:
    found = build([_known(gateway())], [Asked(URI, "'gw'", [key("gateway", attributes=said)], [])], NOW)
    assert found.items[0].origin == origin


def test_a_key_that_signs_is_an_audit_key() -> None:
    report = key("seal", dialect=None, public_key=None, attributes={"SIGN": True, "LOCAL": True})
    found = build([_known(gateway())], [Asked(URI, "'gw'", [report], [])], NOW)
    assert (found.items[0].kind, found.items[0].roles) == ("audit-key", [])


def test_an_audit_key_is_used_when_it_seals() -> None:
    report = key("seal", dialect=None, public_key=None, attributes={"SIGN": True, "LOCAL": True})
    known = _known(gateway(audit="audit: {key: seal}\n"), Notes(sealed=Seen(NOW - 60, "audit log")))
    item = build([known], [Asked(URI, "'gw'", [report], [])], NOW).items[0]
    assert (item.kind, item.roles, item.last_used_from) == ("audit-key", ["audit key of wg0"], "audit log")
