"""`wghsm init` in a folder of its own: what it makes starts, what is there stays, what is wrong makes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.token.command import run_with
from wghsm.config import load
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not there yet, where the custodian's user may pass."""
    above = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    above.chmod(0o711)
    yield above / "etc"
    shutil.rmtree(above)


def run(*words: str, code: int = 0, **environment: str) -> str:
    """As command.run_with, where SoftHSM is not configured."""
    without = {name: value for name, value in os.environ.items() if name != "SOFTHSM2_CONF"}
    done = run_with({**without, **environment}, *words, code=code)
    return done.stdout + done.stderr


def test_all_that_a_gateway_needs(folder: Path) -> None:
    said = run("init", "wg7", "--folder", str(folder), "--endpoint", "vpn.example.org", "--dns", "10.8.0.1")
    # What is said to do next can be pasted into a shell.
    assert subprocess.run(["/bin/sh", "-n"], input=said.partition("next:")[2], text=True, check=False).returncode == 0
    assert f"export SOFTHSM2_CONF={folder}/hsm/softhsm2.conf    # " in said
    file, conf = folder / "wg7.yaml", folder / "hsm/softhsm2.conf"
    assert f"export SOFTHSM2_CONF={conf}" in said
    assert f"wghsm up {file}" in said
    gateway = load(file)
    assert (gateway.interface.name, gateway.interface.listen_port) == ("wg7", 51820)
    assert (str(gateway.clients.endpoint), gateway.clients.dns) == ("vpn.example.org:51820", ("10.8.0.1",))
    four, six = gateway.interface.addresses
    assert str(four) == "10.8.0.1/24"
    assert six.network.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]
    assert file.stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o777 == 0o755
    pin = folder / "hsm/wg7.pin"
    assert (pin.stat().st_mode & 0o777, pin.stat().st_uid) == (0o600, os.geteuid())
    if os.geteuid() == 0:
        assert {each.stat().st_uid for each in (folder / "hsm/tokens").rglob("*")} == {61100}
    key = json.loads(run("key", "show", "-c", str(file), "--json", SOFTHSM2_CONF=str(conf)))
    assert key["custody"] == "never-outside"
    assert key["public_key"] in said
    # What is handed out is recorded there.
    file.write_text(f"{file.read_text()}state_directory: {folder}/state\n")
    shown = run("peer", "add", "phone", "--generate-client-key", "--out", "-", "-c", str(file), SOFTHSM2_CONF=str(conf))
    assert "PresharedKey = " in shown
    assert f"PublicKey = {key['public_key']}" in shown


def test_a_second_gateway_joins_the_store_and_a_first_one_stays(folder: Path) -> None:
    run("init", "wg7", "--folder", str(folder))
    before = (folder / "wg7.yaml").read_bytes()
    assert "exists; nothing was changed" in run("init", "wg7", "--folder", str(folder), code=1)
    assert (folder / "wg7.yaml").read_bytes() == before
    shown = json.loads(run("init", "wg8", "--folder", str(folder), "--listen-port", "51821", "--json"))
    assert shown["key_made"]
    assert shown["psk_root"]
    assert sorted(each.name for each in folder.iterdir()) == ["hsm", "wg7.yaml", "wg8.yaml"]


def test_an_init_that_failed_half_way_is_given_again(folder: Path) -> None:
    first = json.loads(run("init", "wg7", "--folder", str(folder), "--json"))
    (folder / "wg7.yaml").unlink()
    again = json.loads(run("init", "wg7", "--folder", str(folder), "--json"))
    assert again["public_key"] == first["public_key"]
    assert not again["key_made"]


