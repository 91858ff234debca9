"""A key's life: brought in from outside, shown for what it is, backed up where the token can wrap, destroyed."""

import base64
import contextlib
import json
import os
import pty
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.json_output import check_json
from tests.token import conftest
from tests.token.rig import rig_token
from wghsm.cli._output import CommandError
from wghsm.cli._private_key import key_from_wg_quick
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import CurveUnsupported, KeyUnfit, LabelTaken, TokenPool, UriError
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.key_backup import Backup, CannotWrap, backup_key, restore_key
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import destroy_key, generate_key, list_keys, show_key
from wghsm.softhsm_setup import softhsm_token

PIN = b"key-life-4711"

# Records every program that the command starts, with its arguments and environment.
_AUDITED = """
import sys
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.putenv", "os.system"):
        with open(sys.argv[1], "a") as log:
            print(event, repr(arguments), file=log)
sys.addaudithook(hook)
from wghsm.cli import main
main(args=sys.argv[2:], prog_name="wghsm")
"""


@dataclass(frozen=True)
class Store:
    """A token: its URI with a PIN file, and what a process that loads the module needs in its environment."""

    uri: str
    environment: dict[str, str]
    folder: Path


@contextlib.contextmanager
def _softhsm() -> Iterator[Store]:
    with softhsm_token(label="gw", pin=bytearray(PIN)) as made:
        yield Store(made.uri, made.environment, made.directory)


@contextlib.contextmanager
def _nss() -> Iterator[Store]:
    """NSS softokn: the one module of the suite that wraps X25519 keys."""
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    try:
        pin = folder / "pin"
        pin.write_bytes(PIN + b"\n")
        pin.chmod(0o600)
        (folder / "store").mkdir()
        subprocess.run(["certutil", "-N", "-d", f"sql:{folder}/store", "-f", str(pin)], check=True, capture_output=True)
        arguments = (
            f"configdir='sql:{folder}/store' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' "
            "updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription=''"
        )
        (module,) = Path("/usr/lib").glob("*/libsoftokn3.so")
        uri = (
            f"pkcs11:token=NSS%20Certificate%20DB?module-path={module}&pin-source=file:{pin}"
            f"&x-init-args={quote(arguments, safe='')}"
        )
        yield Store(uri, {}, folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def softhsm() -> Iterator[Store]:
    with _softhsm() as store:
        yield store


@pytest.fixture(scope="module")
def nss() -> Iterator[Store]:
    with _nss() as store:
        yield store


@pytest.fixture(scope="module")
def montgomery() -> Iterator[Store]:
    """SoftHSM behind the rig, which spells X25519 by the standard."""
    with rig_token(pin=bytearray(PIN)) as token:
        yield Store(token.made.uri, token.made.environment, token.made.directory)


@contextlib.contextmanager
def opened(store: Store) -> Iterator[TokenPool]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        with TokenPool.open(store.uri, bytearray(PIN), 1, read_write=True) as pool:
            yield pool


@pytest.fixture(params=["softhsm", "montgomery", "nss"])
def pool(request: pytest.FixtureRequest) -> Iterator[TokenPool]:
    with opened(request.getfixturevalue(request.param)) as found:
        yield found


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def foreign() -> Iterator[Store]:
    """A store of another uid, as the gateway has it: the commands change to that uid."""
    with softhsm_token(label="gw", uid=61100, pin=bytearray(PIN)) as made:
        yield Store(made.uri, made.environment, made.directory)


def run(store: Store, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *arguments],
        env={**os.environ, **store.environment},
        input=given,
        capture_output=True,
        check=False,
    )
    assert PIN not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    check_json(arguments, done.stdout)
    return done


def _one_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("wghsm: ")
    assert done.stdout == b""
    return lines[0]


def _clamped(private: bytes) -> bytes:
    return bytes([private[0] & 248, *private[1:31], private[31] & 127 | 64])


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _wrapping_key(pool: TokenPool, label: str, **changes: bool) -> None:
    """An AES key in the token, as its own tools would make it."""
    attributes = {"SENSITIVE": True, "EXTRACTABLE": False, "WRAP": True, "UNWRAP": True, **changes}
    with pool.control() as calls:
        calls.generate_key(
            0x1080,
            (
                (CKA["CLASS"], 4),
                (CKA["KEY_TYPE"], 0x1F),
                (CKA["VALUE_LEN"], 32),
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], True),
                *((CKA[name], value) for name, value in attributes.items()),
                (CKA["LABEL"], label.encode()),
                (CKA["ID"], os.urandom(8)),
            ),
        )


