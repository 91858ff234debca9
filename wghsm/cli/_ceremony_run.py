"""Carrying out a ceremony: each step is told, agreed to, done with the functions that the other commands use, noted.

    journal on disk: "begun: STEP" -> the step -> what was done -> journal on disk
    interrupted in a step: it is undone (labels that it made are destroyed, after a question) and done again

The journal holds no secret. PINs live here from the step that sets or asks for them to the end of the sitting.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from wghsm.ceremony import Done, Finding, Journal, Participant, Step, Transcript, encode, fingerprint, plan
from wghsm.cli import _ceremony_talk as talk
from wghsm.cli._backup_file import backup_from, backup_of
from wghsm.cli._ceremony_software import machine, software
from wghsm.cli._ceremony_token import look, names_in, on, read_back
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, as_owner, owner_to_become
from wghsm.cli._psk_file import replace_file
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri, open_pin, root_check_value
from wghsm.pkcs11_backend.audit_key import generate_audit_key
from wghsm.pkcs11_backend.doctor import Level, Order, examine, verdict
from wghsm.pkcs11_backend.key_backup import backup_key, restore_key
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import derive_root, destroy_key, destroy_secret, generate_key, init_token
from wghsm.pkcs11_backend.wrapping import make_wrap_key
from wghsm.softhsm_setup import make_token
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from wghsm.pkcs11_backend import TokenPool
    from wghsm.pkcs11_backend.doctor import Finding as Told

__all__ = ["Ceremony"]


class Ceremony:
    """One ceremony at a terminal, for as long as a sitting lasts. `with` wipes its PINs at the end."""

    def __init__(self, journal: Journal, path: Path, *, sessions: int, softhsm: Path | None, uid: int | None) -> None:
        self.journal = journal
        self._path = path
        self._sessions = sessions
        self._softhsm = softhsm
        self._uid = uid
        self._uris = [TokenUri.parse(uri) for uri in journal.order.uris]
        self._pins: dict[int, bytearray | None] = {}
        self._interrupted = False
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

    def run(self) -> Transcript:
        """Carry out what is left, and give the transcript. Raises CommandError, TokenError, click.Abort."""
        steps = plan(self.journal.order)
        done = {step.name for step in self.journal.steps}
        for number, step in enumerate(steps, 1):
            if step.name not in done:
                self._carry_out(step, f"Step {number} of {len(steps)}: {step.title}")
        one = self.journal
        return Transcript(
            id=one.id,
            host=machine(),
            order=one.order,
            sittings=one.sittings,
            ended=_now(),
            participants=one.participants,
            software=one.software,
            steps=one.steps,
            tokens=one.tokens,
        )

    def _carry_out(self, step: Step, title: str) -> None:
        talk.heading(title)
        talk.tell(*step.tells)
        self._interrupted = self.journal.begun == step.name
        if self._interrupted:
            talk.tell("This step was interrupted before. What it left is looked at first.")
        if not click.confirm("Go on?", default=True):
            raise CommandError(f"the ceremony rests before {step.title!r}; the same command goes on from here")
        self.journal.begun = step.name
        self.save()
        began = _now()
        did = self._do(step)
        self.journal.steps.append(Done(name=step.name, title=step.title, began=began, ended=_now(), did=did))
        self.journal.begun = ""
        self.save()
        for each in did:
            click.secho("  done: ", fg="green", nl=False)
            click.echo(each)

    def save(self) -> None:
        """Have the journal on disk. Raises OSError."""
        replace_file(self._path, encode(self.journal))

    def _do(self, step: Step) -> list[str]:
        kind = step.name.rpartition("-")[0] if step.name[-1].isdigit() else step.name
        match kind:
            case "people":
                return self._people()
            case "software":
                return self._software()
            case "token":
                return self._token(step.token)
            case "gateway-key":
                return self._gateway_key()
            case "copy":
                return self._copy(step.token)
            case "psk-root":
                return self._psk_root()
            case "wrap-key":
                return self._wrap_key()
            case "audit-key":
                return self._audit_key(step.token)
            case "proof":
                return self._proof(step.token)
            case _:
                raise AssertionError(f"nobody carries out {step.name}")

    def _people(self) -> list[str]:
        people: list[Participant] = []
        while True:
            enough = len(people) >= 2
            more = " (nothing: that is all)" if enough else ""
            name = talk.ask_text(f"Name of person {len(people) + 1}{more}", empty=enough)
            if not name:
                break
            if name in {person.name for person in people}:
                talk.tell("That name is taken; everybody has one of their own.")
                continue
            people.append(Participant(name, talk.ask_text(f"What {name} is here for")))
        self.journal.participants = people
        talk.tell("PINs in halves: two people know half of each. In turns: one knows the SO PIN, another the user PIN.")
        chosen = click.prompt("PINs in", type=click.Choice(["halves", "turns"]), default="halves")
        self.journal.pin_entry = "turns" if chosen == "turns" else "halves"
        return [*(f"{person.name}: {person.role}." for person in people), f"PINs are typed in {chosen}."]

    def _software(self) -> list[str]:
        self.journal.software = software()
        for each in self.journal.software:
            talk.tell(f"{each.name} {each.version}", f"    {each.sha256}")
        return [f"{len(self.journal.software)} programs and libraries were hashed."]

    def _holders(self, what: str) -> list[str]:
        """Who types a PIN: the two that share it, or the one that has it."""
        people = self.journal.participants
        talk.tell(*(f"{number}  {person.name}, {person.role}" for number, person in enumerate(people, 1)))
        if self.journal.pin_entry == "turns":
            return [people[talk.ask_number(f"Who has the {what}", people, "user" in what)].name]
        while True:
            first = talk.ask_number(f"Who has the first half of the {what}", people, 0)
            second = talk.ask_number(f"Who has the second half of the {what}", people, 1)
            if first != second:
                return [people[first].name, people[second].name]
            talk.tell("Two halves, two people.")

    def _token(self, place: int) -> list[str]:
        uri = self._uris[place]
        there = [] if self._softhsm is not None and "SOFTHSM2_CONF" not in os.environ else look(uri)
        mine = [one for one in there if one["initialised"]]
        if mine:
            return self._adopt(place, mine[0])
        if uri.token is None:
            raise CommandError("the token URI has no token=LABEL to give a new token", ExitCode.BAD_CONFIG)
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
            kept = self._initialise(uri, so_pin, pin)
        finally:
            wipe(so_pin)
        (about,) = [one for one in look(uri) if one["initialised"]]
        return [
            f"Token {uri.token!r} was initialised: {about['manufacturer']} {about['model']}, serial {about['serial']}, "
            f"firmware {about['firmware']}.",
            f"The SO PIN was typed by {' and '.join(so_holders)}; it is written nowhere.",
            f"The user PIN was typed by {' and '.join(holders)}; {kept}.",
        ]

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

    def _adopt(self, place: int, about: dict[str, Any]) -> list[str]:
        name = f"Token {about['label']!r}, serial {about['serial']},"
        if "USER_PIN_INITIALIZED" not in about["flags"]:
            raise CommandError(
                f"{name} is initialised and has no user PIN; its maker's tools empty it or set one, then go on"
            )
        talk.tell(f"{name} is initialised already, and is not touched.")
        question = (
            "Take it as it is?" if not self._interrupted else "Take it as it is? The interrupted step may have made it."
        )
        if not click.confirm(question):
            raise CommandError("another token is needed: correct the gateway file, and begin anew with another --out")
        self._log_in(place)
        how = "whose initialisation here was interrupted, was taken up" if self._interrupted else "was taken as it was"
        return [f"{name} {how}; its PINs were set before, and the user PIN opened it."]

    def _log_in(self, place: int) -> bytearray | None:
        """The token's user PIN: kept, from its source, or from its holders; proved by a login."""
        if place in self._pins:
            return self._pins[place]
        uri = self._uris[place]
        file = _pin_file(uri)
        pin: bytearray | None
        if uri.pin_source in (None, "prompt") or (file is not None and not file.exists()):
            talk.tell(f"{uri.describe_token()} needs its user PIN.")
            pin = talk.login_pin("user PIN", self._holders("user PIN"))
        else:
            with open_pin(uri.pin_source) as source:
                pin = source.read_for_login()
        self._keep(place, pin)
        on(uri, pin, lambda _: None)
        return pin

    def _keep(self, place: int, pin: bytearray | None) -> None:
        wipe(self._pins.get(place))
        self._pins[place] = pin

    def _clear(self, place: int, label: str) -> None:
        """Make sure that no object has the label; what the interrupted step left is destroyed."""
        uri, pin = self._uris[place], self._log_in(place)
        if label not in names_in(uri, pin):
            return
        if not self._interrupted:
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
            if label in {self.journal.order.psk_root, self.journal.order.wrap_key}:
                destroy_secret(pool, label)
            else:
                destroy_key(pool, label)

        on(uri, pin, work, write=True)

    def _gateway_key(self) -> list[str]:
        order = self.journal.order
        imported = order.copy == "import" and len(self._uris) > 1
        places = range(len(self._uris)) if imported else range(1)
        for place in places:
            self._clear(place, order.key)
        if imported:
            return self._import(order.key)
        wrappable = order.copy.startswith("wrapped:") and len(self._uris) > 1

        def work(pool: TokenPool) -> str:
            return base64.b64encode(generate_key(pool, order.key, wrappable=wrappable).public_key).decode()

        public = on(self._uris[0], self._log_in(0), work, write=True)
        return [f"Key {order.key!r} was made in {self._uris[0].describe_token()}.", *_public(public)]

    def _import(self, label: str) -> list[str]:
        raw = os.urandom(32)
        private = bytearray(raw)
        wipe(raw)
        try:
            publics: set[str] = set()
            for place, uri in enumerate(self._uris):

                def work(pool: TokenPool) -> str:
                    own = bytearray(private)
                    try:
                        return base64.b64encode(import_key(pool, label, own).public_key).decode()
                    finally:
                        wipe(own)

                publics.add(on(uri, self._log_in(place), work, write=True))
        finally:
            wipe(private)
        (public,) = publics
        made = f"Key {label!r} was made in memory, brought into {len(self._uris)} tokens, and wiped."
        return [made, *_public(public)]

    def _copy(self, place: int) -> list[str]:
        label, wrap = self.journal.order.key, self.journal.order.copy.removeprefix("wrapped:")
        self._clear(place, label)
        first = self._uris[0]
        saved = backup_from(
            on(first, self._log_in(0), lambda pool: backup_of(backup_key(pool, label, wrap)), write=True)
        )
        if saved is None:
            raise CommandError("the token work gave no backup")

        def work(pool: TokenPool) -> str:
            return base64.b64encode(restore_key(pool, saved, label, wrap).public_key).decode()

        public = on(self._uris[place], self._log_in(place), work, write=True)
        return [
            f"Key {label!r} was copied, wrapped under {wrap!r}, into {self._uris[place].describe_token()}.",
            *_public(public),
        ]

    def _psk_root(self) -> list[str]:
        label = str(self.journal.order.psk_root)
        self._clear(0, label)

        def work(pool: TokenPool) -> str:
            derive_root(pool, label)
            return root_check_value(pool, label).hex()

        value = on(self._uris[0], self._log_in(0), work, write=True)
        did = [f"Root {label!r} was made in {self._uris[0].describe_token()}; its check value is {value}."]
        if len(self._uris) > 1:
            did.append("It is in the first token only; the others get it by their maker's means.")
        return did

    def _wrap_key(self) -> list[str]:
        label = str(self.journal.order.wrap_key)
        self._clear(0, label)

        def work(pool: TokenPool) -> None:
            make_wrap_key(pool, label)

        on(self._uris[0], self._log_in(0), work, write=True)
        did = [f"Key {label!r} was made in {self._uris[0].describe_token()}."]
        if len(self._uris) > 1:
            did.append("It is in the first token only; the others get it by their maker's means.")
        return did

    def _audit_key(self, place: int) -> list[str]:
        label = str(self.journal.order.audit_key)
        self._clear(place, label)

        def work(pool: TokenPool) -> list[str]:
            made = generate_audit_key(pool, label)
            return [made.algorithm, made.fingerprint]

        algorithm, digest = on(self._uris[place], self._log_in(place), work, write=True)
        where = self._uris[place].describe_token()
        return [f"Key {label!r} ({algorithm}) was made in {where}; the SHA-256 of its public key is {digest}."]

    def _proof(self, place: int) -> list[str]:
        order, uri = self.journal.order, self._uris[place]
        pin = self._log_in(place)
        findings: list[Told] = []
        did: list[str] = []
        if place and order.copy == "maker":
            did.append(
                "It holds no key of the gateway yet, and was not examined; its maker's means copy the first one."
            )
        else:
            self._examine(place, pin, findings)
            counts = ", ".join(f"{sum(one.level is level for one in findings)} {level}" for level in Level)
            did.append(f"The doctor's verdict is {verdict(findings)} ({counts}).")
        seen = msgspec.structs.replace(
            read_back(uri, pin, order),
            findings=[Finding(one.check, str(one.level), one.text, one.remedy) for one in findings],
        )
        self.journal.tokens = [*self.journal.tokens[:place], seen]
        return [*did, f"{len(seen.objects)} keys and secrets were read back."]

    def _examine(self, place: int, pin: bytearray | None, findings: list[Told]) -> None:
        order, uri = self.journal.order, self._uris[place]

        def show(one: Told) -> None:
            findings.append(one)
            talk.tell(f"{one.level:7} {one.check}: {one.text}")

        wanted = Order(
            uri=uri,
            key=order.key,
            psk_root=None if place else order.psk_root,
            wrap_key=None if place else order.wrap_key,
            sessions=self._sessions,
            strict=True,
        )
        examine(wanted, pin, owner_to_become(uri), show)
        if verdict(findings) is Level.RED:
            raise CommandError(
                "the token is not fit for a gateway; mend what is red, then the same command goes on from here",
                ExitCode.TOKEN_UNUSABLE,
            )


def _public(public: str) -> list[str]:
    return [f"Its public key is {public}, SHA-256 {fingerprint(base64.b64decode(public))}."]


def _pin_file(uri: TokenUri) -> Path | None:
    """The file that the gateway will read the PIN from, if it is one."""
    kind, _, path = (uri.pin_source or "").partition(":")
    return Path(path) if kind == "file" and path.startswith("/") else None


def _write_pin(path: Path, pin: bytearray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, pin)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
