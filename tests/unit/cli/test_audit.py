"""`wghsm audit verify|show|schema`: exit codes, words and JSON."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.json_output import check_json
from tests.unit.audit.support import NOW, SECOND, Signer, use, write_log
from wghsm.audit import AuditLog, Event
from wghsm.cli import main
from wghsm.cli._output import CommandError
from wghsm.cli.audit import audit
from wghsm.exits import ExitCode

SIGNER = Signer()
ALICE = "YWxpY2UncyBwdWJsaWMga2V5LCAzMiBieXRlcyBsb25nLg="


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    done = CliRunner().invoke(audit, list(arguments), input=stdin, standalone_mode=False)
    check_json(["audit", *arguments], done.stdout)
    return done


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "audit.pem").write_bytes(SIGNER.pem)
    return str(tmp_path / "audit.pem")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_a_good_log_is_proved(log: Path, key: str) -> None:
    lines = write_log(log, SIGNER, [5, 5])
    done = run("verify", str(log), "--key", key)
    assert done.return_value == ExitCode.OK
    assert "log gateway: as it was written" in done.output
    assert "proved:    up to record 11," in done.output
    assert "unsealed:  1 record, the checkpoint itself among them" in done.output
    assert "Without an anchor" in done.output
    done = run("verify", str(log), "--key", key, "--anchor", "-", stdin=b"\n".join(lines))
    assert done.return_value == ExitCode.OK
    assert "anchored:  13 of these records, the last is 12" in done.output
    assert "Without an anchor" not in done.output


def test_json_says_the_same(log: Path, key: str) -> None:
    write_log(log, SIGNER, [5, 5])
    said = json.loads(run("verify", str(log), "--key", key, "--json").output)
    assert said["verdict"] == "proved"
    (only,) = said["logs"]
    assert (only["log"], only["proved_to"], only["unsealed"], only["last"]) == ("gateway", 11, 1, 12)
    assert only["signed_by"] == SIGNER.public.fingerprint


def test_a_changed_log_is_told_with_its_place(log: Path, key: str) -> None:
    lines = write_log(log, SIGNER, [5, 5], size=1 << 20)
    (log / "gateway.000001.jsonl").write_bytes(b"\n".join([*lines[:3], *lines[4:]]) + b"\n")
    done = run("verify", str(log), "--key", key)
    assert done.return_value == ExitCode.FAILURE
    assert "NOT as it was written" in done.output
    assert "PROBLEM:   gateway.000001.jsonl:4: record 3 is missing" in done.output


def test_many_problems_are_counted(log: Path) -> None:
    (log / "gateway.000001.jsonl").write_bytes(b"rubbish\n" * 100)
    assert "and 80 problems more" in run("verify", str(log)).output


def test_without_a_key_nothing_is_proved(log: Path, key: str) -> None:
    write_log(log, SIGNER, [5])
    done = run("verify", str(log))
    assert done.return_value == ExitCode.UNPROVED
    assert "no public key was given" in done.output
    done = run("verify", str(log), "--key", key, "--max-age", "5m")
    assert done.return_value == ExitCode.FAILURE
    assert "the newest checkpoint is of 2026-01-01" in done.output
    assert run("verify", str(log), "--key", key, "--gateway", "wg7").return_value == ExitCode.FAILURE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify"], "name the log"),
        (["verify", "/nowhere"], "is no folder"),
        (["verify", "/", "--max-age", "soon"], "no time span"),
        (["verify", "/", "--key", "/dev/null"], "no public key in PEM"),
        (["show", "/", "--since", "soon"], "no time"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, CommandError)
    assert said in str(done.exception)


@pytest.fixture
def shown(log: Path) -> Path:
    write_log(log, SIGNER, [3])
    write_log(log, None, [0], log="commands", now=NOW + 2 * SECOND)
    with AuditLog(log, "wg0", "gateway", NOW + 9 * SECOND) as opened:
        opened.append([use(830, ALICE)], NOW + 9 * SECOND)
        failed = Event(
            kind="key.use", operation="create_initiation", result="token", peer=ALICE, detail={"a": "\x1b[2J"}
        )
        opened.append([failed], NOW + 10 * SECOND)
    return log


def test_records_are_shown_in_the_order_of_their_time(shown: Path) -> None:
    done = run("show", str(shown))
    rows = [line.split("  ") for line in done.output.splitlines()]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[1].split(":")[0] for row in rows} == {"gateway", "commands"}
    assert "latency=0.830ms" in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 8),
        (["--peer", ALICE], 2),
        (["--peer", ALICE[:6]], 2),
        (["--peer", ALICE, "--failures"], 1),
        (["--kind", "start", "--kind", "checkpoint"], 3),
        (["--key", SIGNER.public.fingerprint[:12]], 1),
        (["--log", "commands"], 1),
        (["--since", "2026-01-01T10:00:09"], 2),
        (["--since", "2026-01-01T11:00:09+01:00"], 2),
        (["--until", "2026-01-01T10:00:09Z"], 6),
        (["--since", "1h"], 0),
    ],
)
def test_only_what_is_wanted_is_shown(shown: Path, options: list[str], count: int) -> None:
    assert len(run("show", str(shown), *options).output.splitlines()) == count
    records = [json.loads(line) for line in run("show", str(shown), *options, "--json").output.splitlines()]
    assert len(records) == count


def test_json_lines_are_the_records_themselves(log: Path) -> None:
    lines = write_log(log, SIGNER, [3])
    assert run("show", str(log), "--json").output.encode() == b"".join(line + b"\n" for line in lines)


def test_rubbish_is_counted(log: Path) -> None:
    write_log(log, None, [2])
    with (log / "gateway.000001.jsonl").open("ab") as file:
        file.write(b"rubbish\n" + b"x" * 40_000)
    assert "lines are no records" in run("show", str(log)).output


def test_the_schema_is_printed() -> None:
    assert json.loads(run("schema").output)["properties"]["v"]["enum"] == [1]


def test_the_command_ends_with_the_verdicts_exit_code(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(log, SIGNER, [1])
    with pytest.raises(SystemExit) as ended:
        main(["audit", "verify", str(log)])
    assert ended.value.code == ExitCode.UNPROVED
    capsys.readouterr()