# Import into the token.


@pytest.mark.parametrize("clamped", [True, False])
def test_an_imported_key_is_the_software_key(pool: TokenPool, label: str, clamped: bool) -> None:
    private = b"\xff" + os.urandom(30) + b"\xff"
    given = bytearray(_clamped(private) if clamped else private)
    key = import_key(pool, label, given)
    assert key.public_key == _public(private)
    assert bytes(given) == (_clamped(private) if clamped else private)
    peer = X25519PrivateKey.generate()
    with pool.session() as session:
        shared = session.derive(key, peer.public_key().public_bytes_raw())
    assert shared == peer.exchange(X25519PublicKey.from_public_bytes(key.public_key))


def test_the_token_says_that_it_was_outside(pool: TokenPool, label: str) -> None:
    import_key(pool, label, bytearray(os.urandom(32)))
    report = show_key(pool, label)
    for name in ("LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "EXTRACTABLE", "SIGN", "DECRYPT", "UNWRAP"):
        assert report.attributes[name] is False, name
    assert report.attributes["SENSITIVE"] is True
    assert not report.value_readable


def test_a_taken_label_and_a_wrong_length_change_nothing(pool: TokenPool, label: str) -> None:
    first = import_key(pool, label, bytearray(os.urandom(32)))
    before = len(list_keys(pool))
    with pytest.raises(LabelTaken):
        import_key(pool, label, bytearray(os.urandom(32)))
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            import_key(pool, f"{label}-wrong", bytearray(wrong))
    with pytest.raises(UriError):
        import_key(pool, "", bytearray(os.urandom(32)))
    assert len(list_keys(pool)) == before
    assert pool.find_key(label).public_key == first.public_key


def test_a_token_without_the_curve_is_told_from_a_broken_one(pool: TokenPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_mechanisms", frozenset({0x250}))
    before = len(list_keys(pool))
    with pytest.raises(CurveUnsupported, match="takes no X25519 key from outside"):
        import_key(pool, "none", bytearray(os.urandom(32)))
    assert len(list_keys(pool)) == before


# Backup and restore.


@pytest.fixture
def wrapping(nss: Store) -> Iterator[TokenPool]:
    with opened(nss) as found:
        yield found


@pytest.mark.parametrize("made", ["generated", "imported"])
def test_a_backup_comes_back_as_the_same_key(wrapping: TokenPool, label: str, made: str) -> None:
    _wrapping_key(wrapping, f"{label}-aes")
    if made == "generated":
        public = generate_key(wrapping, label, wrappable=True).public_key
    else:
        public = import_key(wrapping, label, bytearray(os.urandom(32)), wrappable=True).public_key
    before = len(list_keys(wrapping))
    backup = backup_key(wrapping, label, f"{label}-aes")
    assert len(list_keys(wrapping)) == before
    assert (backup.label, backup.public_key, backup.mechanism) == (label, public, "CKM_AES_KEY_WRAP_KWP")
    destroy_key(wrapping, label)
    key = restore_key(wrapping, backup, f"{label}-again", f"{label}-aes")
    assert key.public_key == public
    assert show_key(wrapping, f"{label}-again").attributes["EXTRACTABLE"] is False
    with pytest.raises(LabelTaken):
        restore_key(wrapping, backup, f"{label}-again", f"{label}-aes")


def test_what_does_not_unwrap_leaves_nothing(wrapping: TokenPool, label: str) -> None:
    for name in ("aes", "other"):
        _wrapping_key(wrapping, f"{label}-{name}")
    generate_key(wrapping, label, wrappable=True)
    stranger = generate_key(wrapping, f"{label}-stranger").public_key
    good = backup_key(wrapping, label, f"{label}-aes")
    before = len(list_keys(wrapping))
    flipped = bytes([good.wrapped[0] ^ 1]) + good.wrapped[1:]
    for backup, wrap_key, refusal in (
        (good, "other", CannotWrap),
        (Backup(label, good.public_key, good.mechanism, "", flipped), "aes", CannotWrap),
        (Backup(label, good.public_key, good.mechanism, "", good.wrapped[:-8]), "aes", CannotWrap),
        (Backup(label, stranger, good.mechanism, "", good.wrapped), "aes", KeyUnfit),
    ):
        with pytest.raises(refusal):
            restore_key(wrapping, backup, f"{label}-new", f"{label}-{wrap_key}")
        assert len(list_keys(wrapping)) == before


def test_a_key_that_may_never_leave_has_no_backup(pool: TokenPool, label: str) -> None:
    _wrapping_key(pool, f"{label}-aes")
    generate_key(pool, label)
    with pytest.raises(CannotWrap, match=r"CKA_EXTRACTABLE is false.*do this instead"):
        backup_key(pool, label, f"{label}-aes")


def test_the_wrapping_key_must_be_one(wrapping: TokenPool, label: str) -> None:
    generate_key(wrapping, label, wrappable=True)
    _wrapping_key(wrapping, f"{label}-no-wrap", WRAP=False, ENCRYPT=True)
    with pytest.raises(KeyUnfit, match="CKA_WRAP"):
        backup_key(wrapping, label, f"{label}-no-wrap")


def test_softhsm_cannot_wrap_and_says_what_to_do_instead(softhsm: Store, label: str, tmp_path: Path) -> None:
    with opened(softhsm) as pool:
        _wrapping_key(pool, "aes")
        _wrapping_key(pool, "readable", SENSITIVE=False, EXTRACTABLE=True)
    out = tmp_path / "backup"
    arguments = ("key", "backup", label, "--token", softhsm.uri, "--out", str(out), "--wrap-key")
    assert run(softhsm, "key", "generate", label, "--token", softhsm.uri, "--wrappable").returncode == 0
    done = run(softhsm, *arguments, "aes")
    assert done.returncode == ExitCode.FAILURE
    line = _one_line(done)
    assert "CKR_KEY_NOT_WRAPPABLE" in line
    assert "wghsm key import" in line
    assert "token folder" in line
    assert "CKA_SENSITIVE is false" in _one_line(run(softhsm, *arguments, "readable"))
    assert "'absent'" in _one_line(run(softhsm, *arguments, "absent"))
    assert not out.exists()


def test_the_backup_commands(nss: Store, label: str, tmp_path: Path) -> None:
    with opened(nss) as pool:
        _wrapping_key(pool, f"{label}-aes")
    token = ("--token", nss.uri)
    out = tmp_path / "key.backup"
    made = json.loads(run(nss, "key", "generate", label, "--wrappable", *token, "--json").stdout)
    assert made["custody"] == "wrappable"
    done = run(nss, "key", "backup", label, "--wrap-key", f"{label}-aes", "--out", str(out), *token, "--json")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    taken = run(nss, "key", "backup", label, "--wrap-key", f"{label}-aes", "--out", str(out), *token)
    assert "nothing was written" in _one_line(taken)
    assert run(nss, "key", "destroy", label, "--yes", *token).returncode == 0
    back = run(nss, "key", "restore", "--in", str(out), *token, "--json")
    assert back.returncode == 0, back.stderr
    report = json.loads(back.stdout)
    assert report["public_key"] == made["public_key"]
    assert report["custody"] == "been-outside"
    out.write_text(out.read_text().replace('"version": 1', '"version": 2'))
    again = run(nss, "key", "restore", "again", "--in", str(out), *token)
    assert again.returncode == ExitCode.BAD_CONFIG
    _one_line(again)


def test_a_backup_is_restored_into_every_token_of_the_file(nss: Store, label: str, tmp_path: Path) -> None:
    # A token is cloned, and both copies hold the wrapping key from then on.
    with opened(nss) as pool:
        _wrapping_key(pool, f"{label}-aes")
    stores = [nss]
    for number in range(2):
        folder = tmp_path / f"clone-{number}"
        shutil.copytree(nss.folder, folder)
        stores.append(Store(nss.uri.replace(quote(str(nss.folder), safe=""), quote(str(folder), safe="")), {}, folder))
    assert len({store.uri for store in stores}) == 3
    out, file = tmp_path / "key.backup", tmp_path / "wg0.yaml"
    file.write_text(
        f"version: 1\ntoken:\n  uris: {json.dumps([store.uri for store in stores])}\n"
        f"interface:\n  name: wg0\n  key: {label}\n"
    )
    made = json.loads(run(nss, "key", "generate", label, "--wrappable", "--token", nss.uri, "--json").stdout)
    wrap = ("--wrap-key", f"{label}-aes")
    assert run(nss, "key", "backup", label, *wrap, "--out", str(out), "--token", nss.uri).returncode == 0
    # The first has the key already: nothing is done, and nothing in the others.
    assert "exists" in _one_line(run(nss, "key", "restore", "--in", str(out), "-c", str(file)))
    assert run(nss, "key", "destroy", label, "--yes", "--token", nss.uri).returncode == 0
    back = run(nss, "key", "restore", "--in", str(out), "-c", str(file), "--json")
    assert back.returncode == 0, back.stderr
    for store in stores:
        shown = run(nss, "key", "public", label, "--token", store.uri)
        assert shown.stdout.decode().strip() == made["public_key"]
    # One that has it in the way: what was done, and what is left to do.
    for store in (stores[0], stores[2]):
        assert run(nss, "key", "destroy", label, "--yes", "--token", store.uri).returncode == 0
    half = _one_line(run(nss, "key", "restore", "--in", str(out), "-c", str(file)))
    assert "It is done in" in half
    assert half.count("--token '") == 2
    done = [run(nss, "key", "public", label, "--token", store.uri).returncode == 0 for store in stores]
    assert done == [True, True, False]


@pytest.mark.parametrize("way", ["ceremony", "copy"])
def test_what_to_do_instead_gives_the_same_key(foreign: Store, way: str) -> None:
    private = base64.b64encode(os.urandom(32))
    assert run(foreign, "key", "import", "gateway", "--token", foreign.uri, given=private).returncode == 0
    with softhsm_token(label="gw", uid=61100, pin=bytearray(PIN)) as made:
        spare = Store(made.uri, made.environment, made.directory)
        if way == "ceremony":
            assert run(spare, "key", "import", "gateway", "--token", spare.uri, given=private).returncode == 0
        else:
            shutil.rmtree(spare.folder / "tokens")
            subprocess.run(["cp", "-a", foreign.folder / "tokens", spare.folder / "tokens"], check=True)
        answers = [run(store, "key", "public", "gateway", "--token", store.uri) for store in (foreign, spare)]
        assert answers[0].returncode == answers[1].returncode == 0, answers[1].stderr
        assert answers[0].stdout == answers[1].stdout


# The import command.


def test_import_from_standard_input(foreign: Store, tmp_path: Path) -> None:
    private = os.urandom(32)
    text = base64.b64encode(private)
    log = tmp_path / "audit"
    log.touch()
    done = subprocess.run(
        [sys.executable, "-c", _AUDITED, str(log), "key", "import", "moved", "--token", foreign.uri],
        env={**os.environ, **foreign.environment},
        input=text + b"\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert base64.b64encode(_public(private)) in done.stdout.splitlines()
    assert b"has been outside the token" in done.stderr
    shown = run(foreign, "key", "show", "moved", "--token", foreign.uri)
    words = " ".join(shown.stdout.decode().split())
    for line in ("CKA_LOCAL: false", "CKA_ALWAYS_SENSITIVE: false", "CKA_NEVER_EXTRACTABLE: false"):
        assert line in words
    assert "custody: the key has been outside this token" in words
    everything = done.stdout + done.stderr + shown.stdout + shown.stderr + log.read_bytes()
    for secret in (text, text.rstrip(b"="), private, private.hex().encode(), repr(private)[2:-1].encode()):
        assert secret not in everything
    assert {path.stat().st_uid for path in (foreign.folder / "tokens").rglob("*")} == {61100}
    assert not any(private in path.read_bytes() for path in foreign.folder.rglob("*") if path.is_file())
    again = run(foreign, "key", "import", "moved", "--token", foreign.uri, given=text)
    assert again.returncode == ExitCode.FAILURE
    assert "nothing was changed" in _one_line(again)


def test_a_generated_key_says_that_it_never_was_outside(softhsm: Store, label: str) -> None:
    for flag, custody in (((), "never-outside"), (("--wrappable",), "wrappable")):
        name = f"{label}-{custody}"
        assert run(softhsm, "key", "generate", name, *flag, "--token", softhsm.uri).returncode == 0
        assert (
            json.loads(run(softhsm, "key", "show", name, "--token", softhsm.uri, "--json").stdout)["custody"] == custody
        )


def test_import_from_a_wg_quick_file(softhsm: Store, label: str, tmp_path: Path) -> None:
    private = os.urandom(32)
    file = tmp_path / "wg0.conf"
    file.write_text(_conf(base64.b64encode(private).decode()))
    file.chmod(0o644)
    done = run(softhsm, "key", "import", label, "--wg-quick", str(file), "--token", softhsm.uri, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["public_key"] == base64.b64encode(_public(private)).decode()
    assert report["custody"] == "been-outside"
    assert f"One copy is in {file}, which others can read" in report["notice"]
    absent = run(softhsm, "key", "import", "x", "--wg-quick", str(tmp_path / "absent"), "--token", softhsm.uri)
    assert absent.returncode == ExitCode.FAILURE
    assert "absent" in _one_line(absent)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        base64.b64encode(b"k" * 31),
        base64.b64encode(b"k" * 33),
        base64.b64encode(b"k" * 32)[:-1],
        base64.b64encode(b"k" * 32) + b"A",
        base64.b64encode(bytes(32)),
        b"!" * 44,
        b"a2tr" * 2500,
    ],
)
def test_what_is_no_private_key_is_not_imported(softhsm: Store, given: bytes) -> None:
    done = run(softhsm, "key", "import", "bad", "--token", softhsm.uri, given=given)
    assert done.returncode == ExitCode.BAD_CONFIG
    line = _one_line(done)
    assert "a2tr" not in line
    assert b"bad " not in run(softhsm, "key", "list", "--token", softhsm.uri).stdout


def test_a_typed_key_is_not_shown(softhsm: Store, label: str) -> None:
    private = os.urandom(32)
    text = base64.b64encode(private)
    master, slave = pty.openpty()
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "wghsm", "key", "import", label, "--token", softhsm.uri],
            env={**os.environ, **softhsm.environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        seen = b""
        asked = False
        while True:
            assert select.select([master], [], [], 120)[0]
            try:
                seen += os.read(master, 4096)
            except OSError:
                break
            if not asked and b"not shown" in seen:
                asked = True
                os.write(master, text + b"\n")
        assert command.wait(120) == 0, seen
    finally:
        os.close(master)
    assert text not in seen
    assert base64.b64encode(_public(private)) in seen


# wg-quick files.


def _conf(private: str) -> str:
    return (
        "# PrivateKey = in a comment\n"
        "[Interface]\n"
        "Address = 10.0.0.1/24\n"
        f"  privatekey={private}   # the key\n"
        "PostUp = echo PrivateKey = no\n"
        "[Peer]\n"
        f"PublicKey = {base64.b64encode(bytes(32)).decode()}\n"
        "PrivateKey = of a peer, which wg-quick refuses\n"
    )


@given(private=st.binary(min_size=32, max_size=32).filter(any), end=st.sampled_from(["\n", "\r\n", ""]))
def test_the_key_of_a_wg_quick_file(private: bytes, end: str) -> None:
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as folder:
        path = Path(folder) / "wg0.conf"
        path.write_bytes(_conf(base64.b64encode(private).decode()).encode())
        assert key_from_wg_quick(str(path)) == private
        path.write_bytes(b"[ interface ]\n[Interface]\nPrivateKey = " + base64.b64encode(private) + end.encode())
        assert key_from_wg_quick(str(path)) == private


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no PrivateKey"),
        ("PrivateKey = KEY\n", "no PrivateKey"),
        ("[Peer]\nPrivateKey = KEY\n", "no PrivateKey"),
        ("[Interface]\n#PrivateKey = KEY\n", "no PrivateKey"),
        ("[Interface]\nPrivateKey = KEY\nPrivateKey = KEY\n", "2 PrivateKey lines"),
        ("[Interface]\nPrivateKey = KEYs\n", "no private key"),
        ("[Interface]\nPrivateKey =\n", "no private key"),
        ("[Interface]\nPrivateKey = " + "A" * 43 + "=\n", "all zeros"),
        ("\n" * (1 << 20) + "x", "1 MiB"),
    ],
)
def test_a_wg_quick_file_without_one_key(tmp_path: Path, text: str, says: str) -> None:
    key = base64.b64encode(b"p" * 32).decode()
    path = tmp_path / "wg0.conf"
    path.write_text(text.replace("KEY", key))
    with pytest.raises(CommandError, match=says) as refused:
        key_from_wg_quick(str(path))
    assert key not in str(refused.value)


