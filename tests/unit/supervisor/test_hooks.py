"""Programs at start and end: their surroundings, their output in the log, failures and the time limit."""

import logging
from pathlib import Path

import pytest

from tests.unit.supervisor.support import gateway
from wghsm.config import Gateway, Hooks
from wghsm.supervisor import _hooks
from wghsm.supervisor._fault import GatewayFault
from wghsm.supervisor._hooks import run_down, run_up

SH = "/bin/sh"


def with_hooks(*up: tuple[str, ...], down: tuple[tuple[str, ...], ...] = ()) -> Gateway:
    return gateway().model_copy(update={"hooks": Hooks(up=up, down=down)})


def test_arguments_go_as_they_are_and_the_environment_is_small(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_up(with_hooks((SH, "-c", 'echo "$0 $WGHSM_INTERFACE"; pwd', "$HOME; *"), ("/usr/bin/env",)))
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said[:2] == ["$HOME; * wgt0", "/"]
    assert sorted(line.partition("=")[0] for line in said[2:]) == ["PATH", "WGHSM_INTERFACE"]


def test_the_first_up_hook_that_fails_is_the_last(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(GatewayFault, match=r"^the up hook /bin/sh has failed with exit code 3: no .way$"):
        run_up(
            with_hooks((SH, "-c", "echo before; printf 'no \\033way' >&2; exit 3"), ("/usr/bin/touch", str(touched)))
        )
    assert not touched.exists()
    with pytest.raises(GatewayFault, match=r"failed with signal 9$"):
        run_up(with_hooks((SH, "-c", "kill -9 $$")))
    with pytest.raises(GatewayFault, match=r"^the up hook /nowhere/at/all cannot be started: No such file"):
        run_up(with_hooks(("/nowhere/at/all",)))


def test_down_hooks_are_all_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touched = tmp_path / "touched"
    run_down(with_hooks(down=(("/bin/false",), ("/usr/bin/touch", str(touched)))))
    assert touched.exists()
    assert "the down hook /bin/false has failed with exit code 1" in caplog.text


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hooks, "TIME_LIMIT", 0.2)
    with pytest.raises(GatewayFault, match=r"took longer than 0\.2 s and was ended"):
        run_up(with_hooks((SH, "-c", "sleep 600 & sleep 600")))


def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    run_up(with_hooks((SH, "-c", 'sleep 600 & echo $! > "$0"', str(pid))))
    left = Path("/proc", pid.read_text().strip())
    assert left.exists()
    run_up(with_hooks((SH, "-c", f"kill {left.name}")))


def test_endless_output_is_not_kept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_hooks, "TIME_LIMIT", 0.3)
    caplog.set_level(logging.INFO)
    with pytest.raises(GatewayFault, match="took longer"):
        run_up(with_hooks(("/usr/bin/yes",)))
    assert len(caplog.records) <= 4096
