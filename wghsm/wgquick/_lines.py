"""The lines of a file of sections and `key = value`, with the place of each value in the caller's buffer.

What may be a key in clear is copied from the buffer by `secret` only, so that nothing else has to be wiped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from wghsm.wgquick._site import BadSiteError

__all__ = ["Line", "lines", "number", "words"]

_BLANK = b" \t\r"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `section` and `key` in small letters; `comment` alone, or with neither a key nor a section."""

    number: int
    section: str
    key: str
    shown_key: str
    comment: str
    begins: bool
    buffer: bytearray
    start: int
    end: int

    @property
    def value(self) -> str:
        """The value as text. Not for keys in clear. Raises BadSiteError."""
        try:
            return self.buffer[self.start : self.end].decode()
        except UnicodeDecodeError:
            raise BadSiteError(f"line {self.number}: {self.shown_key} is not UTF-8") from None

    @property
    def secret(self) -> bytearray:
        """The value in a buffer of its own. Raises BadSiteError unless it has a key's form."""
        if self.end - self.start != 44:
            raise BadSiteError(f"line {self.number}: {self.shown_key} is no key of 44 characters (not shown)")
        with memoryview(self.buffer) as view:
            return bytearray(view[self.start : self.end])


def lines(buffer: bytearray, *, inline_comments: bool) -> Iterator[Line]:
    """Every line that says something. `inline_comments`: # begins a comment anywhere. Raises BadSiteError."""
    section, number, place = "", 0, 0
    while place < len(buffer):
        number += 1
        stop = buffer.find(b"\n", place)
        stop = len(buffer) if stop < 0 else stop
        start, end = _strip(buffer, place, stop)
        place = stop + 1
        comment = ""
        hash_at = start if start < end and buffer[start] in b"#;" else -1
        if hash_at < 0 and inline_comments:
            hash_at = buffer.find(b"#", start, end)
        if hash_at >= 0:
            comment = buffer[hash_at:end].decode(errors="replace")
            start, end = _strip(buffer, start, hash_at)
        if start == end:
            if comment:
                yield Line(number, section, "", "", comment, False, buffer, start, start)
            continue
        if buffer[start] == ord("["):
            section = buffer[start:end].decode(errors="replace").strip("[] \t").lower()
            yield Line(number, section, "", "", comment, True, buffer, start, start)
            continue
        equals = buffer.find(b"=", start, end)
        if equals < 0:
            raise BadSiteError(f"line {number}: neither [Section] nor Key = Value (not shown)")
        shown = buffer[start:equals].decode(errors="replace").strip()
        if len(shown) > 40 or not shown.isprintable():
            raise BadSiteError(f"line {number}: neither [Section] nor Key = Value (not shown)")
        at, end = _strip(buffer, equals + 1, end)
        yield Line(number, section, shown.lower(), shown, comment, False, buffer, at, end)


def words(value: str) -> list[str]:
    """A list with commas or spaces between its items."""
    return value.replace(",", " ").split()


def number(line: Line, most: int) -> int:
    """A whole number from 0 to `most`; `off` is 0. Raises BadSiteError."""
    text = line.value
    if text.lower() == "off":
        return 0
    try:
        found = int(text, 0)
    except ValueError:
        found = -1
    if not 0 <= found <= most:
        raise BadSiteError(f"line {line.number}: {line.shown_key} is no number from 0 to {most}")
    return found


def _strip(buffer: bytearray, start: int, end: int) -> tuple[int, int]:
    while start < end and buffer[start] in _BLANK:
        start += 1
    while end > start and buffer[end - 1] in _BLANK:
        end -= 1
    return start, end
