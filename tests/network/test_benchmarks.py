"""script/bench runs whole and writes its document; what it measures is nobody's concern here."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import allowed_ips, flood, peers
from benchmarks.ratios import Ratio, Rounds, interleave, ratio_of
from benchmarks.report import BEGIN, END, FLOODS, TOKEN_BEGIN, TOKEN_END, Conditions, write_page, write_token_page
from benchmarks.throughput import cases
from benchmarks.token_rate import VALUES, cells

ROOT = Path(__file__).parents[2]


def ratios(*, quick: bool) -> set[str]:
    found = {f"throughput.{case.name}.{value}" for case in cases(quick=quick) for value in case.values}
    memory = {"throughput.memory.pss", "throughput.pure.memory.pss"}
    return found | memory | {"handshakes.rate", "handshakes.cpu_per_handshake"}


def token_ratios(*, quick: bool) -> set[str]:
    return {f"{cell.name}.{value}" for cell in cells(quick=quick) for value in VALUES}


def test_a_quick_run_writes_its_document(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = subprocess.run(
        [ROOT / "script/bench", "--quick", "--out", out], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    document = json.loads(out.read_text())
    assert document["version"] == 1
    assert document["conditions"]["quick"] is True
    assert document["versions"].keys() >= {"wghsm", "wireguard_go", "softhsm", "python", "kernel"}
    assert document["ratios"].keys() == ratios(quick=True)
    for name, ratio in document["ratios"].items():
        expected = 1 if "memory" in name else document["conditions"]["rounds"]
        assert len(ratio["rounds"]) == expected, name
        assert ratio["least"] <= ratio["median"] <= ratio["greatest"], name
        assert name in done.stdout
    assert document["token"]["ratios"].keys() == token_ratios(quick=True)
    assert all(ratio["median"] >= 0 for ratio in document["token"]["ratios"].values())
    assert document["flood"]["ratios"].keys() == set(flood.flood_ratios(quick=True))
    assert all(ratio["median"] > 0 for ratio in document["flood"]["ratios"].values())
    assert document["peers"]["figures"].keys() == peers.names()
    assert "/" not in json.dumps({key: value for key, value in document.items() if key != "compared"})


def test_every_flood_has_words() -> None:
    assert {case.name for case in flood.cases(quick=False)} == FLOODS.keys()
    text = (ROOT / "docs/benchmarks.md").read_text()
    for words in FLOODS.values():
        assert f"| {words} | " in text


def test_an_interrupted_run_ends_without_a_word() -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--only", "token", "--quick"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stdout is not None
        # wireguard-go is through; from the second round on, custodian and bare token have both been at work.
        assert any("custodian / bare token" in line for line in running.stdout)
        said = next(line for line in running.stdout if "round 1" in line)
        assert "handshakes/s" in said
        # As a terminal does for Ctrl-C.
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=300)
        assert errors == ""
        assert running.returncode == 130
    finally:
        running.kill()
        running.wait()


def test_the_committed_document_is_of_a_whole_run() -> None:
    document = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert document["conditions"]["quick"] is False
    assert document["conditions"]["rounds"] >= 5
    assert document["ratios"].keys() == ratios(quick=False)
    assert document["token"]["conditions"]["rounds"] >= 3
    assert document["token"]["ratios"].keys() == token_ratios(quick=False)
    assert document["flood"]["ratios"].keys() == set(flood.flood_ratios(quick=False))
    figures = document["peers"]["figures"]
    assert figures.keys() == peers.names()
    assert document["peers"]["conditions"]["many"] >= 10_000
    assert all(each["value"] < each["limit"] for each in figures.values() if each["unit"] == "MiB")


def test_the_page_has_every_figure_of_the_allowed_ips() -> None:
    found = allowed_ips.measure(300, 1)
    text = (ROOT / "docs/benchmarks.md").read_text().partition(allowed_ips.BEGIN)[2].partition(allowed_ips.END)[0]
    for name in found.keys() - {"dictionary"}:
        assert f"| {name} | " in text
    assert f"{allowed_ips.PREFIXES:,} prefixes" in text


def test_rounds_alternate_and_ratios_are_taken_by_round() -> None:
    order = []

    def contender(name: str, values: list[float]) -> dict[str, float]:
        order.append(name)
        return {"rate": values.pop(0)}

    ours, theirs = [1.0, 6.0, 3.0], [2.0, 2.0, 1.0]
    lines: list[str] = []
    samples = interleave(lambda: contender("ours", ours), lambda: contender("theirs", theirs), 3, lines.append)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    ratio = ratio_of(samples, "rate", "Gbit/s")
    assert ratio.rounds == (0.5, 3.0, 3.0)
    assert ratio.median == 3.0
    assert (ratio.ours, ratio.theirs) == (3.0, 2.0)
    assert len(lines) == 3


def test_a_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        ratio_of(Rounds(({"rate": 1.0},), ({"rate": 0.0},)), "rate", "Gbit/s")


def test_the_page_keeps_what_stands_around_its_results(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    conditions = Conditions(rounds=1, seconds=1, cores=2, peers=40, quick=True)
    for _ in range(2):
        write_page(page, {"handshakes.rate": Ratio((0.25,), 1.0, 4.0, "handshakes/s")}, conditions)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "| handshakes a second as responder | 0.25 | 0.25 to 0.25 |" in text
    assert "old" not in text
    page.write_text(f"before\n{TOKEN_BEGIN}\nold\n{TOKEN_END}\nafter\n")
    found = {
        f"1ms.4.{kind}.{value}": Ratio((n / 8,), 1.0, 2.0, "")
        for n, (value, kind) in enumerate(itertools.product(VALUES, ("cached", "plain")), 1)
    }
    write_token_page(page, found, 3)
    assert "| 1 ms | 4 | 0.12 | 0.25 | 0.38 | 0.50 | 0.62 | 0.75 | 0.88 | 1.00 |\n" in page.read_text()
    assert "old" not in page.read_text()
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place"):
        write_page(page, {}, conditions)
