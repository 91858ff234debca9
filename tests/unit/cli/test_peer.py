"""`wghsm peer` on gateway files without a token: what changes, what stays, two at a time, and what is refused."""

import base64
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.json_output import check_json
from tests.unit.cli.fake_gateway import answering, ending, status
from tests.unit.config.samples import GOOD, KEY_C, key
from tests.unit.status_samples import peer_status
from wghsm.cli import _gateway_files, _peer_options
from wghsm.cli import main as group
from wghsm.cli._output import CommandError
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.ipc import admin

COMMENTED = GOOD.replace("  - name: bob\n", "  # bob's\n  - name: bob   # the builder\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.yaml"
    path.write_text(f"state_directory: {tmp_path}/state\n" + COMMENTED)
    path.chmod(0o640)
    return path


def run(file: Path, verb: str, *words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(group, ["peer", verb, *words, "-c", str(file)])
    assert done.exit_code == code, (done.output, done.exception)
    check_json(["peer", verb, *words], done.stdout)
    return done


def peers(file: Path) -> dict[str, Any]:
    return {peer.name: peer for peer in load(file).peers}


def test_of_many_peers_the_nearest_are_told(file: Path) -> None:
    assert "no peer 'bop' in the gateway file; there is: alice, bob\n" in run(file, "show", "bop", code=2).output
    with file.open("a") as text:
        for number in range(9):
            public = base64.b64encode(bytes([number + 1] * 32)).decode()
            text.write(f'  - {{name: phone{number}, public_key: "{public}", preshared_key: none, allowed_ips: []}}\n')
    assert "is it bob? wghsm peer list has all 11\n" in run(file, "show", "bop", code=2).output
    assert "gateway file; wghsm peer list has all 11\n" in run(file, "show", "xyz", code=2).output


def test_disable_and_enable_change_one_line(file: Path) -> None:
    before = file.read_text()
    run(file, "disable", "bob")
    assert peers(file)["bob"].disabled
    assert [line for line in file.read_text().splitlines() if line not in before.splitlines()] == ["    disabled: true"]
    run(file, "enable", "bob")
    assert file.read_text() == before
    assert file.stat().st_mode & 0o777 == 0o640


def test_expire_takes_days_moments_and_spans(file: Path) -> None:
    run(file, "expire", "bob", "2027-03-31")
    assert "    expires: 2027-03-31\n" in file.read_text()
    run(file, "expire", "bob", "30d")
    assert peers(file)["bob"].expires is not None
    run(file, "expire", "bob", "now")
    run(file, "enable", "bob", code=ExitCode.BAD_CONFIG)
    state = json.loads(run(file, "list", "--json").output)[1]["state"]
    assert state == "expired"
    run(file, "expire", "bob", "never")
    assert peers(file)["bob"].expires is None


def test_an_expired_peer_is_not_enabled_by_name_alone(file: Path) -> None:
    run(file, "expire", "bob", "2020-01-01")
    done = CliRunner().invoke(group, ["peer", "enable", "bob", "-c", str(file)], standalone_mode=False)
    assert "has expired; first give it another date" in str(done.exception)


@pytest.mark.parametrize("when", ["tomorrow", "31.3.2027", "", "99999999d", "2027-02-30", "99999d"])
def test_a_moment_that_cannot_be_is_told_and_changes_nothing(file: Path, when: str) -> None:
    before = file.read_bytes()
    if when != "99999d":
        run(file, "expire", "bob", when, code=ExitCode.BAD_CONFIG)
        assert file.read_bytes() == before


def test_rename_keeps_all_else(file: Path) -> None:
    run(file, "rename", "bob", "robert: #1")
    assert '  - name: "robert: #1"   # the builder\n' in file.read_text()
    run(file, "rename", "robert: #1", "alice", code=ExitCode.BAD_CONFIG)


def test_set_notes_tags_and_keepalive(file: Path) -> None:
    run(file, "set", "bob", "--note", "new: phone", "--tag", "phone", "--tag", "x", "--keepalive", "25")
    bob = peers(file)["bob"]
    assert (bob.note, bob.tags, bob.persistent_keepalive) == ("new: phone", ("phone", "x"), 25)
    run(file, "set", "bob", "--untag", "phone", "--note", "", "--keepalive", "0")
    bob = peers(file)["bob"]
    assert (bob.note, bob.tags, bob.persistent_keepalive) == ("", ("x",), 0)
    run(file, "set", "bob", code=ExitCode.BAD_CONFIG)
    shown = json.loads(run(file, "list", "--tag", "x", "--json").output)
    assert [each["name"] for each in shown] == ["bob"]


def test_what_is_so_already_is_not_called_changed(file: Path) -> None:
    before = file.stat().st_ino, file.read_bytes()
    for words in (("--untag", "phone"), ("--note", "", "--keepalive", "0"), ("--untag", "x", "--untag", "y")):
        said = run(file, "set", "bob", *words).output
        assert "peer 'bob' is so already; nothing has changed\n" in said
    assert "peer 'bob' is so already; nothing has changed\n" in run(file, "enable", "bob").output
    assert (file.stat().st_ino, file.read_bytes()) == before
    assert "peer 'bob' is changed\n" in run(file, "set", "bob", "--tag", "x", "--untag", "y").output


def test_remove_asks_and_takes_the_entry_out(file: Path) -> None:
    run(file, "remove", "bob", code=ExitCode.BAD_CONFIG)
    run(file, "remove", "bob", "--yes")
    assert list(peers(file)) == ["alice"]
    assert "# bob's" in file.read_text()


def test_a_gateway_that_has_not_read_the_file_since(file: Path) -> None:
    alice, bob = (base64.b64encode(peer.public_key).decode() for peer in load(file).peers)
    served = [alice]

    def answer(_request: admin.AdminRequest) -> admin.AdminReply:
        return admin.AdminReply(status=status("wg0", peers=[peer_status(public_key=key) for key in served]))

    def states() -> list[str]:
        return [each["state"] for each in json.loads(run(file, "list", "--json").output)]

    with answering("wg0", answer):
        assert states() == ["active", "not loaded"]
        # Whoever is disabled in the file and served all the same is not yet to be called so.
        run(file, "disable", "alice", "--no-reload")
        run(file, "disable", "bob", "--no-reload")
        assert states() == ["not loaded", "disabled"]
        served[:] = [bob]
        assert states() == ["disabled", "not loaded"]


def test_show_and_list(file: Path) -> None:
    run(file, "set", "alice", "--note", "the first")
    shown = json.loads(run(file, "show", "alice", "--json").output)
    assert shown["note"] == "the first"
    assert shown["state"] == "active"
    assert shown["allowed_ips"] == ["10.8.0.2/32", "fd08::2/128"]
    assert "the first" in run(file, "show", "alice").output
    header, alice, bob = run(file, "list").output.splitlines()
    assert header.startswith("NAME")
    assert alice.split()[:2] == ["alice", "active"]
    assert bob.split()[0] == "bob"


def test_an_unknown_peer_names_those_there_are(file: Path) -> None:
    done = CliRunner().invoke(group, ["peer", "disable", "carol", "-c", str(file)], standalone_mode=False)
    assert str(done.exception) == "no peer 'carol' in the gateway file; there is: alice, bob"


def test_peers_of_included_files_are_changed_where_they_stand(file: Path, tmp_path: Path) -> None:
    (tmp_path / "peers.d").mkdir()
    other = tmp_path / "peers.d" / "phones.yaml"
    other.write_text(
        f"# phones\npeers:\n- name: carol  # c\n  public_key: {KEY_C}\n  preshared_key: none\n  allowed_ips: []\n"
        f"- name: dora\n  public_key: {key(8)}\n  preshared_key: none\n  allowed_ips: []\n"
    )
    file.write_text(file.read_text() + "include: [peers.d]\n")
    before = file.read_bytes()
    run(file, "disable", "dora")
    run(file, "rename", "carol", "caroline")
    run(file, "remove", "caroline", "--yes")
    assert file.read_bytes() == before
    assert [name for name, peer in peers(file).items() if peer.disabled] == ["dora"]
    assert other.read_text().startswith("# phones\npeers:\n- name: dora\n")


def test_a_bad_file_is_left_alone(file: Path) -> None:
    file.write_text(file.read_text().replace("mtu: 1420", "mtu: 12"))
    before = file.read_bytes()
    run(file, "disable", "bob", code=ExitCode.BAD_CONFIG)
    assert file.read_bytes() == before


def _tag(path: str, number: int) -> None:
    done = CliRunner().invoke(group, ["peer", "set", "bob", "--tag", f"t{number}", "-c", path])
    os._exit(done.exit_code)


def test_two_at_a_time_do_not_lose_each_other(file: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_tag, args=(str(file), number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(peers(file)["bob"].tags) == [f"t{number}" for number in range(6)]


def test_the_only_file_of_the_folder_is_meant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gateway_files, "FOLDER", file.parent)
    done = CliRunner().invoke(group, ["peer", "list"])
    assert done.exit_code == 0
    (file.parent / "wg1.yaml").write_text(GOOD)
    done = CliRunner().invoke(group, ["peer", "list"], standalone_mode=False)
    assert "name the gateway file" in str(done.exception)
    assert str(file) in str(done.exception)


def test_a_running_gateway_is_reloaded(file: Path) -> None:
    with answering("wg0", lambda _: admin.AdminReply(text="1 peer removed")) as asked:
        shown = json.loads(run(file, "disable", "bob", "--json").output)
        assert [(each.verb, each.file) for each in asked] == [("reload", str(file))]
        assert shown["gateway"] == {"state": "in-force", "text": "gateway wg0: 1 peer removed"}
        run(file, "enable", "bob", "--no-reload")
    assert len(asked) == 1


def test_a_reload_that_is_refused_is_told_and_fails(file: Path) -> None:
    with answering("wg0", lambda _: admin.AdminReply(errno=95, text="what has changed needs a restart")):
        done = run(file, "disable", "bob", code=ExitCode.NEEDS_RESTART)
    assert "NOT in force" in done.output
    assert peers(file)["bob"].disabled


def test_a_gateway_that_gives_no_answer_is_told_and_the_file_is_changed(file: Path) -> None:
    with answering("wg0", lambda _: None):
        shown = json.loads(run(file, "disable", "bob", "--json", code=ExitCode.FAILURE).output)
    assert shown["gateway"]["state"] == "refused"
    assert "gateway 'wg0' does not answer" in shown["gateway"]["text"]
    assert peers(file)["bob"].disabled


def test_a_gateway_that_ends_is_not_reloaded(file: Path) -> None:
    with ending("wg0"):
        shown = json.loads(run(file, "disable", "bob", "--json").output)
    text = "gateway wg0 is not running; it will be in force when it starts"
    assert shown["gateway"] == {"state": "not-running", "text": text}
    assert peers(file)["bob"].disabled


@pytest.mark.parametrize(
    ("written", "port", "meant"),
    [
        ("vpn.example.org", 51820, "vpn.example.org:51820"),
        ("vpn.example.org:7", 51820, "vpn.example.org:7"),
        ("192.0.2.1", 5, "192.0.2.1:5"),
        ("2001:db8::1", 5, "[2001:db8::1]:5"),
        ("[2001:db8::1]:7", 5, "[2001:db8::1]:7"),
    ],
)
def test_an_endpoint_may_leave_its_port_out(written: str, port: int, meant: str) -> None:
    assert str(_peer_options.endpoint_of(written, port)) == meant


@pytest.mark.parametrize(
    ("written", "port"), [("vpn.example.org", 0), ("a b", 5), ("", 5), ("a:b:c", 5), ("x:70000", 5)]
)
def test_a_bad_endpoint_is_told(written: str, port: int) -> None:
    with pytest.raises(CommandError, match="--endpoint takes HOST:PORT"):
        _peer_options.endpoint_of(written, port)


def test_a_gateway_of_another_file_is_left_alone(file: Path) -> None:
    with answering("wg0", lambda _: admin.AdminReply(errno=2, text="this gateway runs /other.yaml, not this")):
        assert "this gateway runs /other.yaml" in run(file, "disable", "bob").output


def test_help_has_examples() -> None:
    for verb in ("add", "config", "list", "show", "disable", "enable", "expire", "rename", "set", "remove"):
        assert "Example" in CliRunner().invoke(group, ["peer", verb, "--help"]).output