# Destroying.


def test_a_key_that_a_gateway_has_is_not_destroyed(softhsm: Store, label: str, tmp_path: Path) -> None:
    peers = {
        name: base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
        for name in ("alice", "bob")
    }
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f'version: 1\ntoken: {{uri: "{softhsm.uri}", psk_root: root}}\n'
        f"interface: {{name: wgk0, key: {label}}}\npeers:\n"
        + "".join(
            f"  - {{name: {name}, public_key: {key}, preshared_key: {psk}, allowed_ips: [10.8.0.{n}/32]}}\n"
            for n, ((name, key), psk) in enumerate(zip(peers.items(), ("derived", "none"), strict=True), 2)
        )
    )
    for name in (label, f"{label}-old"):
        assert run(softhsm, "key", "generate", name, "-c", str(file)).returncode == 0
    unasked = run(softhsm, "key", "destroy", label, "-c", str(file))
    assert unasked.returncode == ExitCode.BAD_CONFIG
    assert run(softhsm, "key", "public", label, "-c", str(file)).returncode == 0
    said = run(softhsm, "key", "destroy", label, "--yes", "-c", str(file))
    assert said.returncode == ExitCode.BAD_CONFIG
    assert "the key of gateway wgk0: 2 peers (alice, bob) could not" in said.stderr.decode()
    assert "derived PSK of 1 peer (alice)" in said.stderr.decode()
    old = run(softhsm, "key", "destroy", f"{label}-old", "--yes", "-c", str(file), "--json")
    assert old.returncode == 0, old.stderr
    assert json.loads(old.stdout) == {"label": f"{label}-old", "objects_destroyed": 2}
    assert run(softhsm, "key", "destroy", label, "--yes", "--token", softhsm.uri).returncode == 0


