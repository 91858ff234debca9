"""Peers in files of their own: as if they stood in the gateway file, but for the place that an error names."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.samples import GOOD, KEY_A, KEY_B, KEY_C, key
from wghsm.cli._psk_rotate import rotate
from wghsm.config import ConfigError, load, load_peers, load_text, peer_place, plan

SPLIT = GOOD.index("  - name: bob")
MAIN = "include: [peers.d]\n" + GOOD[:SPLIT]
BOB = "peers:\n" + GOOD[SPLIT:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a gateway file whose peer bob stands in a file of his own."""
    (tmp_path / "gw.yaml").write_text(MAIN)
    (tmp_path / "peers.d").mkdir()
    (tmp_path / "peers.d" / "bob.yaml").write_text(BOB)
    return tmp_path


def problems(folder: Path) -> list[tuple[str, int, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder / "gw.yaml")
    return [(Path(each.file).name, each.line, each.message) for each in caught.value.problems]


def write(folder: Path, name: str, text: str) -> None:
    (folder / "peers.d" / name).write_text(text)


def test_peers_of_other_files_are_the_gateway_s(folder: Path) -> None:
    (folder / "whole.yaml").write_text(GOOD)
    found, whole = load(folder / "gw.yaml"), load(folder / "whole.yaml")
    assert found.peers == whole.peers
    assert plan(whole, found).changes == ()
    assert load_text(MAIN).peers == whole.peers[:1]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3), max_size=4))
def test_files_come_by_name_and_others_are_left_alone(folder: Path, sizes: list[int]) -> None:
    for old in (folder / "peers.d").iterdir():
        old.unlink()
    names: list[str] = []
    for number, size in reversed(list(enumerate(sizes))):
        entries = [
            f"  - {{name: p{number}-{each}, public_key: {key(90 + 10 * number + each)}, preshared_key: none, "
            "allowed_ips: []}\n"
            for each in range(size)
        ]
        names[:0] = [f"p{number}-{each}" for each in range(size)]
        write(folder, f"{number}.yaml", "peers:\n" + "".join(entries))
    write(folder, "notes.txt", "nothing: here")
    write(folder, ".hidden.yaml", "nothing: here")
    made = load(folder / "gw.yaml")
    assert [peer.name for peer in made.peers] == ["alice", *names]
    for position, peer in enumerate(made.peers):
        file, there = peer_place(folder / "gw.yaml", position)
        assert load_peers(file.read_text())[there].name == peer.name
    with pytest.raises(IndexError):
        peer_place(folder / "gw.yaml", len(made.peers))


def test_a_fault_is_told_with_its_file_and_line(folder: Path) -> None:
    write(folder, "bob.yaml", BOB.replace("preshared_key: none", "preshared_key: nothing"))
    write(folder, "carol.yaml", "peers:\n  - name: carol\n    mtu: 3\n")
    write(folder, "dora.yaml", "interface: {}\npeers: []\n")
    write(folder, "eve.yaml", "a: [b\n")
    write(folder, "frank.yaml", "- name: frank\n")
    write(folder, "gina.yaml", "peers: gina\n")
    found = problems(folder)
    assert [(file, line) for file, line, _ in found if file == "bob.yaml"] == [("bob.yaml", 4)]
    assert ("carol.yaml", 3, "unknown key mtu in a peer") in found
    assert ("dora.yaml", 1, "a key other than peers: in a file of peers") in found
    assert any(file == "eve.yaml" and line == 1 for file, line, _ in found)
    assert ("frank.yaml", 1, "a file of peers without peers:") in found
    assert ("gina.yaml", 1, "peers is not a list") in found


def test_rules_hold_over_all_files(folder: Path) -> None:
    write(folder, "bob.yaml", BOB.replace(KEY_B, KEY_A).replace("10.8.0.3/32", "10.8.0.2/32"))
    main = 1 + MAIN[: MAIN.index(KEY_A)].count("\n")
    found = problems(folder)
    assert ("bob.yaml", 3, f"two peers with one public key; the other is on line {main}") in found
    write(folder, "aaron.yaml", BOB.replace("bob", "aaron").replace(KEY_B, KEY_C))
    write(folder, "bob.yaml", BOB)
    ((file, line, message),) = problems(folder)
    assert (file, line) == ("bob.yaml", 6)
    assert message.endswith(f"the other is on line 6 of {folder}/peers.d/aaron.yaml")


def test_a_folder_that_is_not_there(folder: Path) -> None:
    (folder / "gw.yaml").write_text(MAIN.replace("peers.d", "nowhere, ../etc"))
    found = problems(folder)
    assert found[0][:2] == ("gw.yaml", 1)
    assert "/nowhere cannot be read (No such file or directory)" in found[0][2] + found[1][2]
    assert "is no folder that can be included" in found[0][2] + found[1][2]


def test_a_gateway_file_without_peers_of_its_own(folder: Path) -> None:
    for text in (MAIN[: MAIN.index("peers:")], MAIN[: MAIN.index("peers:")] + "peers:\n"):
        (folder / "gw.yaml").write_text(text)
        assert [peer.name for peer in load(folder / "gw.yaml").peers] == ["bob"]
    write(folder, "bob.yaml", BOB.replace("name: bob", "name: bob/"))
    assert [(file, line) for file, line, _ in problems(folder)] == [("bob.yaml", 2)]


def test_anybody_may_write_an_included_file(folder: Path) -> None:
    (folder / "peers.d" / "bob.yaml").chmod(0o666)
    told: list[str] = []
    load(folder / "gw.yaml", warn=lambda problem: told.append(str(problem)))
    assert [Path(line.split(":")[0]).name for line in told] == ["bob.yaml"]


def test_an_epoch_is_raised_where_the_peer_stands(folder: Path) -> None:
    write(folder, "bob.yaml", BOB.replace("preshared_key: none", "preshared_key: derived:4 # since May"))
    done = CliRunner().invoke(rotate, ["bob", "-c", str(folder / "gw.yaml")])
    assert done.exit_code == 0, done.output
    assert f"{folder}/peers.d/bob.yaml: peer 'bob' has epoch 5 now" in done.output
    assert (folder / "gw.yaml").read_text() == MAIN
    assert "preshared_key: derived:5 # since May" in (folder / "peers.d" / "bob.yaml").read_text()
