"""What the code says to operators, read from its source without running it.

    wghsm/**/*.py -> the calls that say something (_SAYING, exceptions, functions that only pass a text on to these)
                  -> their texts, with CAPITALS for what is filled in -> Said

Called by messages.py, which makes docs/messages.md of it. A text that is put together elsewhere is followed through
names, constants and functions of the same module; what cannot be followed stays a word in capitals.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ROOT", "Said", "spoken"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, order=True)
class Said:
    """One message. `how`: what kind it is; `word`: exit code, level or check, by kind; `room`: who says it."""

    how: str
    word: str
    text: str
    remedy: str
    room: str


@dataclass(frozen=True)
class _Saying:
    """A callable that says something: the places of the text, the remedy and the word among its arguments."""

    how: str
    text: int
    remedy: int | None = None
    word: str = ""
    word_at: int | None = None
    around: str = "{}"


_SAYING = {
    "_log.info": _Saying("log", 0, word="info"),
    "_log.warning": _Saying("log", 0, word="warning"),
    "_log.error": _Saying("log", 0, word="error"),
    "_log.exception": _Saying("log", 0, word="error"),
    "config.Problem": _Saying("file", 2, 3),
    "v.fault": _Saying("file", 0, 1),
    "green": _Saying("doctor", 1, word_at=0),
    "yellow": _Saying("doctor", 1, 2, word_at=0),
    "red": _Saying("doctor", 1, 2, word_at=0),
    "Finding": _Saying("doctor", 2, 3, word_at=0),
    "Refusal": _Saying("answer", 1),
    "m.RequestResult": _Saying("answer", 2),
    "m.PskResult": _Saying("answer", 2),
    "_RefusedError": _Saying("answer", 0),
    "EndGateway": _Saying("end", 1, word="FAILURE"),
    "click.UsageError": _Saying("end", 0, word="BAD_CONFIG"),
    "m.CheckpointSigned": _Saying("log", 1, word="warning", around="records go on unsealed: {}"),
    "process.kill": _Saying("log", 0, word="error", around="SEAT was killed: {}; restart STARTS in DELAY s"),
    "room.process.kill": _Saying("log", 0, word="error", around="SEAT was killed: {}; restart STARTS in DELAY s"),
    "self._children.kill": _Saying("log", 1, word="error", around="SEAT was killed: {}; restart STARTS in DELAY s"),
    "report.notes.append": _Saying("verify", 0),
}
"""What says something, by its name as it is called."""
_BY_ROOM = {
    "wghsm/config/": {"Problem": _Saying("file", 2, 3), "fault": _Saying("file", 0, 1)},
    "wghsm/audit/": {"Problem": _Saying("verify", 1, word_at=0)},
    "wghsm/control/": {"answer": _Saying("answer", 1)},
    "wghsm/custodian/": {"Report": _Saying("log", 0, word="warning")},
}
_CODES = {
    "BadSiteError": "BAD_CONFIG",
    "FirewallError": "SYSTEM",
    "LatchFault": "SYSTEM",
    "LogError": "FAILURE",
    "ProtocolError": "PROTOCOL",
    "StateFault": "SYSTEM",
}
"""Exit codes that those who catch these exceptions give them."""
_SECOND = {"ChildFault": "{}", "GatewayFault": "{}", "TokenFault": "token: {} failed: CKR_NAME"}
"""Exceptions whose text is their second argument, and what stands around it."""


def spoken(root: Path = ROOT) -> list[Said]:
    """Every message of the package, in order."""
    trees = {path: ast.parse(path.read_text()) for path in sorted((root / "wghsm").rglob("*.py"))}
    common = _SAYING | _exceptions(trees.values())
    shared = {name: value for tree in trees.values() for name, value in _constants(tree)}
    found: set[Said] = set()
    for path, tree in trees.items():
        room = path.relative_to(root).as_posix()
        own = next((sayings for start, sayings in _BY_ROOM.items() if room.startswith(start)), {})
        found.update(_Module(tree, room, common | own, shared).said())
    return sorted(found)


def _exceptions(trees: Iterable[ast.Module]) -> dict[str, _Saying]:
    """Exceptions with an exit code: their own, that of the class above, or the one they are raised with."""
    codes = dict(_CODES)
    classes = [each for tree in trees for each in tree.body if isinstance(each, ast.ClassDef) and each.bases]
    known = -1
    while known != len(codes):
        known = len(codes)
        for each in classes:
            above = [codes[base.id] for base in each.bases if isinstance(base, ast.Name) and base.id in codes]
            code = re.search(r"^    exit_code\b.*= ExitCode\.(\w+)$", ast.unparse(each), re.MULTILINE)
            if code or above or "self.exit_code = exit_code" in ast.unparse(each):
                codes.setdefault(each.name, code[1] if code else (above or ["FAILURE"])[0])
    # Its text is that of its problems.
    codes.pop("ConfigError", None)
    return {
        name: _Saying("end", int(name in _SECOND), word=code, around=_SECOND.get(name, "{}"))
        for name, code in codes.items()
    }


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            yield line.targets[0].id, line.value


class _Module:
    """One module: its functions, and what it says."""

    def __init__(self, tree: ast.Module, room: str, sayings: dict[str, _Saying], shared: dict[str, ast.expr]) -> None:
        self._room, self._sayings, self._tree = room, dict(sayings), tree
        self._constants = shared | dict(_constants(tree))
        self._functions = {each.name: each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        self._before = dict(_blocks(tree))
        # Twice, for those that pass a text on to one that passes it on.
        for _ in range(2):
            self._find_wrappers()

    def said(self) -> Iterator[Said]:
        for each in ast.walk(self._tree):
            if isinstance(each, ast.Call):
                yield from self._call(each)
            elif isinstance(each, ast.Tuple) and self._room.startswith("wghsm/config/"):
                yield from self._tuple(each)

    def _find_wrappers(self) -> None:
        for name, function in self._functions.items():
            names = [each.arg for each in function.args.args if each.arg not in ("self", "cls")]
            for call in [each for each in ast.walk(function) if isinstance(each, ast.Call)]:
                saying = self._sayings.get(ast.unparse(call.func))
                text = _message(call, saying) if saying is not None else None
                if saying is None or not isinstance(text, ast.Name) or text.id not in names:
                    continue
                remedy = self._place(call, saying.remedy, names)
                mine = replace(
                    saying,
                    text=names.index(text.id),
                    remedy=remedy,
                    word=self._word(call, saying),
                    word_at=self._place(call, saying.word_at, names),
                )
                self._sayings.setdefault(name, mine)
                self._sayings.setdefault(f"self.{name}", mine)

    @staticmethod
    def _place(call: ast.Call, at: int | None, names: list[str]) -> int | None:
        given = call.args[at] if at is not None and at < len(call.args) else None
        return names.index(given.id) if isinstance(given, ast.Name) and given.id in names else None

    def _call(self, call: ast.Call) -> Iterator[Said]:
        name = ast.unparse(call.func)
        saying = self._sayings.get(name)
        if name == "click.echo" and any(each.arg == "err" for each in call.keywords):
            saying = _Saying("notice", 0)
        message = _message(call, saying) if saying is not None else None
        if saying is None or message is None:
            return
        filled = call.args[1:] if saying.how == "log" else None
        texts = self._texts(message, filled)
        given = call.args[saying.remedy] if saying.remedy is not None and saying.remedy < len(call.args) else None
        remedies = self._texts(given) if given is not None else [""]
        for place, text in enumerate(texts):
            if _is_speech(text, least=1 if saying.how == "log" else 2):
                remedy = remedies[place] if len(remedies) == len(texts) else remedies[0]
                yield Said(saying.how, self._word(call, saying), saying.around.format(text.strip()), remedy, self._room)

    def _word(self, call: ast.Call, saying: _Saying) -> str:
        if saying.how == "end":
            code = re.search(r"ExitCode\.([A-Z_]+)", ", ".join(map(ast.unparse, call.args)))
            return code[1] if code else saying.word
        if saying.how == "doctor":
            level = re.search(r"Level\.(\w+)", ast.unparse(call))
            color = level[1].lower() if level else ast.unparse(call.func)
            check = self._texts(call.args[saying.word_at])[0] if saying.word_at is not None else ""
            return f"{check} {color if color in ('green', 'yellow', 'red') else saying.word.split(' ')[-1]}"
        return self._texts(call.args[saying.word_at])[0] if saying.word_at is not None else saying.word

    def _tuple(self, found: ast.Tuple) -> Iterator[Said]:
        """The configuration's (line, message, remedy), and (message, remedy)."""
        if len(found.elts) not in (2, 3) or any(isinstance(each, ast.Starred) for each in found.elts):
            return
        texts, remedies = (self._texts(each) for each in found.elts[-2:])
        if len(found.elts) == 2 and not isinstance(found.elts[0], ast.Constant | ast.JoinedStr):
            return
        for text in texts:
            if _is_speech(text) and " " in remedies[0]:
                yield Said("file", "", text, remedies[0], self._room)

    def _texts(self, value: ast.expr, filled: list[ast.expr] | None = None, depth: int = 4) -> list[str]:
        """What an expression may come to: every text that it can be, at least one."""
        again = depth - 1
        match value:
            case _ if not depth:
                pass
            case ast.Constant(value=str(text)):
                return [text if filled is None else self._percent(text, filled)]
            case ast.JoinedStr(values=parts):
                return [_readable("".join(map(self._part, parts)))]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                ends = self._texts(right, None, again)
                return [one + other for one in self._texts(left, None, again) for other in ends]
            case ast.IfExp(body=body, orelse=other):
                return self._texts(body, filled, again) + self._texts(other, filled, again)
            case ast.BoolOp(values=values):
                return [text for each in values for text in self._texts(each, filled, again)]
            case ast.Name(id=name):
                return self._named(value, name, again)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="format")) if name in self._constants:
                return [re.sub(r"\{(\w*)\}", lambda hole: _capitals(hole[1]), self._texts(self._constants[name])[0])]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name)):
                if name in self._functions:
                    found = self._returned(self._functions[name], again)
                    if any(map(_is_speech, found)):
                        return found
            case _:
                pass
        return [_placeholder(value)]

    def _named(self, value: ast.Name, name: str, depth: int) -> list[str]:
        values = self._assigned(value, name)
        if not values and name in self._constants:
            values = [self._constants[name]]
        found = [text for each in values for text in self._texts(each, None, depth)]
        speech = [text for text in found if _is_speech(text)]
        return speech or [_placeholder(value)]

    def _assigned(self, value: ast.AST, name: str) -> list[ast.expr]:
        """What a local name may hold where it is used: what was given to it last, on every way there."""
        found: list[ast.expr] = []
        while not isinstance(value, ast.FunctionDef | ast.Lambda | ast.Module):
            before, above = self._before[value]
            for statement in reversed(before):
                given = list(_given(statement, name))
                found[:0] = given
                certain = isinstance(statement, ast.Assign | ast.AnnAssign) or bool(getattr(statement, "orelse", None))
                if given and certain:
                    return found
            test = getattr(above, "test", None)
            if test is not None and (given := list(_given(test, name))):
                return given + found
            value = above
        return found

    def _percent(self, text: str, filled: list[ast.expr]) -> str:
        """A log's text with the names of its arguments."""
        names = iter([self._filled(each) for given in filled for each in _unpacked(given)])
        return _readable(re.sub(r"%[#.\d]*[dfrsx]", lambda _: next(names, "..."), text))

    def _returned(self, function: ast.FunctionDef, depth: int) -> list[str]:
        values = [each.value for each in ast.walk(function) if isinstance(each, ast.Return) and each.value is not None]
        return [text for each in values for text in self._texts(each, None, depth)]

    def _part(self, part: ast.expr) -> str:
        if isinstance(part, ast.Constant):
            return str(part.value)
        return self._filled(part.value) if isinstance(part, ast.FormattedValue) else "..."

    def _filled(self, value: ast.expr) -> str:
        """What stands where something is filled in: a word in capitals and braces, or what it can be."""
        if isinstance(value, ast.IfExp):
            one, other = self._texts(value.body)[0], self._texts(value.orelse)[0]
            if one and other:
                return f"({one.strip()} or {other.strip()})"
            return f"[{one or other}]" if (one or other).strip() else "..."
        if isinstance(value, ast.Name) and value.id in self._constants:
            return self._texts(value)[0]
        return f"{{{_placeholder(value)}}}"


