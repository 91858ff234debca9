"""What every command shares: closed streams, a full disk behind standard output, other character sets, wrong usage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wghsm.exits import ExitCode

GATEWAY = """\
version: 1
token:
  uri: "pkcs11:token=gw?module-path=/nowhere.so&pin-source=prompt"
interface:
  name: wgnone0
  key: gateway
clients:
  endpoint: vpn.example.org:51820
peers:
  - name: ä
    public_key: "{key}"
    preshared_key: none
    allowed_ips: [10.8.0.2/32]
    note: до марта
"""
KEY = "3yPcUfR8xm2sRKQqMVnhkHhDqvCVSdCZI8wjVn0ZYD0="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.yaml"
    path.write_text(GATEWAY.replace("{key}", KEY))
    return path


def shell(line: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh; `$wghsm` and "$@" are the command and its words."""
    done = subprocess.run(
        ["/bin/sh", "-c", line.replace("$wghsm", f"{sys.executable} -m wghsm"), "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment},
        encoding="latin-1",
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["peer", "remove", "ä", "-c"], "standard input is no terminal to ask at; add --yes"),
        (["psk", "put", "x", "-c"], "standard input is no PSK"),
        (["key", "import", "x", "-c"], "standard input is no private key"),
        (["ceremony", "-c"], "a ceremony needs a terminal"),
    ],
)
def test_a_closed_standard_input_is_an_empty_one(file: Path, words: list[str], told: str) -> None:
    done = shell('$wghsm "$@" <&-', *words, str(file))
    assert done.returncode == ExitCode.BAD_CONFIG
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_closed_outputs_are_quiet_ones(file: Path) -> None:
    done = shell('$wghsm "$@" >&-', "check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = shell('$wghsm "$@" >&- 2>&-', "check", f"{file}.not")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.BAD_CONFIG, "", "")


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    """What is printed, by a vendor's module too, must not land in a file that was opened since."""
    code = (
        "import os; from wghsm.cli._output import run_command; run_command(lambda: "
        "print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 2)], os.open('/', os.O_RDONLY) > 2))"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -c "$1" <&- 2>&-', "sh", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "['/dev/null', '/dev/null'] True\n"


@pytest.mark.parametrize("words", [["--help"], ["man", "--markdown"], ["schema"]])
def test_a_full_disk_behind_standard_output_is_named(words: list[str]) -> None:
    done = shell('$wghsm "$@" >/dev/full', *words)
    assert done.returncode == ExitCode.FAILURE
    assert done.stderr == "wghsm: standard output: No space left on device\n"


def test_a_character_set_without_a_name_s_letters_does_not_end_a_command(file: Path) -> None:
    shown = shell('$wghsm "$@"', "peer", "show", "ä", "-c", str(file), PYTHONIOENCODING="latin-1")
    assert shown.returncode == 0
    assert "name:                 ä\n" in shown.stdout
    assert "note:                 \\u0434\\u043e \\u043c" in shown.stdout


@pytest.mark.parametrize("verb", [["config", "ä"], ["add", "b", "--public-key", KEY]])
def test_a_code_needs_a_character_set_with_blocks(file: Path, verb: list[str]) -> None:
    before = file.read_text()
    done = shell('$wghsm "$@"', "peer", *verb, "--qr", "--out", "-", "-c", str(file), PYTHONIOENCODING="latin-1")
    assert done.returncode == ExitCode.BAD_CONFIG
    assert done.stderr == (
        "wghsm: standard output is iso8859-1, which cannot show a code; use --png FILE, or a UTF-8 locale\n"
    )
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["key", "destroy"], "missing argument 'LABEL'; see: wghsm key destroy --help"),
        (["key", "rotate", "--nonsense"], "no such option '--nonsense'; see: wghsm key rotate --help"),
        (["statsu"], "no such command 'statsu'. Did you mean 'status'? See: wghsm --help"),
        (
            ["completion", "tcsh"],
            "invalid value for '{bash|zsh|fish}': 'tcsh' is not one of 'bash', 'zsh', 'fish'; "
            "see: wghsm completion --help",
        ),
        (
            ["completion"],
            "missing argument '{bash|zsh|fish}'; choose from: bash, zsh, fish; see: wghsm completion --help",
        ),
        (["man", "peer", "lst"], "there is no command 'wghsm peer lst'; see: wghsm --help"),
    ],
)
def test_wrong_usage_is_one_line_with_what_and_where(words: list[str], told: str) -> None:
    done = shell('$wghsm "$@"', *words)
    assert (done.returncode, done.stdout) == (ExitCode.BAD_CONFIG, "")
    assert done.stderr == f"wghsm: {told}\n"


def test_a_group_without_a_command_shows_its_help() -> None:
    done = shell('$wghsm "$@"', "peer")
    assert done.returncode == ExitCode.BAD_CONFIG
    assert "Usage: wghsm peer [OPTIONS] COMMAND" in done.stderr
