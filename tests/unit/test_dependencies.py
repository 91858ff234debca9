"""docs/dependencies.md names every dependency, and no other; requirements.txt locks them and names no index."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading of the page, by their first cell."""
    section = (ROOT / "docs" / "dependencies.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows[2:]}


def names(requirements: list[str]) -> set[str]:
    """The bare names of requirement lines."""
    return {re.split(r"[<>=!~\[; ]", line)[0] for line in requirements}


def project() -> dict[str, list[str]]:
    """The direct dependencies of pyproject.toml by the heading of their table."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "At run time": found["dependencies"],
        "For development and tests": found["optional-dependencies"]["dev"],
    }


def debian_packages() -> set[str]:
    """The packages that the scripts install."""
    library = (ROOT / "script" / "lib.sh").read_text()
    listed = re.findall(r"^(?:test_)?packages=\(\n(.*?)^\)", library, re.MULTILINE | re.DOTALL)
    extra = re.search(r"^prepare \S+ (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert len(listed) == 2
    assert extra is not None
    return set(" ".join(listed).split()) | set(extra[1].split())


@pytest.mark.parametrize("heading", ["At run time", "For development and tests"])
def test_each_python_dependency_has_its_line(heading: str) -> None:
    assert set(table(heading)) == names(project()[heading])


def test_each_debian_package_has_its_line() -> None:
    assert set(table("Debian packages")) == debian_packages()


@pytest.mark.parametrize("heading", ["At run time", "For development and tests", "Debian packages"])
def test_each_line_says_what_for_who_and_what_instead(heading: str) -> None:
    for name, cells in table(heading).items():
        assert len(cells) == 3, name
        assert all(cells), name


def test_the_lock_has_each_dependency() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    wanted = {name.replace(".", "-") for lines in project().values() for name in names(lines)}
    assert wanted <= {name.replace(".", "-") for name in locked}


def check_lock(text: str, folder: Path) -> int:
    """The exit code of the scripts' own check for a lock file of this text."""
    path = folder / "requirements.txt"
    path.write_text(text)
    command = ["bash", "-c", 'source "$1" && check_lock "$2"', "-", str(ROOT / "script" / "lib.sh"), str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_lock_passes_the_check(tmp_path: Path) -> None:
    assert check_lock((ROOT / "requirements.txt").read_text(), tmp_path) == 0


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://index.example/simple",
        "--extra-index-url file:///srv/simple",
        "-i mirror",
        "--find-links wheels",
        "-e .",
        "click @ https://files.example/click.whl \\",
        "click==8.1.0",
        "click>=8 \\",
        "# from files.example.org",
    ],
)
def test_the_check_refuses_a_bad_line(tmp_path: Path, line: str) -> None:
    assert check_lock((ROOT / "requirements.txt").read_text() + line + "\n", tmp_path) != 0