def _message(call: ast.Call, saying: _Saying) -> ast.expr | None:
    """The text among the arguments, if there is one; a log's "%s" alone says what stands behind it."""
    named = [each.value for each in call.keywords if each.arg == "text"]
    if len(call.args) <= saying.text:
        return named[0] if named else None
    text = call.args[saying.text]
    bare = saying.how == "log" and isinstance(text, ast.Constant) and text.value == "%s" and len(call.args) == 2
    return call.args[1] if bare else text


def _unpacked(given: ast.expr) -> list[ast.expr]:
    """An argument, or several behind one star."""
    starred = given.value if isinstance(given, ast.Starred) else None
    return starred.elts if isinstance(starred, ast.Tuple | ast.List) else [given]


def _blocks(parent: ast.AST) -> Iterator[tuple[ast.AST, tuple[list[ast.stmt], ast.AST]]]:
    """Of each node below: the statements before it in its block, and the statement that the block belongs to."""
    for _, value in ast.iter_fields(parent):
        for place, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, ast.AST):
                yield each, (value[:place] if isinstance(each, ast.stmt) else [], parent)
                yield from _blocks(each)


def _given(statement: ast.AST, name: str) -> Iterator[ast.expr]:
    """What a statement, or what is in it, gives to a name."""
    for line in ast.walk(statement):
        if not isinstance(line, ast.Assign | ast.AnnAssign | ast.NamedExpr) or line.value is None:
            continue
        for target in line.targets if isinstance(line, ast.Assign) else [line.target]:
            if isinstance(target, ast.Name) and target.id == name:
                yield line.value
            elif isinstance(target, ast.Tuple) and isinstance(line.value, ast.Tuple):
                for one, given in zip(target.elts, line.value.elts, strict=False):
                    if isinstance(one, ast.Name) and one.id == name:
                        yield given