def at_once(folder: Path, *names: str, meanwhile: Callable[[], object] = str) -> list[tuple[int, str, str]]:
    """Have inits wait for one before them, which is the test; `meanwhile` is what becomes of that one.

    Gives exit code, standard output and what else was on standard error of each, the best first.
    """
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    running: list[subprocess.Popen[str]] = []
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running += [
            subprocess.Popen(
                [sys.executable, "-m", "wghsm", "init", name, "--folder", folder],
                env={key: value for key, value in os.environ.items() if key != "SOFTHSM2_CONF"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
        ]
        for each in running:
            assert each.stderr is not None
            assert each.stderr.readline() == f"another wghsm init is at work in {folder}; this one waits for it\n"
        meanwhile()
    except BaseException:
        for each in running:
            each.kill()
        raise
    finally:
        os.close(lock)
    said = [each.communicate(timeout=300) for each in running]
    return sorted((each.returncode, *words) for each, words in zip(running, said, strict=True))


def test_of_two_at_once_the_second_is_told_of_the_first(folder: Path) -> None:
    first, second = at_once(folder, "wg7", "wg7")
    assert (first[0], first[2]) == (0, "")
    assert second[:2] == (1, "")
    assert second[2] == (
        f"wghsm: another wghsm init has made {folder}/wg7.yaml meanwhile; this one changed nothing: choose another "
        f"NAME, or wghsm up {folder}/wg7.yaml\n"
    )
    conf = f"{folder}/hsm/softhsm2.conf"
    shown = json.loads(run("key", "list", "-c", f"{folder}/wg7.yaml", "--json", SOFTHSM2_CONF=conf))
    assert [key["label"] for key in shown] == ["gateway"]


def test_two_gateways_at_once_share_the_store(folder: Path) -> None:
    assert [(code, told) for code, _, told in at_once(folder, "wg7", "wg8")] == [(0, ""), (0, "")]
    assert sorted(each.name for each in folder.iterdir()) == ["hsm", "wg7.yaml", "wg8.yaml"]


def test_one_that_waited_for_one_that_failed_begins_anew(folder: Path) -> None:
    assert [(code, told) for code, _, told in at_once(folder, "wg7", meanwhile=folder.rmdir)] == [(0, "")]
    assert (folder / "wg7.yaml").exists()


def test_a_token_that_is_there(folder: Path) -> None:
    made = json.loads(run("token", "init", "--softhsm", str(folder / "other"), "--label", "mine", "--json"))
    shown = json.loads(
        run("init", "wg7", "--folder", str(folder), "--token", made["uri"], "--json", **made["environment"])
    )
    assert shown["uri"] == made["uri"]
    assert load(folder / "wg7.yaml").token.uri == made["uri"]
    assert not (folder / "hsm").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a name"], "interface name"),
        (["wg7", "--address", "10.8.0.300/24"], "not an address"),
        (["wg7", "--endpoint", "no host!"], "--endpoint takes"),
        (["wg7", "--dns", "1.2.3.300"], "neither an address"),
        (["wg7", "--token", "x"], "does not begin with pkcs11:"),
    ],
)
def test_what_cannot_be_makes_nothing(folder: Path, words: list[str], said: str) -> None:
    told = run("init", *words, "--folder", str(folder), code=ExitCode.BAD_CONFIG)
    assert said in told
    assert not re.search(r"the options:[0-9]", told)
    assert not folder.exists()


def test_a_token_that_cannot_be_used_leaves_no_folder(folder: Path) -> None:
    uri = "pkcs11:token=gw?module-path=/nowhere.so&pin-source=prompt"
    run("init", "wg7", "--folder", str(folder / "in"), "--token", uri, code=ExitCode.BAD_CONFIG)
    assert not folder.exists()


def test_a_file_is_no_folder(folder: Path) -> None:
    folder.write_text("")
    for place in (folder, folder / "in"):
        assert f"{place} is no folder" in run("init", "wg7", "--folder", str(place), code=1)


def test_a_uid_is_a_number_that_the_kernel_has(folder: Path) -> None:
    for word in ("--uid", "--gid"):
        said = run("token", "init", "--softhsm", str(folder), word, "-5", code=ExitCode.BAD_CONFIG)
        assert "'-5'" in said or "-5 is not in the range" in said
    assert not folder.exists()


def test_an_endpoint_may_be_an_ipv6_address(folder: Path) -> None:
    run("init", "wg7", "--folder", str(folder), "--endpoint", "2001:db8::1", "--listen-port", "51900")
    assert str(load(folder / "wg7.yaml").clients.endpoint) == "[2001:db8::1]:51900"
