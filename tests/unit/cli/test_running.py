"""Which gateways run, as the commands see it: some are killed, some end while they are asked, some do not answer."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from tests.json_output import check_json
from tests.unit.cli.fake_gateway import answering, ending, killed, listening, status
from tests.unit.config.samples import GOOD
from wghsm.cli import _admin, _dependents, _key_retire, inventory, main, plan
from wghsm.cli._output import CommandError
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.inventory.notes import Notes
from wghsm.ipc import admin

_SILENT = "gateway 'silent' does not answer; its log says why, then try again"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the gateway that is called so."""
    send = _admin._send

    def hurried(gateway: str, request: admin.AdminRequest, patience: float) -> bytes:
        return send(gateway, request, 0.01 if gateway == "silent" else patience)

    monkeypatch.setattr(_admin, "_send", hurried)


def shown(done: Result) -> list[str]:
    return [each["name"] for each in json.loads(done.stdout)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.yaml"
    path.write_text(f"state_directory: {tmp_path}/state\n" + GOOD)
    return path


def wghsm(*words: str | Path) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    check_json(words, done.stdout)
    return done


def test_a_killed_gateway_does_not_run(run_folder: Path) -> None:
    killed("gone")
    (run_folder / "empty").mkdir()
    (run_folder / "stray").touch()
    (run_folder / "odd" / "admin.sock").mkdir(parents=True)
    done = wghsm("status", "--json")
    assert (done.exit_code, done.stdout) == (ExitCode.NOT_RUNNING, "")
    assert done.stderr == "wghsm: no gateway is running; start one with: wghsm up FILE\n"
    with answering("wg0"):
        done = wghsm("status", "--json")
        assert (done.exit_code, shown(done), done.stderr) == (0, ["wg0"], "")
        assert ShellComplete(main, {}, "wghsm", "_WGHSM_COMPLETE").get_completions(["status"], "")[0].value == "wg0"


def test_a_gateway_that_ends_while_it_is_asked_does_not_run() -> None:
    with answering("wg0"), ending("wg1"):
        done = wghsm("status", "--json")
        assert (done.exit_code, shown(done), done.stderr) == (0, ["wg0"], "")
    with ending("wg2"):
        done = wghsm("status")
        assert (done.exit_code, done.stdout) == (ExitCode.NOT_RUNNING, "")
        assert done.stderr == "wghsm: no gateway is running; start one with: wghsm up FILE\n"


def test_a_gateway_that_does_not_answer_hides_no_other() -> None:
    with listening("silent"), answering("closes", lambda _: None), answering("wg0"), answering("wg1"):
        done = wghsm("status", "--json")
        assert (done.exit_code, shown(done)) == (ExitCode.FAILURE, ["wg0", "wg1"])
        assert done.stderr == f"wghsm: {_SILENT.replace('silent', 'closes')}; {_SILENT}\n"
        done = wghsm("status")
        assert done.exit_code == ExitCode.FAILURE
        assert [line for line in done.stdout.splitlines() if line.startswith("gateway")] == [
            "gateway: wg0",
            "gateway: wg1",
        ]
        done = wghsm("status", "silent")
        assert (done.exit_code, done.output) == (ExitCode.FAILURE, f"wghsm: {_SILENT}\n")


def test_a_gateway_that_does_not_run_is_not_named_among_those_that_do() -> None:
    killed("gone")
    for name in ("gone", "absent"):
        done = wghsm("status", name)
        assert done.exit_code == ExitCode.NOT_RUNNING
        assert done.output == f"wghsm: no gateway {name!r} is running; start it with: wghsm up FILE\n"
    with answering("wg0"), ending("wg1"):
        done = wghsm("rekey", "wg1")
        assert done.exit_code == ExitCode.NOT_RUNNING
        assert done.output == "wghsm: no gateway 'wg1' is running; running are: wg0\n"


def test_the_gateway_of_a_file_is_found_among_all(file: Path) -> None:
    config = admin.Config(file=str(file), loaded={}, running={}, wrapped={})

    def answer(_request: admin.AdminRequest) -> admin.AdminReply:
        return admin.AdminReply(text="nothing has changed", status=status("wg5", str(file)), config=config)

    killed("gone")
    with ending("ends"), listening("silent"), answering("wg4") as other, answering("wg5", answer) as asked:
        done = wghsm("reload", file)
        assert (done.exit_code, done.output) == (0, "wg5: nothing has changed\n")
        # The others hear of no reload, nor do their audit logs.
        assert {each.verb for each in other} == {"status"}
        assert [each.file for each in asked if each.verb == "reload"] == [str(file)]
        assert plan._running("wg0", str(file)) == ("wg5", config)


def test_the_gateway_that_is_called_as_the_file_is_asked_first(file: Path) -> None:
    reply = admin.AdminReply(text="nothing has changed", status=status("wg0", str(file)))
    with answering("office") as other, answering("wg0", lambda _: reply):
        assert wghsm("reload", file).output == "wg0: nothing has changed\n"
    assert other == []


def test_a_file_that_no_gateway_has(file: Path) -> None:
    killed("gone")
    with ending("ends"), answering("wg4"):
        done = wghsm("reload", file)
    assert done.exit_code == ExitCode.NOT_RUNNING
    assert done.output == f"wghsm: no running gateway has the file {file}; start one with: wghsm up FILE\n"
    killed("wg0")
    done = wghsm("plan", file)
    assert done.exit_code == ExitCode.NOT_RUNNING
    assert done.output == f"wghsm: no gateway 'wg0' is running; start it with: wghsm up {file}\n"
    with listening("silent"):
        for verb in ("plan", "reload"):
            done = wghsm(verb, file)
            assert done.exit_code == ExitCode.FAILURE
            assert done.output == f"wghsm: no gateway that answers has the file {file}; {_SILENT}\n"


def _peers(file: Path) -> None:
    done = wghsm("peer", "list", "-c", file, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert {each["state"] for each in json.loads(done.stdout)} == {"active"}


def _timestamps(file: Path) -> None:
    done = wghsm("peer", "reset-timestamp", "alice", "--yes", "-c", file)
    # That of the file's owner is not there either.
    assert done.output.startswith("wghsm: there is no state in ")


def _inventory(_file: Path) -> None:
    inventory._hear("wg0", Notes())


def _destroying(file: Path) -> None:
    _dependents.refuse_in_use(load(file), str(file), "another")


def _retiring(file: Path) -> None:
    with pytest.raises(CommandError, match="is not running, so nobody knows") as fault:
        _key_retire._users(load(file), force=False)
    assert fault.value.exit_code == ExitCode.NOT_RUNNING


@pytest.mark.parametrize("ask", [_peers, _timestamps, _inventory, _destroying, _retiring])
def test_commands_that_ask_one_gateway_go_on_without_it(file: Path, ask: Callable[[Path], None]) -> None:
    ask(file)
    killed("wg0")
    ask(file)
    admin.admin_socket_path("wg0").unlink()
    with ending("wg0"):
        ask(file)
