"""`wghsm inventory` as an operator runs it, with two tokens in a store of another uid."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.json_output import check_json
from wghsm.exits import ExitCode
from wghsm.inventory import Inventory
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def made() -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100) as token:
        yield token


@pytest.fixture(scope="module")
def gateway(made: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gateway")
    peers = "".join(
        f"- {{name: {name}, preshared_key: {psk}, allowed_ips: [], public_key: "
        f"{base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()}}}\n"
        for name, psk in (("alice", "derived"), ("bob", "object:bob-psk"), ("carol", "wrapped:carol.psk"))
    )
    path = folder / "wg0.yaml"
    path.write_text(
        f"version: 1\nstate_directory: {folder}/state\n"
        f'token: {{uri: "{made.uri}", psk_root: root, psk_wrap_key: wrap}}\n'
        f"interface: {{name: wg-inventory, key: gateway}}\npolicy: {{key_max_age: 1d, psk_max_age: 0d}}\n"
        f"peers:\n{peers}"
    )
    for words in (["key", "generate"], ["psk", "derive-root"], ["psk", "wrap", "--make-key"]):
        assert _run(made, *words, "-c", str(path)).returncode == 0
    psk = base64.b64encode(bytes(range(32)))
    assert _run(made, "psk", "put", "bob-psk", "-c", str(path), given=psk).returncode == 0
    assert _run(made, "psk", "wrap", "carol", "-c", str(path), given=psk).returncode == 0
    imported = base64.b64encode(X25519PrivateKey.generate().private_bytes_raw())
    assert _run(made, "key", "import", "stray", "-c", str(path), given=imported).returncode == 0
    return path


def _run(made: SoftHsmToken, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words],
        env={**os.environ, **made.environment},
        input=given,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    check_json(words, done.stdout)
    return done


def _inventory(made: SoftHsmToken, *words: str) -> tuple[int, Any]:
    done = _run(made, "inventory", "--json", *words)
    msgspec.json.decode(done.stdout, type=Inventory)
    return done.returncode, json.loads(done.stdout)


def test_what_is_in_the_token_and_beside_it(made: SoftHsmToken, gateway: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "wghsm.prom"
    code, found = _inventory(made, "-c", str(gateway), "--prometheus", str(metrics))
    assert code == ExitCode.ROTATION_DUE
    items = {item["label"].partition(":")[0]: item for item in found["items"]}
    assert {label: (item["kind"], item["origin"], item["rotation"]) for label, item in items.items()} == {
        "gateway": ("key", "made-inside", "ok"),
        "stray": ("key", "imported", "unused"),
        "root": ("psk-root", "made-inside", "ok"),
        "wrap": ("psk-wrap-key", "made-inside", "ok"),
        "bob-psk": ("psk", "imported", "due"),
        "derived": ("psk", "derived", "due"),
        "wrapped": ("psk", "outside", "age-unknown"),
    }
    assert items["gateway"]["made_from"] == "CKA_ID"
    assert items["gateway"]["custody"] == "never-outside"
    assert found["due"] == 2
    assert "wghsm_inventory_due 2.0" in metrics.read_text()


def test_the_table_is_for_people(made: SoftHsmToken, gateway: Path) -> None:
    done = _run(made, "inventory", "-c", str(gateway))
    assert done.returncode == ExitCode.ROTATION_DUE
    text = done.stdout.decode()
    assert "7 items, 2 due, 1 with a limit but of unknown age" in text
    (line,) = [line for line in text.splitlines() if "bob-psk" in line]
    assert "DUE since" in line
    assert "PSK of wg-inventory/bob" in line


def test_a_token_that_is_away_is_told_and_the_rest_is_listed(made: SoftHsmToken, gateway: Path) -> None:
    other = gateway.with_name("wg1.yaml")
    other.write_text(
        gateway.read_text().replace("token=gw", "token=gone").replace("wg-inventory", "wg-other").replace("1d", "2d")
    )
    code, found = _inventory(made, "-c", str(gateway), "-c", str(other))
    assert code == ExitCode.TOKEN_UNUSABLE
    assert [bool(token["error"]) for token in found["tokens"]] == [False, True]
    assert {item["label"] for item in found["items"]} >= {"gateway", "root"}


def test_the_schema_is_one_of_json(made: SoftHsmToken) -> None:
    done = _run(made, "inventory", "--schema")
    assert json.loads(done.stdout)["$ref"] == "#/$defs/Inventory"
