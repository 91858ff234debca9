"""Commands that take FILE|NAME: a name stands for /etc/wghsm/NAME.yaml; where it is not, they say where they looked."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.unit.config.samples import GOOD
from wghsm.cli import main, run
from wghsm.config import Gateway
from wghsm.exits import ExitCode


@pytest.fixture
def folder(no_gateway_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in the place of /etc/wghsm; the working directory is another."""
    monkeypatch.chdir(tmp_path)
    return no_gateway_files


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose gateways were started."""
    files: list[str] = []

    def start(file: str, _gateway: Gateway, _log: str | None = None) -> Path:
        files.append(file)
        return Path("/run/log")

    monkeypatch.setattr(run, "start_in_background", start)
    return files


def wghsm(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_a_name_is_a_file_in_the_folder(folder: Path, started: list[str]) -> None:
    (folder / "wg0.yaml").write_text(GOOD)
    assert wghsm("up", "wg0").output == "wg0 is up; log in /run/log\n"
    assert started == [str(folder / "wg0.yaml")]
    assert wghsm("check", "wg0").output.startswith(f"{folder}/wg0.yaml: ok, ")


@pytest.mark.parametrize("name", ["other.yaml", "./other", "other"])
def test_a_file_is_a_file(folder: Path, tmp_path: Path, started: list[str], name: str) -> None:
    (folder / "other.yaml").write_text("version: [")
    (tmp_path / name).write_text(GOOD)
    assert wghsm("up", name).exit_code == 0
    assert [Path(file).resolve() for file in started] == [(tmp_path / name).resolve()]


@pytest.mark.parametrize("verb", ["up", "run", "check"])
def test_what_was_looked_for_is_told(folder: Path, verb: str) -> None:
    done = wghsm(verb, "wg7")
    looked = f"wghsm: no gateway file for 'wg7': looked for {folder}/wg7.yaml, and for a file 'wg7' here"
    assert (done.exit_code, done.output) == (ExitCode.BAD_CONFIG, f"{looked}; there is none in {folder}\n")
    (folder / "wg0.yaml").write_text(GOOD)
    assert wghsm(verb, "wg7").output == f"{looked}; there is: {folder}/wg0.yaml\n"


@pytest.mark.parametrize("verb", ["up", "run"])
def test_a_name_is_the_interface_s(folder: Path, started: list[str], verb: str) -> None:
    (folder / "office.yaml").write_text(GOOD)
    done = wghsm(verb, "office")
    assert done.exit_code == ExitCode.BAD_CONFIG
    assert done.output == (
        f"wghsm: {folder}/office.yaml is for the interface wg0, not office; write interface.name: office, or give the "
        f"path {folder}/office.yaml in place of the name\n"
    )
    assert started == []
    assert wghsm("check", "office").exit_code == 0


def test_a_plan_is_of_a_running_gateway(folder: Path) -> None:
    (folder / "wg7.yaml").write_text(GOOD)
    done = wghsm("plan", "wg7")
    assert done.exit_code == ExitCode.NOT_RUNNING
    assert done.output == "wghsm: no gateway 'wg7' is running; start it with: wghsm up wg7\n"