def _placeholder(value: ast.expr) -> str:
    """A word in capitals for what is filled in."""
    match value:
        case ast.Name(id=name):
            return _capitals(name)
        case ast.Attribute(attr="name" | "text" | "label" | "path" | "uri", value=ast.Name() as owner) if (
            owner.id not in ("self", "each", "error", "fault")
        ):
            return _capitals(f"{owner.id} {value.attr}")
        case ast.Attribute(attr=name):
            return _capitals(name)
        case ast.Call(func=ast.Name(id="shown" | "str" | "ascii" | "repr" | "int" | "len"), args=[inner, *_]):
            return _placeholder(inner)
        case ast.Call(func=ast.Attribute(attr="join"), args=[inner, *_]):
            return _placeholder(inner)
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return _capitals(name)
        case ast.Subscript(value=inner) | ast.BinOp(left=inner) | ast.GeneratorExp(elt=inner):
            return _placeholder(inner)
        case ast.Constant(value=given):
            return str(given)
        case _:
            return "..."


def _readable(text: str) -> str:
    """Words in capitals without their braces; dots for one that would stick to the word before it."""
    text = re.sub(r"(?<=[A-Za-z0-9}])\{[A-Z0-9-]+\}", "...", text)
    return re.sub(r"\{([A-Z0-9.-]+)\}", r"\1", text)


_PLAINER = {
    "DESCRIBE-TOKEN": "TOKEN",
    "FOUND-NAME": "PEER",
    "OWN-NAME": "GATEWAY",
    "PEER-NAME": "PEER",
    "ST-UID": "UID",
    "STRERROR": "REASON",
    "TOKEN-NAME": "TOKEN",
    "VERDICT-TEXT": "TEXT",
}
"""Names of the code that say less than what they stand for."""


def _capitals(name: str) -> str:
    word = re.sub(r"[_ ]+", "-", name.strip("_")).upper() or "..."
    return _PLAINER.get(word, word)


def _is_speech(text: str, least: int = 2) -> bool:
    """Whether it says something by itself, and is no bare word or hole."""
    words = re.findall(r"(?<![^\s(\"'])[a-z][a-z'-]+(?![^\s).,:;?!\"'])", text)
    return len(words) >= least and " " in text
