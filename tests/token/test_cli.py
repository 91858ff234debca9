"""`wghsm token|key|psk` as an operator runs them: real processes, a real token in a store of another uid."""

import base64
import hashlib
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.json_output import check_json
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

PIN = b"s3cr3t-pin-4711"
_PSK = base64.b64encode(hashlib.sha256(b"a psk of the tests").digest())

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


@pytest.fixture(scope="module")
def made() -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100, pin=bytearray(PIN)) as token:
        yield token


@pytest.fixture(scope="module")
def gateway(made: SoftHsmToken) -> Path:
    """A gateway file whose key and root are in the token."""
    peers = {
        name: base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
        for name in ("alice", "bob", "carol")
    }
    path = made.directory / "gateway.yaml"
    path.write_text(
        f"version: 1\nstate_directory: {made.directory}/state\n"
        "token:\n"
        f'  uri: "{made.uri}"\n'
        "  psk_root: root\n"
        "  environment: [SOFTHSM2_CONF]\n"
        "interface:\n"
        "  name: wgcli0\n"
        "  key: gateway\n"
        "  listen_port: 51820\n"
        "peers:\n"
        + "".join(
            f"  - name: {name}\n    public_key: {peers[name]}\n"
            f"    preshared_key: {psk}\n    allowed_ips: [10.8.0.{n}/32]\n"
            for n, (name, psk) in enumerate((("alice", "derived"), ("bob", "object:bob-psk"), ("carol", "none")), 2)
        )
    )
    for arguments in (["key", "generate"], ["psk", "derive-root"]):
        done = run(made, *arguments, "-c", str(path))
        assert done.returncode == 0, done.stderr
    assert run(made, "psk", "put", "bob-psk", "-c", str(path), given=_PSK + b"\n").returncode == 0
    return path


def run(made: SoftHsmToken, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *arguments],
        env={**os.environ, **made.environment},
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


def test_a_keys_life(made: SoftHsmToken) -> None:
    token = ("--token", made.uri)
    done = run(made, "key", "generate", "life", *token, "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["attributes"]["SENSITIVE"] is True
    assert report["attributes"]["EXTRACTABLE"] is False

    public = run(made, "key", "public", "life", *token)
    assert public.stdout.decode() == report["public_key"] + "\n"
    assert len(base64.b64decode(public.stdout)) == 32
    assert public.stderr == b""

    shown = run(made, "key", "show", "life", *token).stdout.decode()
    for line in (
        "CKA_SENSITIVE: true",
        "CKA_EXTRACTABLE: false",
        "CKA_DERIVE: true",
        "CKA_VALUE: refused by the token",
    ):
        assert line in " ".join(shown.split())

    listed = run(made, "key", "list", *token).stdout.decode()
    assert ["life", "X25519", report["public_key"], report["id"]] in [line.split() for line in listed.splitlines()]

    again = run(made, "key", "generate", "life", *token)
    assert again.returncode == ExitCode.FAILURE
    assert "nothing was changed" in _one_line(again)

    unasked = run(made, "key", "destroy", "life", *token)
    assert unasked.returncode == ExitCode.BAD_CONFIG
    assert "--yes" in _one_line(unasked)
    assert run(made, "key", "destroy", "life", *token, "--yes", "--json").returncode == 0
    gone = run(made, "key", "public", "life", *token)
    assert gone.returncode == ExitCode.TOKEN_UNUSABLE
    assert "'life'" in _one_line(gone)


def test_the_gateway_file_names_token_and_key(made: SoftHsmToken, gateway: Path) -> None:
    by_file = run(made, "key", "public", "-c", str(gateway))
    by_uri = run(made, "key", "public", "gateway", "--token", made.uri)
    assert by_file.returncode == 0
    assert by_file.stdout == by_uri.stdout


def test_what_was_written_belongs_to_the_stores_owner(made: SoftHsmToken, gateway: Path) -> None:
    assert gateway.exists()
    assert {path.stat().st_uid for path in (made.directory / "tokens").rglob("*")} == {61100}


def test_a_wrong_pin(made: SoftHsmToken, tmp_path: Path) -> None:
    wrong = tmp_path / "pin"
    wrong.write_bytes(b"wrong-9999\n")
    wrong.chmod(0o600)
    done = run(made, "key", "list", "--token", made.uri.replace(str(made.pin_file), str(wrong)))
    assert done.returncode == ExitCode.PIN_REFUSED
    line = _one_line(done)
    assert "refused the PIN" in line
    assert "wrong-9999" not in line


def test_a_pin_file_open_to_others(made: SoftHsmToken, tmp_path: Path) -> None:
    loose = tmp_path / "pin"
    loose.write_bytes(PIN)
    loose.chmod(0o644)
    done = run(made, "key", "list", "--token", made.uri.replace(str(made.pin_file), str(loose)))
    assert done.returncode == ExitCode.BAD_CONFIG
    assert f"chmod 600 {loose}" in _one_line(done)


def test_bad_targets(made: SoftHsmToken, gateway: Path) -> None:
    for arguments in (
        ["key", "list", "--token", made.uri, "-c", str(gateway)],
        ["key", "list", "--token", "pkcs11:token=gw?pin-value=1234"],
        ["key", "list", "--token", "pkcs11:token=gw?pin-source=file:/etc/pin"],
        ["key", "public", "--token", made.uri],
        ["psk", "derive-root", "--token", made.uri],
        ["token", "init", "--token", made.uri],
        ["token", "init", "--softhsm", "/nowhere", "--token", made.uri],
    ):
        done = run(made, *arguments)
        assert done.returncode == ExitCode.BAD_CONFIG, arguments
        assert "1234" not in _one_line(done)


def test_no_such_token_and_no_module(made: SoftHsmToken) -> None:
    for uri in (made.uri.replace("token=gw", "token=absent"), made.uri.replace("libsofthsm2.so", "absent.so")):
        done = run(made, "key", "list", "--token", uri)
        assert done.returncode == ExitCode.TOKEN_UNUSABLE
        assert "absent" in _one_line(done)


def test_a_store_of_another_user_needs_root(made: SoftHsmToken) -> None:
    pin = made.directory / "nobody.pin"
    pin.write_bytes(PIN)
    pin.chmod(0o600)
    os.chown(pin, 65534, 65534)
    # The interpreter itself may be out of reach for other users: it starts as root, and drops.
    code = (
        "import os, sys, wghsm.cli.key; from wghsm.cli import main\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "main(prog_name='wghsm')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "key", "list", "--token", made.uri.replace(str(made.pin_file), str(pin))],
        env={**os.environ, **made.environment},
        capture_output=True,
        check=False,
    )
    pin.unlink()
    assert done.returncode == ExitCode.NO_PRIVILEGE
    assert "belongs to uid 61100; run this as root" in _one_line(done)


