"""What is wrong with a gateway file: one `Problem` each, all of them in one `ConfigError`."""

from collections.abc import Iterable
from dataclasses import dataclass

from wghsm.exits import ExitCode

__all__ = ["ConfigError", "Problem"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault (or warning) of a gateway file.

    `line` counts from 1; 0 means the file as a whole. Neither `message` nor `remedy` repeats a value that
    may be a secret.
    """

    file: str
    line: int
    message: str
    remedy: str

    def __str__(self) -> str:
        """`FILE:LINE: what is wrong; what to write instead`."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}; {self.remedy}"


class ConfigError(Exception):
    """A gateway file cannot be used. Holds every problem found, sorted by line; `str()` is one line each."""

    exit_code = ExitCode.BAD_CONFIG

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
