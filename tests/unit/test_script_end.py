"""What the scripts clean up with (at_end of script/lib.sh) runs once, however the script ends."""

import subprocess
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "script" / "lib.sh"
SCRIPT = """
source "$1"
clean_up() { echo "cleaning up after $1"; }
at_end clean_up
$2
echo "not reached"
"""


def run(ending: str) -> tuple[int, str]:
    done = subprocess.run(
        # A shell cannot trap a signal that was ignored when it began, as nohup has it.
        ["env", "--default-signal=HUP,INT,TERM", "bash", "-c", SCRIPT.replace("$2", ending), "-", str(LIBRARY)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # The scripts' own group: a signal to all of it is theirs alone.
        process_group=0,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("false", 1),
        ("kill -INT $$; sleep 60", 130),
        ("kill -TERM $$; sleep 60", 143),
        ("kill -HUP $$; sleep 60", 129),
    ],
)
def test_it_is_told_the_exit_code(ending: str, code: int) -> None:
    assert run(ending) == (code, f"cleaning up after {code}\n")


def test_a_signal_while_the_script_is_ending_already_does_not_keep_it_from_cleaning_up() -> None:
    # Its trap is still to run when "exit" begins.
    assert run("exit $(kill -INT $$; echo 3)") == (130, "cleaning up after 130\n")