def test_an_environment_without_the_store_says_what_to_check(made: SoftHsmToken, tmp_path: Path) -> None:
    empty = tmp_path / "tokens"
    empty.mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {empty}\n")
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", "key", "list", "--token", made.uri],
        env={**os.environ, "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == ExitCode.TOKEN_UNUSABLE
    assert "SOFTHSM2_CONF" in _one_line(done)


def test_tokens_are_listed_and_shown_without_a_pin(made: SoftHsmToken) -> None:
    uri = made.uri.partition("&pin-source")[0]
    listed = json.loads(run(made, "token", "list", "--token", uri, "--json").stdout)
    assert [token["label"] for token in listed if token["initialised"]] == ["gw"]
    shown = json.loads(run(made, "token", "show", "--token", uri, "--json").stdout)
    assert shown["x25519"] == "SoftHSM 2"
    assert f"serial={shown['serial']}" in shown["uri"]
    text = run(made, "token", "show", "--token", uri).stdout.decode()
    assert "TOKEN_INITIALIZED" in text
    absent = run(made, "token", "show", "--token", uri.replace("token=gw", "token=absent"))
    assert absent.returncode == ExitCode.TOKEN_UNUSABLE
    assert "'gw'" in _one_line(absent)


def test_token_init_joins_a_token_to_the_store(made: SoftHsmToken, tmp_path: Path) -> None:
    for name in ("pin", "so"):
        (tmp_path / name).write_bytes(b"init-" + name.encode() * 4)
        (tmp_path / name).chmod(0o600)
    uri = f"pkcs11:token=second?module-path={made.module}&pin-source=file:{tmp_path}/pin"
    arguments = ("token", "init", "--token", uri, "--so-pin-source", f"file:{tmp_path}/so")
    done = run(made, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert run(made, "key", "generate", "k", "--token", uri).returncode == 0
    again = run(made, *arguments)
    assert again.returncode == ExitCode.FAILURE
    assert "exists already" in _one_line(again)
    assert {path.stat().st_uid for path in (made.directory / "tokens").rglob("*")} == {61100}


def test_token_init_softhsm(tmp_path: Path, made: SoftHsmToken) -> None:
    (tmp_path / "given").write_bytes(PIN)
    (tmp_path / "given").chmod(0o600)
    store = made.directory / "another"
    log = tmp_path / "audit"
    done = subprocess.run(
        [
            *(sys.executable, "-c", _AUDITED, str(log), "token", "init", "--softhsm", str(store)),
            *("--label", "gw", "--pin-source", f"file:{tmp_path}/given", "--json"),
        ],
        env=os.environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    started = log.read_bytes()
    # The child that makes the token was started, and got the PIN neither in its arguments nor its environment.
    assert b"wghsm.softhsm_setup._make" in started
    assert PIN not in started + done.stdout + done.stderr
    assert Path(report["so_pin_file"]).read_bytes().strip() not in started + done.stdout
    assert (store / "tokens").stat().st_uid == 61100
    assert stat.S_IMODE(Path(report["pin_file"]).stat().st_mode) == 0o600


def test_no_command_hands_the_pin_on(made: SoftHsmToken, gateway: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit"
    log.touch()
    for arguments in (["key", "list"], ["key", "show"], ["psk", "list"], ["psk", "export", "bob", "--out", "-"]):
        done = subprocess.run(
            [sys.executable, "-c", _AUDITED, str(log), *arguments, "-c", str(gateway)],
            env={**os.environ, **made.environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert PIN not in done.stdout + done.stderr + log.read_bytes()


def test_a_put_psk_is_exported_as_it_was(made: SoftHsmToken, gateway: Path, tmp_path: Path) -> None:
    out = tmp_path / "bob.psk"
    done = run(made, "psk", "export", "bob", "-c", str(gateway), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == _PSK + b"\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.stat().st_uid == os.geteuid()
    assert json.loads(done.stdout) == {"peer": "bob", "object": "bob-psk", "file": str(out)}
    taken = run(made, "psk", "export", "bob", "-c", str(gateway), "--out", str(out))
    assert taken.returncode == ExitCode.FAILURE
    assert "nothing was written" in _one_line(taken)
    record = ("--record", str(tmp_path / "exports"))
    direct = run(made, "psk", "export", "--object", "bob-psk", "--token", made.uri, "--out", "-", *record)
    assert direct.stdout == _PSK + b"\n"
    as_json = run(made, "psk", "export", "bob", "-c", str(gateway), "--out", "-", "--json")
    assert json.loads(as_json.stdout)["preshared_key"] == _PSK.decode()


def test_a_derived_psk_is_the_same_by_file_and_by_labels(made: SoftHsmToken, gateway: Path, tmp_path: Path) -> None:
    by_file = run(made, "psk", "export", "alice", "-c", str(gateway), "--out", "-")
    assert by_file.returncode == 0, by_file.stderr
    assert len(base64.b64decode(by_file.stdout)) == 32
    public = next(line for line in gateway.read_text().splitlines() if "public_key" in line).split()[-1]
    where = ("--out", "-", "--record", str(tmp_path / "exports"))
    by_labels = ("psk", "export", public, "--root", "root", "--key", "gateway", "--token", made.uri, *where)
    assert run(made, *by_labels).stdout == by_file.stdout
    assert run(made, *by_labels, "--epoch", "1").stdout != by_file.stdout
    assert run(made, "psk", "export", public, "-c", str(gateway), "--out", "-").stdout == by_file.stdout


def test_a_psk_goes_into_no_pipe_unasked(made: SoftHsmToken, gateway: Path) -> None:
    for extra in ([], ["--json"]):
        done = run(made, "psk", "export", "alice", "-c", str(gateway), *extra)
        assert done.returncode == ExitCode.BAD_CONFIG
        assert "--out" in _one_line(done)


def test_a_psk_is_shown_on_a_terminal(made: SoftHsmToken, gateway: Path) -> None:
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", "psk", "export", "bob", "-c", str(gateway)],
            env={**os.environ, **made.environment},
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert os.read(master, 4096).strip() == _PSK
    finally:
        os.close(master)
        os.close(slave)


def test_export_requests_that_make_no_sense(made: SoftHsmToken, gateway: Path) -> None:
    token = ["--token", made.uri, "--out", "-"]
    file = ["-c", str(gateway), "--out", "-"]
    for arguments in (
        ["nobody", *file],
        ["carol", *file],
        ["bob", "--epoch", "1", *file],
        ["alice", "--object", "bob-psk", *file],
        file,
        [_PSK.decode(), *token],
        ["no-key", "--root", "root", "--key", "gateway", *token],
    ):
        done = run(made, "psk", "export", *arguments)
        assert done.returncode == ExitCode.BAD_CONFIG, arguments
        _one_line(done)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        _PSK[:-1],
        _PSK + b"A",
        b"!" * 44,
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(32)),
        b"x" * 9999,
    ],
)
def test_what_is_no_psk_is_not_stored(made: SoftHsmToken, given: bytes) -> None:
    done = run(made, "psk", "put", "bad", "--token", made.uri, given=given)
    assert done.returncode == ExitCode.BAD_CONFIG
    _one_line(done)
    assert "bad" not in [secret["label"] for secret in json.loads(_listed(made))]


def _listed(made: SoftHsmToken) -> bytes:
    return run(made, "psk", "list", "--token", made.uri, "--json").stdout


def test_a_psk_objects_life(made: SoftHsmToken, tmp_path: Path) -> None:
    token = ("--token", made.uri)
    assert run(made, "psk", "put", "p", *token, given=_PSK).returncode == 0
    taken = run(made, "psk", "put", "p", *token, given=_PSK)
    assert taken.returncode == ExitCode.FAILURE
    _one_line(taken)
    other = base64.b64encode(bytes(range(32)))
    assert run(made, "psk", "put", "p", *token, "--replace", "--json", given=b" " + other + b"\r\n").returncode == 0
    record = ("--record", str(tmp_path / "exports"))
    assert run(made, "psk", "export", "--object", "p", *token, "--out", "-", *record).stdout.strip() == other
    assert {"p": "psk"}.items() <= {secret["label"]: secret["kind"] for secret in json.loads(_listed(made))}.items()
    assert run(made, "psk", "destroy", "p", *token, "--yes", "--json").returncode == 0
    assert "p" not in [secret["label"] for secret in json.loads(_listed(made))]


def test_a_secret_that_the_file_names_is_not_destroyed(made: SoftHsmToken, gateway: Path, tmp_path: Path) -> None:
    wraps = tmp_path / "wraps.yaml"
    text = gateway.read_text().replace("psk_root: root", "psk_wrap_key: root")
    wraps.write_text(text.replace("derived", "wrapped:w"))
    (tmp_path / "w").touch()
    before = _listed(made)
    for file, label, said in (
        (gateway, "root", "the psk_root of gateway wgcli0: the derived PSKs of 1 peer (alice) could not be made again"),
        (gateway, "bob-psk", "the PSK of peer 'bob'"),
        (wraps, "root", "the psk_wrap_key of gateway wgcli0: the wrapped PSKs of 1 peer (alice) could not be opened"),
    ):
        done = run(made, "psk", "destroy", label, "--yes", "-c", str(file))
        assert done.returncode == ExitCode.BAD_CONFIG
        line = _one_line(done)
        assert f"'{label}' is {said}" in line
        assert "nothing was destroyed" in line
    assert _listed(made) == before


def test_every_command_explains_itself() -> None:
    for group, commands in {
        "token": ("init", "list", "show", "doctor"),
        "key": ("generate", "list", "show", "public", "destroy"),
        "psk": ("derive-root", "wrap", "put", "list", "destroy", "export", "rotate"),
    }.items():
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "wghsm", group, command, "--help"], capture_output=True, text=True, check=True
            )
            assert f"wghsm {group} {command}" in done.stdout.partition("Options:")[0].partition("Example")[2]
            assert "--json" in done.stdout


def test_commands_are_imported_one_by_one() -> None:
    code = (
        "import sys\nfrom wghsm.cli import main\n"
        "try: main(args=sys.argv[1:], prog_name='wghsm')\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('wghsm.') or name in ('pkcs11', 'pyroute2')])"
    )
    top = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    assert "wghsm.cli._output" in top
    for name in ("pkcs11", "pyroute2", "wghsm.config", "wghsm.cli.key"):
        assert f"'{name}'" not in top
    key = subprocess.run([sys.executable, "-c", code, "key", "-h"], capture_output=True, text=True, check=True).stdout
    assert "'wghsm.cli.key'" in key
    for name in ("pyroute2", "wghsm.cli.psk", "wghsm.cli.token", "wghsm.cli.run", "wghsm.config"):
        assert f"'{name}'" not in key


def test_version_usage_and_a_reader_that_leaves(made: SoftHsmToken) -> None:
    assert run(made, "--version").stdout.startswith(b"wghsm, version ")
    assert run(made, "nonsense").returncode == ExitCode.BAD_CONFIG
    assert run(made, "key", "list", "--nonsense").returncode == ExitCode.BAD_CONFIG
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", "token", "list", "--token", made.uri, "--json"],
        env={**os.environ, **made.environment},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (ExitCode.FAILURE, b"")
