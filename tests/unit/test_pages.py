"""Every link between our pages leads somewhere: to a file that is there, and to a heading that it has."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
_LINK_OF_HTML = re.compile(r'(?:href|src)="([^"#]+)')
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> Iterator[str]:
    """The names under which the headings of a page are found."""
    for heading in re.findall(r"^#+ +(.*)$", _prose(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(_prose(page)):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in set(_anchors(target))):
            wrong.append(link)
    assert wrong == []


def test_the_site_has_every_page(tmp_path: Path) -> None:
    build = ROOT / "docs" / "site" / "build.py"
    subprocess.run([sys.executable, build, tmp_path / "site"], check=True, capture_output=True)
    made = {path.name for path in (tmp_path / "site").glob("*.html")}
    assert made == {"index.html" if page.name == "README.md" else f"{page.stem}.html" for page in PAGES}
    index = (tmp_path / "site" / "index.html").read_text()
    assert all(f'href="{name}"' in index for name in made)
    links = {link for page in (tmp_path / "site").glob("*.html") for link in _LINK_OF_HTML.findall(page.read_text())}
    assert {link for link in links if ":" not in link and not (tmp_path / "site" / link).exists()} == set()
