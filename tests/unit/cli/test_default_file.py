"""Where neither --token nor -c is given: the only gateway file in /etc/wghsm is meant, and never one of several."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.config.samples import GOOD
from wghsm.cli import main
from wghsm.exits import ExitCode


@pytest.fixture
def folder(no_gateway_files: Path) -> Path:
    return no_gateway_files


def test_the_only_file_is_meant(folder: Path) -> None:
    (folder / "wg0.yaml").write_text(GOOD + f"state_directory: {folder}/state\n")
    done = CliRunner().invoke(main, ["psk", "list", "--peers"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == ["PEER", "alice", "bob"]


@pytest.mark.parametrize(
    "words",
    [
        ["key", "list"],
        ["token", "show"],
        ["token", "doctor"],
        ["psk", "list"],
        ["audit", "key", "public"],
        ["key", "rotate"],
        ["key", "retire"],
        ["psk", "rotate", "alice"],
        ["psk", "wrap", "alice"],
        ["peer", "list"],
    ],
)
def test_none_and_several_are_told(folder: Path, words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == ExitCode.BAD_CONFIG
    assert done.output.endswith(f"-c GATEWAY.yaml; there is none in {folder}\n")
    for name in ("wg1", "wg0"):
        (folder / f"{name}.yaml").write_text(GOOD)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == ExitCode.BAD_CONFIG
    assert done.output.endswith(f"-c GATEWAY.yaml; there is: {folder}/wg0.yaml, {folder}/wg1.yaml\n")


def test_a_new_token_is_always_named(folder: Path) -> None:
    (folder / "wg0.yaml").write_text(GOOD)
    done = CliRunner().invoke(main, ["token", "init", "--so-pin-source", "prompt"])
    assert done.exit_code == ExitCode.BAD_CONFIG
    assert "name the token: either --token URI or -c GATEWAY.yaml" in done.output
