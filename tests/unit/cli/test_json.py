"""--json: every command that has it is in the table, its fields are documented, and faults leave nothing half."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.json_output import check_json, command_of
from tests.unit.cli.fake_gateway import answering
from tests.unit.config.samples import GOOD, key
from wghsm.cli import main
from wghsm.cli._json_page import markdown
from wghsm.cli._json_table import OUTPUTS, schema
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.ipc import admin

PAGE = Path(__file__).parents[3] / "docs" / "json.md"
TOKEN = ("--token", "pkcs11:token=absent?module-path=/nowhere.so&pin-source=file:/nowhere.pin")
DANGEROUS = {
    "token doctor": (),
    "key destroy": ("old", *TOKEN),
    "key rotate": ("-c", "FILE"),
    "psk destroy": ("old", *TOKEN),
    "peer remove": ("bob", "-c", "FILE"),
    "peer reset-timestamp": ("bob", "-c", "FILE"),
}


def run(*words: str | Path, code: int = 0, **options: Any) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words], **options)
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    check_json(words, done.stdout)
    return done


def commands(group: click.Command, above: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            below = group.get_command(context, name)
            assert below is not None
            yield " ".join((*above, name)), below
            yield from commands(below, (*above, name))


def options(command: click.Command) -> set[str]:
    return {option for param in command.params for option in param.opts}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.yaml"
    path.write_text(GOOD + f"state_directory: {tmp_path}/state\n")
    return path


@pytest.fixture
def running(file: Path) -> Iterator[None]:
    """A gateway `wg0` that has loaded the file, and answers."""
    from wghsm import config

    gateway = load(file)
    peers = [
        admin.PeerStatus(
            name=peer.name,
            public_key=str(config.written(peer.public_key)),
            preshared_key="none",
            endpoint=None,
            allowed_ips=[],
            persistent_keepalive=0,
            latest_handshake=1.5,
            rx_bytes=0,
            tx_bytes=0,
        )
        for peer in gateway.peers
    ]
    found = admin.Status(
        name="wg0",
        file=str(file),
        public_key=key(1),
        listen_port=51820,
        fwmark=0,
        up=True,
        started=1.0,
        token=admin.TokenState(state="ready", since=1.0, detail="", accepted=0, created=0, refused=0),
        processes=[admin.ProcessStatus(role="custodian", pid=1, state="ready", restarts=0, since=1.0)],
        peers=peers,
        counters={"ingress": {"bad-mac1": 3}},
        audit=admin.AuditState(
            state="ok",
            since=1.0,
            detail="",
            directory="/var/log/wghsm/wg0",
            records=1,
            unsealed=1,
            sealed=None,
            seal_detail="",
            unwritten=0,
            sinks={"journald": "ok"},
        ),
    )
    document = config.to_document(gateway)
    loaded = admin.Config(file=str(file), loaded=document, running=document, wrapped={})

    def answer(request: admin.AdminRequest) -> admin.AdminReply:
        match request.verb:
            case "config":
                return admin.AdminReply(config=loaded)
            case _:
                return admin.AdminReply(text="done", status=found)

    with answering("wg0", answer):
        yield


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == markdown(), "run: wghsm schema --markdown > docs/json.md"


def test_every_command_with_json_has_a_shape() -> None:
    has = {name for name, command in commands(main) if "--json" in options(command)}
    assert has == {command_of(name.split()) for name in OUTPUTS if " --" not in name}


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for below in node.values():
            yield from _objects(below)
    elif isinstance(node, list):
        for below in node:
            yield from _objects(below)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_schema_documents_each_field(name: str) -> None:
    made = schema(name)
    assert made["$id"].startswith("urn:wghsm:json:1:")
    found = list(_objects(made))
    assert found
    for each in found:
        assert each["description"]
        for field, about in each["properties"].items():
            assert re.fullmatch("[a-z][a-z0-9_]*", field)
            assert about.get("description"), (name, each["title"], field)


def test_schemas_are_printed() -> None:
    assert json.loads(run("schema", "--output", "peer list").stdout) == schema("peer list")
    assert json.loads(run("schema", "--output", "wghsm psk  list --peers").stdout) == schema("psk list --peers")
    assert json.loads(run("schema").stdout)["title"] == "wghsm gateway file"
    assert run("schema", "--markdown").stdout == markdown()
    assert "those that have: init, token init" in run("schema", "--output", "man", code=ExitCode.BAD_CONFIG).stderr
    run("schema", "--peers", "--markdown", code=ExitCode.BAD_CONFIG)


def test_a_field_that_is_not_documented_is_found() -> None:
    shown = json.dumps({"label": "x", "stored": True, "extra": 1})
    with pytest.raises(AssertionError, match="psk put"):
        check_json(["psk", "put", "x", "--json"], shown)


@pytest.mark.usefixtures("running")
def test_the_commands_on_a_running_gateway(file: Path) -> None:
    assert json.loads(run("status", "--json").stdout)[0]["peers"][0]["name"] == "alice"
    assert json.loads(run("rekey", "wg0", "--json").stdout)["peers"] is None
    run("rekey", "wg0", "alice", "--json")
    assert json.loads(run("reload", "wg0", "--json").stdout)["ok"]
    assert json.loads(run("plan", file, "--json").stdout)["changes"] == []
    file.write_text(file.read_text().replace("name: bob", "name: robert"))
    (change,) = json.loads(run("plan", file, "--json", code=ExitCode.WOULD_CHANGE).stdout)["changes"]
    assert (change["before"], change["after"], change["effect"]) == ("bob", "robert", "live")
    (by_name,) = json.loads(run("plan", "wg0", "--json", code=ExitCode.WOULD_CHANGE).stdout)["changes"]
    assert by_name == change
    run("peer", "list", "-c", file, "--json")


@pytest.mark.usefixtures("running")
def test_the_commands_on_peers(file: Path) -> None:
    for words in (
        ("disable", "bob"),
        ("enable", "bob"),
        ("expire", "bob", "30d"),
        ("rename", "bob", "robert"),
        ("set", "robert", "--note", "until March"),
        ("reset-timestamp", "robert", "--yes"),
        ("remove", "robert", "--yes"),
    ):
        assert json.loads(run("peer", *words, "-c", file, "--json").stdout)["peer"] in ("bob", "robert")


def test_the_commands_on_files(file: Path, tmp_path: Path) -> None:
    config = json.loads(run("export", "-c", file, "--json").stdout)["config"]
    conf = tmp_path / "wg7.conf"
    conf.write_text(config)
    made = ("import", conf, "--out", tmp_path / "wg7.yaml", "--no-secrets", *TOKEN, "--json")
    assert json.loads(run(*made).stdout)["secrets"] == "left out"
    assert json.loads(run("check", file, "--json").stdout)["ok"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("peer", "show", "nobody", "-c", "FILE"), ExitCode.BAD_CONFIG),
        (("peer", "remove", "bob", "-c", "FILE"), ExitCode.BAD_CONFIG),
        (("peer", "list", "-c", "/nowhere.yaml"), ExitCode.BAD_CONFIG),
        (("key", "list"), ExitCode.BAD_CONFIG),
        (("key", "list", *TOKEN), ExitCode.BAD_CONFIG),
        (("token", "list", *TOKEN), ExitCode.TOKEN_UNUSABLE),
        (("status", "wg-absent"), ExitCode.NOT_RUNNING),
        (("reload", "wg-absent"), ExitCode.NOT_RUNNING),
        (("rekey", "wg-absent"), ExitCode.NOT_RUNNING),
        (("plan", "/nowhere.yaml"), ExitCode.BAD_CONFIG),
        (("audit", "verify", "/nowhere"), ExitCode.FAILURE),
        (("ceremony", "verify", "/nowhere"), ExitCode.FAILURE),
        (("psk", "export", "--object", "x", *TOKEN), ExitCode.BAD_CONFIG),
    ],
)
def test_a_fault_is_one_line_and_nothing_on_standard_output(file: Path, words: tuple[str, ...], code: int) -> None:
    done = run(*(str(file) if word == "FILE" else word for word in words), "--json", code=code)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(("wghsm: ", "/nowhere.yaml"))


@pytest.mark.parametrize("charset", ["utf-8", "ascii"])
def test_what_is_not_ascii_comes_through_in_every_character_set(file: Path, charset: str) -> None:
    file.write_text(file.read_text().replace("  - name: bob\n", "  - name: bob\n    note: Zoë's\n"))
    done = CliRunner(charset=charset).invoke(main, ["peer", "show", "bob", "-c", str(file), "--json"])
    assert json.loads(done.stdout_bytes)["note"] == "Zoë's"


def test_dangerous_commands_have_yes() -> None:
    assert {name for name, command in commands(main) if "--yes" in options(command)} == set(DANGEROUS)


@pytest.mark.parametrize("name", sorted(DANGEROUS.keys() - {"token doctor"}))
def test_dangerous_commands_ask_before_anything_is_done(file: Path, name: str) -> None:
    before = file.read_bytes()
    words = (str(file) if word == "FILE" else word for word in DANGEROUS[name])
    done = run(*name.split(), *words, code=ExitCode.BAD_CONFIG)
    assert "no terminal to ask at; add --yes" in done.stderr
    assert file.read_bytes() == before


@pytest.mark.usefixtures("running")
def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" in run("status", color=True).stdout
    assert "\x1b" not in run("status").stdout
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" in run("status", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("status", color=True).stdout
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in run("status", color=True).stdout