def test_the_tool_that_is_named_makes_a_wrapping_key(softhsm: Store, label: str, tmp_path: Path) -> None:
    out = str(tmp_path / "backup")
    assert run(softhsm, "key", "generate", label, "--wrappable", "--token", softhsm.uri).returncode == 0
    backup = ("key", "backup", label, "--wrap-key", f"{label}-aes", "--out", out, "--token", softhsm.uri)
    said = run(softhsm, *backup).stderr.decode()
    tool = said.partition("(")[2].partition(" makes one")[0].split()
    (module,) = Path("/usr/lib").glob("*/softhsm/libsofthsm2.so")
    made = subprocess.run(
        [*tool, "--label", f"{label}-aes", "--module", str(module), "--token-label", "gw", "--pin", "env:GIVEN"],
        env={**os.environ, **softhsm.environment, "GIVEN": PIN.decode()},
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    # SoftHSM 2.6.1 has nothing against the wrapping key, only against what it is to wrap.
    assert "does not wrap X25519 keys (CKR_KEY_NOT_WRAPPABLE)" in run(softhsm, *backup).stderr.decode()


def test_of_two_keys_with_one_label_one_may_go(softhsm: Store, label: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f'version: 1\ntoken: {{uri: "{softhsm.uri}"}}\ninterface: {{name: wgk0, key: {label}}}\n')
    with opened(softhsm) as pool:
        generate_key(pool, label)
        conftest.import_key(pool, label, bytes(range(32)))
        (made,) = [report.id for report in list_keys(pool) if report.label == label and report.id]
    unnamed = run(softhsm, "key", "destroy", label, "--yes", "-c", str(file))
    assert unnamed.returncode == ExitCode.BAD_CONFIG
    done = run(softhsm, "key", "destroy", label, "--yes", "--id", str(made), "-c", str(file))
    assert done.returncode == 0, done.stderr
    last = run(softhsm, "key", "destroy", label, "--yes", "--id", "", "-c", str(file))
    assert last.returncode == ExitCode.BAD_CONFIG
    assert f"'{label}' is the key of gateway wgk0" in last.stderr.decode()
    assert run(softhsm, "key", "public", label, "-c", str(file)).returncode == 0


def test_each_command_explains_itself() -> None:
    for command in ("generate", "import", "backup", "restore", "rotate", "retire", "destroy"):
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", "key", command, "--help"], capture_output=True, text=True, check=True
        )
        assert f"wghsm key {command}" in done.stdout.partition("Options:")[0].partition("Example")[2]
        assert "--json" in done.stdout
