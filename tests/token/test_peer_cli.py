"""`wghsm peer add|config` with a token in a store of another uid: every kind of PSK, and nothing left of a failure."""

from __future__ import annotations

import base64
import configparser
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.token.command import run
from tests.unit.cli.qr import of_png, of_svg, of_terminal
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def made() -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100) as token:
        yield token


@pytest.fixture(scope="module")
def gateway_key(made: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The gateway's public key; root and wrapping key are made as well."""
    path = write(made, tmp_path_factory.mktemp("keys"))
    for words in (["psk", "derive-root"], ["psk", "wrap", "--make-key"]):
        run(made, *words, "-c", str(path), "--json")
    public = json.loads(run(made, "key", "generate", "-c", str(path), "--json").stdout)["public_key"]
    assert json.loads(run(made, "key", "public", "-c", str(path), "--json").stdout)["public_key"] == public
    return str(public)


@pytest.fixture
def file(made: SoftHsmToken, gateway_key: str, tmp_path: Path) -> Path:
    assert gateway_key
    return write(made, tmp_path)


def write(made: SoftHsmToken, folder: Path) -> Path:
    path = folder / "wg0.yaml"
    path.write_text(
        f"""\
# The gateway of the tests.
version: 1
state_directory: {folder}/state
token:
  uri: "{made.uri}"
  psk_root: root
  psk_wrap_key: wrap
interface:
  name: wgnone0
  key: gateway
  addresses: [10.8.0.1/24, "fd08::1/64"]
clients:
  endpoint: vpn.example.org:51820   # in DNS
"""
    )
    return path


def add(made: SoftHsmToken, file: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(made, "peer", "add", *words, "-c", str(file), code=code)


def parsed(text: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read_string(text)
    return read


def public_of(private: str) -> str:
    made = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return base64.b64encode(made.public_key().public_bytes_raw()).decode()


def exported(made: SoftHsmToken, file: Path, name: str) -> str:
    return run(made, "psk", "export", name, "-c", str(file), "--out", "-").stdout.strip()


@pytest.mark.parametrize("kind", ["derived", "wrapped", "object", "none"])
def test_a_client_with_a_key_made_here(made: SoftHsmToken, file: Path, gateway_key: str, kind: str) -> None:
    name, out = f"phone-{kind}", file.parent / "client.conf"
    done = add(made, file, name, "--generate-client-key", "--psk", kind, "--out", str(out))
    assert "PrivateKey" not in done.stdout + done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    read = parsed(out.read_text())
    (peer,) = load(file).peers
    assert base64.b64encode(peer.public_key).decode() == public_of(read["Interface"]["PrivateKey"])
    assert read["Interface"]["Address"] == "10.8.0.2/32, fd08::2/128"
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.8.0.2/32", "fd08::2/128"]
    assert read["Peer"]["PublicKey"] == gateway_key
    assert read["Peer"]["Endpoint"] == "vpn.example.org:51820"
    secret = read["Interface"]["PrivateKey"]
    if kind == "none":
        assert "PresharedKey" not in read["Peer"]
    else:
        assert read["Peer"]["PresharedKey"] == exported(made, file, name)
    for each in file.parent.rglob("*"):
        assert each == out or not each.is_file() or secret.encode() not in each.read_bytes(), each
    assert "# in DNS" in file.read_text()


def test_a_client_with_its_own_key_and_the_configuration_again(made: SoftHsmToken, file: Path) -> None:
    private = base64.b64encode(os.urandom(32)).decode()
    public = public_of(private)
    words = ("bob", "--public-key", public, "--expires", "2099-01-01", "--note", "his laptop", "--tag", "laptop")
    shown = json.loads(add(made, file, *words, "--out", "-", "--json", "--allowed-ip", "10.20.0.0/16").stdout)
    assert shown["allowed_ips"] == ["10.8.0.2/32", "fd08::2/128", "10.20.0.0/16"]
    assert shown["gateway"]["state"] == "not-running"
    read = parsed(shown["config"])
    assert "PrivateKey" not in read["Interface"]
    assert read["Interface"]["Address"] == "10.8.0.2/32, fd08::2/128"
    again = json.loads(run(made, "peer", "config", "bob", "-c", str(file), "--out", "-", "--json").stdout)
    assert again["config"] == shown["config"]
    (peer,) = load(file).peers
    assert (peer.note, peer.tags) == ("his laptop", ("laptop",))
    records = [json.loads(line) for line in (file.parent / "state/psk-exports.jsonl").read_text().splitlines()]
    assert [(record["peer"], record["to"]) for record in records] == [("bob", "peer add"), ("bob", "peer config")]
    assert add(made, file, "carol", "--generate-client-key", "--out", "-").stdout.count("10.8.0.3/32") == 1


def test_codes_read_as_the_file(made: SoftHsmToken, file: Path) -> None:
    out, png, svg = (file.parent / name for name in ("a.conf", "a.png", "a.svg"))
    files = ("--out", str(out), "--png", str(png), "--svg", str(svg))
    done = add(made, file, "phone", "--generate-client-key", "--qr", *files)
    text = out.read_text()
    assert of_terminal(done.stdout) == text
    assert of_png(png.read_bytes()) == text
    assert of_svg(svg.read_bytes()) == text
    assert {each.stat().st_mode & 0o777 for each in (out, png, svg)} == {0o600}


def test_a_terminal_is_shown_the_configuration_once(made: SoftHsmToken, file: Path) -> None:
    leader, follower = pty.openpty()
    words = ["peer", "add", "phone", "--generate-client-key", "-c", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words],
        env={**os.environ, **made.environment},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0, done.stderr
    assert shown.count("PrivateKey = ") == 1
    assert "PrivateKey = " not in file.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "whose key?"),
        (["x", "--generate-client-key", "--public-key", "A" * 44], "whose key?"),
        (["x", "--generate-client-key"], "standard output is no terminal"),
        (["x", "--generate-client-key", "--json"], "--json shows the configuration with --out - only"),
        (["x", "--generate-client-key", "--json", "--qr"], "--json shows the configuration with --out - only"),
        (["x", "--public-key", "abc", "--out", "-"], "44"),
        (["x", "--generate-client-key", "--out", "-", "--endpoint", "no where"], "--endpoint takes HOST:PORT"),
        (["x", "--generate-client-key", "--out", "-", "--address", "10.8.0.300"], "not an address"),
        (["x", "--generate-client-key", "--out", "-", "--expires", "soon"], "is no moment"),
        (["x", "--generate-client-key", "--out", "-", "--tag", "two words"], "is no tag"),
        (["x/y", "--generate-client-key", "--out", "-"], "cannot be named"),
    ],
)
def test_what_cannot_be_changes_nothing(made: SoftHsmToken, file: Path, words: list[str], said: str) -> None:
    before = file.read_bytes()
    done = add(made, file, *words, code=ExitCode.BAD_CONFIG)
    assert said in done.stderr
    assert done.stdout == ""
    assert file.read_bytes() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["wg0.yaml"]


