"""`wghsm import` and `export` with a token in a store of another uid: keys in, file out, nothing left of a failure."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.token import command
from wghsm.config import PskNone, PskObject, PskWrapped, load
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

PSK = base64.b64encode(bytes(range(1, 33))).decode()


def key_pair() -> tuple[str, str]:
    made = X25519PrivateKey.generate()
    public = made.public_key().public_bytes_raw()
    return base64.b64encode(made.private_bytes_raw()).decode(), base64.b64encode(public).decode()


PRIVATE, PUBLIC = key_pair()
ALICE, BOB = key_pair()[1], key_pair()[1]
CONF = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.8.0.1/24, fd08::1/64
ListenPort = 51820
PostUp = sysctl -w net.ipv4.ip_forward=1

# alice
[Peer]
PublicKey = {ALICE}
PresharedKey = {PSK}
AllowedIPs = 10.8.0.2/32, fd08::2/128, 10.30.0.0/16

# bob
[Peer]
PublicKey = {BOB}
AllowedIPs = 10.8.0.3/32, 10.30.0.0/16
PersistentKeepalive = 25
"""


@pytest.fixture
def made() -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100) as token:
        yield token


def run(made: SoftHsmToken, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """As command.run, and no secret is shown."""
    done = command.run(made, *words, code=code)
    for secret in (PRIVATE, PSK):
        assert secret not in done.stdout + done.stderr
    return done


def write(folder: Path, text: str = CONF, name: str = "wg7.conf") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def secrets(made: SoftHsmToken) -> tuple[list[str], list[str]]:
    keys = json.loads(run(made, "key", "list", "--token", made.uri, "--json").stdout)
    psks = json.loads(run(made, "psk", "list", "--token", made.uri, "--json").stdout)
    return sorted(each["label"] for each in keys), sorted(each["label"] for each in psks)


def test_a_site_becomes_a_gateway_file_and_its_keys_go_into_the_token(made: SoftHsmToken, tmp_path: Path) -> None:
    source, out = write(tmp_path), tmp_path / "wg7.yaml"
    done = run(made, "import", str(source), "--out", str(out), "--token", made.uri)
    assert f"stays:\n{PUBLIC}\n" in done.stdout
    assert "line 5: PostUp: " in done.stdout
    assert "under hooks:" in done.stdout
    assert "10.30.0.0/16 is also bob's" in done.stdout
    assert "destroy every copy" in done.stderr
    gateway = load(out)
    assert (gateway.interface.name, gateway.interface.listen_port) == ("wg7", 51820)
    alice, bob = gateway.peers
    assert (alice.name, alice.preshared_key) == ("alice", PskObject("alice-psk"))
    assert (bob.name, bob.preshared_key, bob.persistent_keepalive) == ("bob", PskNone(), 25)
    assert [str(prefix) for prefix in bob.allowed_ips] == ["10.8.0.3/32", "10.30.0.0/16"]
    assert secrets(made) == (["gateway"], ["alice-psk"])
    assert run(made, "psk", "export", "alice", "-c", str(out), "--out", str(tmp_path / "psk")).returncode == 0
    assert (tmp_path / "psk").read_text().strip() == PSK
    for each in tmp_path.rglob("*"):
        assert each == source or not each.is_file() or PRIVATE not in each.read_text()
    assert source.read_text() == CONF

    exported = run(made, "export", "-c", str(out)).stdout
    assert "# PresharedKey: wghsm psk export alice" in exported
    again = tmp_path / "again.yaml"
    write(tmp_path, exported, "wg7.exported")
    done = run(made, "import", str(tmp_path / "wg7.exported"), "--out", str(again), "--token", made.uri, "--no-secrets")
    # No key is in this one.
    assert f"wghsm key import gateway -c {again}    the gateway's private key, on standard input; or" in done.stdout
    assert done.stderr == ""
    before = [(peer.name, peer.public_key, peer.allowed_ips) for peer in gateway.peers]
    assert [(peer.name, peer.public_key, peer.allowed_ips) for peer in load(again).peers] == before
    assert load(again).interface == gateway.interface


def test_a_networkd_site_with_key_files(made: SoftHsmToken, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(PRIVATE + "\n")
    (tmp_path / "psk").write_text(PSK + "\n")
    netdev = write(
        tmp_path,
        f"[NetDev]\nName=wg7\nKind=wireguard\n[WireGuard]\nPrivateKeyFile={tmp_path}/key\nListenPort=51820\n"
        f"[WireGuardPeer]\nPublicKey={ALICE}\nPresharedKeyFile={tmp_path}/psk\nAllowedIPs=10.8.0.2/32\n",
        "wg7.netdev",
    )
    write(tmp_path, "[Match]\nName=wg7\n[Network]\nAddress=10.8.0.1/24\n", "wg7.network")
    out = tmp_path / "wg7.yaml"
    bare = tmp_path / "bare.yaml"
    done = run(made, "import", str(netdev), "--out", str(bare), "--token", made.uri, "--no-secrets")
    assert f"  wghsm key import gateway -c {bare} < {tmp_path}/key\n" in done.stdout
    assert f"the keys in clear are still in {netdev} or the files that it names: " in done.stderr
    shown = json.loads(
        run(made, "import", str(netdev), "--out", str(out), "--token", made.uri, "--json", "--psk-root", "root").stdout
    )
    assert shown["public_key"] == PUBLIC
    assert (shown["peers"], shown["preshared_keys"], shown["not_carried_over"]) == (["peer-1"], ["peer-1"], [])
    gateway = load(out)
    assert (gateway.interface.table, gateway.token.psk_root) == ("off", "root")
    assert secrets(made) == (["gateway"], ["peer-1-psk"])


def test_psks_become_files_that_only_the_token_opens(made: SoftHsmToken, tmp_path: Path) -> None:
    source, out = write(tmp_path), tmp_path / "wg7.yaml"
    words = ("import", str(source), "--out", str(out), "--token", made.uri, "--psk", "wrapped")
    (tmp_path / "alice.psk").write_text("another's")
    assert "alice.psk" in run(made, *words, code=1).stderr
    assert secrets(made) == ([], [])
    (tmp_path / "alice.psk").unlink()
    done = run(made, *words)
    assert "1 pre-shared key lies beside the gateway file" in done.stdout
    gateway = load(out)
    assert gateway.peers[0].preshared_key == PskWrapped(tmp_path / "alice.psk")
    assert (tmp_path / "alice.psk").stat().st_mode & 0o777 == 0o600
    assert secrets(made)[0] == ["gateway"]
    run(made, "psk", "export", "alice", "-c", str(out), "--out", str(tmp_path / "psk"))
    assert (tmp_path / "psk").read_text().strip() == PSK

    # A second site finds the wrapping key there; one that is refused leaves it as it was.
    other = write(tmp_path, CONF.replace("# alice", "# carol").replace(ALICE, key_pair()[1]), "wg8.conf")
    words = ("import", str(other), "--out", str(tmp_path / "wg8.yaml"), "--token", made.uri, "--psk", "wrapped")
    run(made, *words, code=1)
    run(made, *words, "--key", "second")
    assert load(tmp_path / "wg8.yaml").token.psk_wrap_key == gateway.token.psk_wrap_key


def test_a_wrapping_key_does_not_stay_of_an_import_that_fails(made: SoftHsmToken, tmp_path: Path) -> None:
    source = write(tmp_path, CONF.replace(PSK, "A" * 43 + "="))
    words = ("import", str(source), "--out", str(tmp_path / "wg7.yaml"), "--token", made.uri, "--psk", "wrapped")
    run(made, *words, code=ExitCode.BAD_CONFIG)
    assert secrets(made) == ([], [])
    assert not list(tmp_path.glob("*.psk"))


def test_psks_are_left_out_and_that_is_said(made: SoftHsmToken, tmp_path: Path) -> None:
    out = tmp_path / "wg7.yaml"
    done = run(made, "import", str(write(tmp_path)), "--out", str(out), "--token", made.uri, "--psk", "none")
    assert "line 8: PresharedKey: left out; take it out of alice's configuration too" in done.stdout
    assert load(out).peers[0].preshared_key == PskNone()
    assert secrets(made) == (["gateway"], [])
    again = str(tmp_path / "wg8.yaml")
    words = ("import", str(tmp_path / "wg7.conf"), "--out", again, "--token", made.uri, "--no-secrets")
    assert "wghsm psk wrap alice" in run(made, *words, "--psk", "wrapped").stdout
    assert load(again).token.psk_wrap_key is not None


def test_without_secrets_the_token_is_left_alone(made: SoftHsmToken, tmp_path: Path) -> None:
    out = tmp_path / "wg7.yaml"
    done = run(made, "import", str(write(tmp_path)), "--out", str(out), "--token", made.uri, "--no-secrets")
    assert "wghsm psk put alice-psk" in done.stdout
    assert secrets(made) == ([], [])
    assert load(out).peers[0].preshared_key == PskObject("alice-psk")


def test_a_default_route_stays_one(made: SoftHsmToken, tmp_path: Path) -> None:
    source = write(tmp_path, CONF.replace("10.8.0.3/32", "0.0.0.0/0"))
    out = tmp_path / "wg7.yaml"
    run(made, "import", str(source), "--out", str(out), "--token", made.uri, "--no-secrets")
    assert load(out).interface.table == "auto"
    assert any(str(prefix) == "0.0.0.0/0" for peer in load(out).peers for prefix in peer.allowed_ips)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ((PRIVATE, "nonsense"), ExitCode.BAD_CONFIG, "no key of 44 characters"),
        ((f"PrivateKey = {PRIVATE}", ""), ExitCode.BAD_CONFIG, "no PrivateKey"),
        ((PSK, "A" * 43 + "="), ExitCode.BAD_CONFIG, "no key of 32 bytes"),
        ((ALICE, "x"), ExitCode.BAD_CONFIG, "public key"),
        (("10.8.0.2/32", "10.8.0.2/99"), ExitCode.BAD_CONFIG, "no prefix"),
        (("[Interface]", "[Server]"), ExitCode.BAD_CONFIG, "a section"),
    ],
)
def test_a_bad_file_leaves_nothing(
    made: SoftHsmToken, tmp_path: Path, change: tuple[str, str], code: ExitCode, said: str
) -> None:
    source = write(tmp_path, CONF.replace(*change))
    done = run(made, "import", str(source), "--out", str(tmp_path / "o.yaml"), "--token", made.uri, code=code)
    assert said in done.stderr
    assert not (tmp_path / "o.yaml").exists()
    assert secrets(made) == ([], [])


def test_a_key_that_is_there_is_not_replaced_and_psks_do_not_stay(made: SoftHsmToken, tmp_path: Path) -> None:
    run(made, "psk", "derive-root", "alice-psk", "--token", made.uri)
    source = write(tmp_path)
    done = run(made, "import", str(source), "--out", str(tmp_path / "o.yaml"), "--token", made.uri, code=1)
    assert "alice-psk" in done.stderr
    assert secrets(made) == ([], ["alice-psk"])
    assert not (tmp_path / "o.yaml").exists()
    (tmp_path / "o.yaml").write_text("mine")
    run(made, "import", str(source), "--out", str(tmp_path / "o.yaml"), "--token", made.uri, code=1)
    assert (tmp_path / "o.yaml").read_text() == "mine"
