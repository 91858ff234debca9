"""The tokens of a ceremony and their PINs: made or taken as they are, opened, and cleared of what an interruption left.

    prepare   an empty token gets its label, SO PIN and user PIN, typed by their holders; another is not touched
    log_in    the user PIN: kept from before in this sitting, from its source, or typed by its holders
    clear     no object may have the label of a key that is about to be made

PINs live here from where they are typed to the end of the sitting.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from wghsm.ceremony import Journal
from wghsm.cli import _ceremony_talk as talk
from wghsm.cli._ceremony_token import look, names_in, on
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, as_owner
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend.provision import destroy_key, destroy_secret
from wghsm.pkcs11_backend.tokens import init_token
from wghsm.softhsm_setup import make_token
from wghsm.wipe import wipe

__all__ = ["Tokens"]


class Tokens:
    """The tokens in the order of the journal; each is known by its place. `with` wipes their PINs at the end.

    `interrupted` says that an earlier sitting had begun to make what the step under way makes.
    """

    def __init__(self, journal: Journal, softhsm: Path | None, uid: int | None) -> None:
        self.uris = [TokenUri.parse(uri) for uri in journal.order.uris]
        self.interrupted = False
        self._journal = journal
        self._softhsm = softhsm
        self._uid = uid
        self._pins: dict[int, bytearray | None] = {}
        if softhsm is not None and (softhsm / "softhsm2.conf").exists():
            os.environ["SOFTHSM2_CONF"] = str(softhsm / "softhsm2.conf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pin in self._pins.values():
            wipe(pin)
        self._pins.clear()

    def prepare(self, place: int, mark: Callable[[], None]) -> list[str]:
        """Have the token ready, and its user PIN here; tells what was done. Raises CommandError and TokenError.

        `mark` is called before the token is touched.
        """
        uri = self.uris[place]
        there = [] if self._softhsm is not None and "SOFTHSM2_CONF" not in os.environ else look(uri)
        mine = [one for one in there if one["initialised"]]
        if mine:
            return self._adopt(place, mine[0])
        self._remove_stray(uri)
        if uri.token is None:
            raise CommandError("the token URI has no token=LABEL to give a new token", ExitCode.BAD_CONFIG)
        if self._softhsm is None and not there:
            raise CommandError(
                f"{uri.describe_token()} is not there, and {uri.module_path} has no empty slot for it; correct the "
                "URI, empty a token by its maker's means, or make a SoftHSM one with --softhsm DIR",
                ExitCode.TOKEN_UNUSABLE,
            )
        lengths = next((tuple(one["pin_lengths"]) for one in there if one["pin_lengths"]), None)
        if lengths is not None:
            talk.tell(f"The token takes PINs of {lengths[0]} to {lengths[1]} bytes.")
        so_holders = self._holders("SO PIN")
        so_pin = talk.new_pin("SO PIN", so_holders, lengths)
        try:
            holders = self._holders("user PIN")
            if so_holders == holders and len(holders) == 1:
                talk.tell("One person would know both PINs.")
                raise CommandError("the two PINs need two people; the same command goes on from here")
            pin = talk.new_pin("user PIN", holders, lengths, other=so_pin)
            self._keep(place, pin)
            mark()
            kept = self._initialise(uri, so_pin, pin)
        finally:
            wipe(so_pin)
        about = next((one for one in look(uri) if one["initialised"]), None)
        if about is None:
            raise CommandError(
                f"{uri.describe_token()} is not there after its initialisation; see the module's own log"
            )
        return [
            f"Token {uri.token!r} was initialised: {about['manufacturer']} {about['model']}, serial {about['serial']}, "
            f"firmware {about['firmware']}.",
            f"The SO PIN was typed by {' and '.join(so_holders)}; it is written nowhere.",
            f"The user PIN was typed by {' and '.join(holders)}; {kept}.",
        ]

    def log_in(self, place: int) -> bytearray | None:
        """The token's user PIN: kept, from its source, or from its holders; proved by a login."""
        if place in self._pins:
            return self._pins[place]
        uri = self.uris[place]
        file = _pin_file(uri)
        pin: bytearray | None
        if uri.pin_source == "prompt" or (file is not None and not file.exists()) or self._is_typed_here(uri):
            talk.tell(f"{uri.describe_token()} needs its user PIN.")
            pin = talk.login_pin("user PIN", self._holders("user PIN"))
        else:
            with open_pin(uri.pin_source) as source:
                pin = source.read_for_login()
        self._keep(place, pin)
        on(uri, pin, lambda _: None)
        return pin

    @staticmethod
    def _is_typed_here(uri: TokenUri) -> bool:
        """Whether a PIN without a source comes from this terminal: the token has no pinpad."""
        if uri.pin_source not in (None, "protected"):
            return False
        return not any("PROTECTED_AUTHENTICATION_PATH" in one["flags"] for one in look(uri) if one["initialised"])

    def clear(self, place: int, label: str) -> None:
        """Make sure that no object has the label; what the interrupted step left is destroyed."""
        uri, pin = self.uris[place], self.log_in(place)
        if label not in names_in(uri, pin):
            return
        if not self.interrupted:
            raise CommandError(
                f"{uri.describe_token()} has an object {label!r} that this ceremony did not make; nothing was changed: "
                "name another label in the gateway file, or destroy it first",
                ExitCode.TOKEN_UNUSABLE,
            )
        talk.tell(f"The interrupted step left {label!r} in {uri.describe_token()}. Nobody can rely on it yet.")
        if not click.confirm(f"Destroy {label!r} and make it anew?"):
            raise CommandError("the ceremony rests; the same command goes on from here")

        def work(pool: TokenPool) -> None:
            # Whichever it is: one label never means two kinds here.
            if label in {self._journal.order.psk_root, self._journal.order.wrap_key}:
                destroy_secret(pool, label)
            else:
                destroy_key(pool, label)

        on(uri, pin, work, write=True)

    def _initialise(self, uri: TokenUri, so_pin: bytearray, pin: bytearray) -> str:
        """Make the token; say where its user PIN is."""
        file = _pin_file(uri)
        if self._softhsm is not None:
            own = self._softhsm.absolute() / f"{uri.token}.pin"
            made = make_token(
                self._softhsm,
                label=str(uri.token),
                uid=self._uid,
                pin=pin,
                so_pin=so_pin,
                keep_pin=file == own,
                keep_so_pin=False,
            )
            os.environ["SOFTHSM2_CONF"] = str(made.conf)
            if file is None or file == own:
                return "it is written nowhere" if file is None else f"the gateway has it in {own}"
        elif file is not None and file.exists():
            raise CommandError(
                f"{file} exists, and the new PIN is to be written there; move it away", ExitCode.BAD_CONFIG
            )
        else:

            def work() -> Answer:
                init_token(uri, so_pin, pin)
                return Answer()

            as_owner(uri, work)
        if file is None:
            return "it is written nowhere"
        _write_pin(file, pin)
        return f"the gateway has it in {file}"

    def _remove_stray(self, uri: TokenUri) -> None:
        """An interrupted step may have written the PIN of a token that was not made any more."""
        stray = None if self._softhsm is None else self._softhsm / f"{uri.token}.pin"
        if not self.interrupted or stray is None or not stray.exists():
            return
        talk.tell(f"The interrupted step left {stray}, and no token that it opens.")
        if not click.confirm("Remove that file?", default=True):
            raise CommandError("the ceremony rests; the same command goes on from here")
        stray.unlink()

    def _adopt(self, place: int, about: dict[str, Any]) -> list[str]:
        name = f"Token {about['label']!r}, serial {about['serial']},"
        if "USER_PIN_INITIALIZED" not in about["flags"]:
            raise CommandError(
                f"{name} is initialised and has no user PIN; its maker's tools empty it or set one, then go on"
            )
        talk.tell(f"{name} is initialised already, and is not touched.")
        question = (
            "Take it as it is?" if not self.interrupted else "Take it as it is? The interrupted step may have made it."
        )
        if not click.confirm(question):
            raise CommandError("another token is needed: correct the gateway file, and begin anew with another --out")
        pin, file = self.log_in(place), _pin_file(self.uris[place])
        if self.interrupted and pin is not None and file is not None and not file.exists():
            _write_pin(file, pin)
        how = "whose initialisation here was interrupted, was taken up" if self.interrupted else "was taken as it was"
        return [f"{name} {how}; its PINs were set before, and the user PIN opened it."]

    def _holders(self, what: str) -> list[str]:
        """Who types a PIN: the two that share it, or the one that has it."""
        people = self._journal.participants
        talk.tell(*(f"{number}  {person.name}, {person.role}" for number, person in enumerate(people, 1)))
        if self._journal.pin_entry == "turns":
            return [people[talk.ask_number(f"Who has the {what}", people, "user" in what)].name]
        while True:
            first = talk.ask_number(f"Who has the first half of the {what}", people, 0)
            second = talk.ask_number(f"Who has the second half of the {what}", people, 1)
            if first != second:
                return [people[first].name, people[second].name]
            talk.tell("Two halves, two people.")

    def _keep(self, place: int, pin: bytearray | None) -> None:
        wipe(self._pins.get(place))
        self._pins[place] = pin


def _pin_file(uri: TokenUri) -> Path | None:
    """The file that the gateway will read the PIN from, if it is one."""
    kind, _, path = (uri.pin_source or "").partition(":")
    return Path(path) if kind == "file" and path.startswith("/") else None


def _write_pin(path: Path, pin: bytearray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, pin)
        os.write(descriptor, b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