def labels(made: SoftHsmToken) -> list[Any]:
    return [each["label"] for each in json.loads(run(made, "psk", "list", "--token", made.uri, "--json").stdout)]


@pytest.mark.parametrize("kind", ["wrapped", "object"])
def test_a_failure_on_the_way_leaves_nothing(made: SoftHsmToken, file: Path, kind: str) -> None:
    before = file.read_bytes()
    # The record of exports cannot be written, so nothing may be handed out.
    (file.parent / "state").write_text("in the way")
    known = labels(made)
    done = add(made, file, "late", "--generate-client-key", "--psk", kind, "--out", str(file.parent / "c"), code=1)
    assert "nothing was handed out" in done.stderr
    assert file.read_bytes() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["state", "wg0.yaml"]
    assert labels(made) == known


def test_a_configuration_that_cannot_be_shown_leaves_nothing(made: SoftHsmToken, file: Path) -> None:
    before = file.read_bytes()
    words = ["peer", "add", "lost", "--generate-client-key", "--out", "-", "-c", str(file)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -m wghsm "$@" >/dev/full', "sh", *words],
        env={**os.environ, **made.environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "wghsm: standard output: No space left on device\n")
    assert file.read_bytes() == before


def test_a_moment_that_is_past_is_told(made: SoftHsmToken, file: Path) -> None:
    done = add(made, file, "late", "--generate-client-key", "--expires", "2020-01-01", "--out", str(file.parent / "c"))
    assert "it has expired already, at 2020-01-01T00:00:00Z; give it another moment: wghsm peer expire" in done.stderr
    done = add(made, file, "guest", "--generate-client-key", "--expires", "7d", "--out", str(file.parent / "d"))
    assert "has expired already" not in done.stderr


def test_a_file_that_is_there_stays(made: SoftHsmToken, file: Path) -> None:
    (file.parent / "c").write_text("mine")
    add(made, file, "x", "--generate-client-key", "--out", str(file.parent / "c"), code=1)
    assert (file.parent / "c").read_text() == "mine"
    assert not load(file).peers


def test_peers_beside_the_gateway_file_get_files_of_their_own(made: SoftHsmToken, file: Path) -> None:
    (file.parent / "peers.d").mkdir()
    file.write_text(file.read_text() + "include: [peers.d]\n")
    before = file.read_bytes()
    add(made, file, "first phone", "--generate-client-key", "--out", "-")
    add(made, file, "second", "--generate-client-key", "--out", "-")
    assert file.read_bytes() == before
    assert sorted(each.name for each in (file.parent / "peers.d").iterdir()) == ["first_phone.yaml", "second.yaml"]
    run(made, "peer", "remove", "second", "--yes", "-c", str(file))
    assert [peer.name for peer in load(file).peers] == ["first phone"]
