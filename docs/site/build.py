"""The pages of docs/ and the README as a small site: plain HTML, one style sheet, no script.

    README.md, docs/*.md -> markdown-it -> FOLDER/index.html, FOLDER/NAME.html; links between pages follow

Called by script/site and by the tests. A link that leads nowhere ends it.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
_GROUPS = {
    "Begin": ["README", "first-steps", "migration", "clients", "systemd", "wg-quick"],
    "Operate": [
        "operator-guide",
        "reload",
        "firewall",
        "routing",
        "upgrade",
        "rotation",
        "key-rotation",
        "psk",
        "inventory",
    ],
    "Look up": ["configuration", "commands", "json", "messages"],
    "Tokens": ["hsm", "token-doctor", "fault-matrix", "ceremony"],
    "Evidence": ["custody", "audit", "audit-operation", "conformance", "deviations"],
    "Inside": ["architecture", "dataplane", "scaling", "benchmarks", "dependencies"],
}


class BrokenLinkError(Exception):
    """A link of a page leads nowhere."""


def build(folder: Path) -> list[Path]:
    """Write the site into `folder`, which is made anew; gives its pages. Raises BrokenLinkError."""
    pages = {"README": ROOT / "README.md"} | {page.stem: page for page in sorted(ROOT.glob("docs/*.md"))}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for asset in [*ROOT.glob("docs/*.svg"), Path(__file__).with_name("style.css")]:
        shutil.copy(asset, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    bodies = {name: _body(page) for name, page in pages.items()}
    for name, body in bodies.items():
        _check(name, body, bodies, folder)
        (folder / _file(name)).write_text(_page(name, body, bodies))
    return [folder / _file(name) for name in bodies]


def _file(name: str) -> str:
    return "index.html" if name == "README" else f"{name}.html"


def _body(page: Path) -> str:
    """The page's HTML: headings with the anchors that links use, links between pages as they are here."""
    made = MarkdownIt("commonmark").enable("table").render(page.read_text())
    made = re.sub(r"<h([1-6])>(.*?)</h\1>", _heading, made)
    return (
        re.sub(
            r'href="(?:docs/|\.\./)?([\w.-]+)\.md(#[^"]*)?"',
            lambda found: f'href="{_file(found[1])}{found[2] or ""}"',
            made,
        )
        .replace('src="docs/', 'src="')
        .replace('href="docs/', 'href="')
    )


def _heading(found: re.Match[str]) -> str:
    words = html.unescape(re.sub(r"<[^>]+>", "", found[2]))
    anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
    return f'<h{found[1]} id="{anchor}">{found[2]}</h{found[1]}>'


def _check(name: str, body: str, bodies: dict[str, str], folder: Path) -> None:
    by_file = {_file(each): text for each, text in bodies.items()}
    for link in re.findall(r'(?:href|src)="([^"]+)"', body):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = by_file.get(place) if place else body
        if target is None and not (folder / place).exists():
            raise BrokenLinkError(f"{name}: {link}")
        if anchor and (target is None or f'id="{anchor}"' not in target):
            raise BrokenLinkError(f"{name}: {link} has no such heading")


def _page(name: str, body: str, bodies: dict[str, str]) -> str:
    known = {each for group in _GROUPS.values() for each in group}
    groups = {**_GROUPS, "More": sorted(bodies.keys() - known)}
    menu = []
    for group, names in groups.items():
        found = [each for each in names if each in bodies]
        links = "".join(
            f'<li><a href="{_file(each)}"{" aria-current=page" if each == name else ""}>{_title(bodies[each])}</a></li>'
            for each in found
        )
        menu.append(f"<h2>{group}</h2><ul>{links}</ul>" if found else "")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_title(body)} - wghsm</title>"
        '<link rel="stylesheet" href="style.css"></head>\n'
        f"<body><nav>{''.join(menu)}</nav><main>{body}</main></body></html>\n"
    )


def _title(body: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", body)
    return re.sub(r"<[^>]+>", "", found[1]) if found else "wghsm"


if __name__ == "__main__":
    sys.stdout.write(f"{len(build(Path(sys.argv[1])))} pages are in {sys.argv[1]}\n")
