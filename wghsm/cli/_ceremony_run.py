"""Carrying out a ceremony: each step is told, agreed to, done with the functions that the other commands use, noted.

    labels are free -> "begun: STEP" on disk -> the step -> what was done, on disk
    interrupted in a step: it is undone (labels that it made are destroyed, after a question) and done again

The journal holds no secret; the PINs are with the tokens (`_ceremony_tokens`).
"""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.ceremony import Done, Finding, Journal, Participant, Step, Transcript, encode, fingerprint, plan
from wghsm.cli import _ceremony_talk as talk
from wghsm.cli._backup_file import backup_from, backup_of
from wghsm.cli._ceremony_software import machine, software
from wghsm.cli._ceremony_token import on, read_back
from wghsm.cli._output import CommandError
from wghsm.cli._owner import owner_to_become
from wghsm.cli._psk_file import replace_file
from wghsm.cli._recording import Deed, recording
from wghsm.cli._table import show_beside
from wghsm.cli.doctor import show_finding
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import root_check_value
from wghsm.pkcs11_backend.audit_key import generate_audit_key
from wghsm.pkcs11_backend.doctor import Level, Order, examine, verdict
from wghsm.pkcs11_backend.key_backup import backup_key, restore_key
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import derive_root, generate_key
from wghsm.pkcs11_backend.wrapping import make_wrap_key
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from wghsm.cli._ceremony_tokens import Tokens
    from wghsm.config import Gateway
    from wghsm.pkcs11_backend import TokenPool
    from wghsm.pkcs11_backend.doctor import Finding as Told

__all__ = ["Ceremony"]


class Ceremony:
    """One sitting of a ceremony at a terminal. The journal is kept at `path`."""

    def __init__(self, journal: Journal, path: Path, tokens: Tokens, gateway: Gateway) -> None:
        self.journal = journal
        self._path = path
        self._tokens = tokens
        self._gateway = gateway
        self._step = ""

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
        talk.tell(" ".join(step.tells))
        self._step = step.name
        self._tokens.interrupted = self.journal.begun == step.name
        if self._tokens.interrupted:
            talk.tell("This step was interrupted before. What it left is looked at first.")
        if not click.confirm("Go on?", default=True):
            raise CommandError(f"the ceremony rests before {step.title!r}; the same command goes on from here")
        began = _now()
        with recording(self._gateway, self._deed(step)):
            did = self._do(step)
        self.journal.steps.append(Done(name=step.name, title=step.title, began=began, ended=_now(), did=did))
        self.journal.begun = ""
        self.save()
        for each in did:
            show_beside(f"  {click.style('done:', fg='green')} ", each)

    def _deed(self, step: Step) -> Deed:
        """What the audit log of the commands says of the step."""
        order = self.journal.order
        label = {
            "gateway": order.key,
            "copy": order.key,
            "psk": order.psk_root,
            "wrap": order.wrap_key,
            "audit": order.audit_key,
        }.get(step.name.partition("-")[0])
        token = self._tokens.uris[step.token].describe_token()
        detail: dict[str, str | int] = {"ceremony": self.journal.id, "token": token}
        return Deed(f"ceremony.{step.name}", label or "", detail=detail)

    def _mark(self) -> None:
        """From now on the token may hold what this step makes; what was there before is never destroyed."""
        self.journal.begun = self._step
        self.save()

    def _clear(self, places: Iterable[int], label: str) -> None:
        for place in places:
            self._tokens.clear(place, label)
        self._mark()

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
                return self._tokens.prepare(step.token, self._mark)
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

    def _gateway_key(self) -> list[str]:
        order = self.journal.order
        imported = order.copy == "import" and len(self._tokens.uris) > 1
        places = range(len(self._tokens.uris)) if imported else range(1)
        self._clear(places, order.key)
        if imported:
            return self._import(order.key)
        wrappable = order.copy.startswith("wrapped:") and len(self._tokens.uris) > 1

        def work(pool: TokenPool) -> str:
            return base64.b64encode(generate_key(pool, order.key, wrappable=wrappable).public_key).decode()

        public = on(self._tokens.uris[0], self._tokens.log_in(0), work, write=True)
        return [f"Key {order.key!r} was made in {self._tokens.uris[0].describe_token()}.", *_public(public)]

    def _import(self, label: str) -> list[str]:
        raw = os.urandom(32)
        private = bytearray(raw)
        wipe(raw)
        try:
            publics: set[str] = set()
            for place, uri in enumerate(self._tokens.uris):

                def work(pool: TokenPool) -> str:
                    own = bytearray(private)
                    try:
                        return base64.b64encode(import_key(pool, label, own).public_key).decode()
                    finally:
                        wipe(own)

                publics.add(on(uri, self._tokens.log_in(place), work, write=True))
        finally:
            wipe(private)
        (public,) = publics
        made = f"Key {label!r} was made in memory, brought into {len(self._tokens.uris)} tokens, and wiped."
        return [made, *_public(public)]

    def _copy(self, place: int) -> list[str]:
        label, wrap = self.journal.order.key, self.journal.order.copy.removeprefix("wrapped:")
        self._clear([place], label)
        first = self._tokens.uris[0]
        saved = backup_from(
            on(first, self._tokens.log_in(0), lambda pool: backup_of(backup_key(pool, label, wrap)), write=True)
        )
        if saved is None:
            raise CommandError("the token work gave no backup")

        def work(pool: TokenPool) -> str:
            return base64.b64encode(restore_key(pool, saved, label, wrap).public_key).decode()

        public = on(self._tokens.uris[place], self._tokens.log_in(place), work, write=True)
        return [
            f"Key {label!r} was copied, wrapped under {wrap!r}, into {self._tokens.uris[place].describe_token()}.",
            *_public(public),
        ]

    def _psk_root(self) -> list[str]:
        label = str(self.journal.order.psk_root)
        self._clear([0], label)

        def work(pool: TokenPool) -> str:
            derive_root(pool, label)
            return root_check_value(pool, label).hex()

        value = on(self._tokens.uris[0], self._tokens.log_in(0), work, write=True)
        did = [f"Root {label!r} was made in {self._tokens.uris[0].describe_token()}; its check value is {value}."]
        if len(self._tokens.uris) > 1:
            did.append("It is in the first token only; the others get it by their maker's means.")
        return did

    def _wrap_key(self) -> list[str]:
        label = str(self.journal.order.wrap_key)
        self._clear([0], label)

        def work(pool: TokenPool) -> None:
            make_wrap_key(pool, label)

        on(self._tokens.uris[0], self._tokens.log_in(0), work, write=True)
        did = [f"Key {label!r} was made in {self._tokens.uris[0].describe_token()}."]
        if len(self._tokens.uris) > 1:
            did.append("It is in the first token only; the others get it by their maker's means.")
        return did

    def _audit_key(self, place: int) -> list[str]:
        label = str(self.journal.order.audit_key)
        self._clear([place], label)

        def work(pool: TokenPool) -> list[str]:
            made = generate_audit_key(pool, label)
            return [made.algorithm, made.fingerprint]

        algorithm, digest = on(self._tokens.uris[place], self._tokens.log_in(place), work, write=True)
        where = self._tokens.uris[place].describe_token()
        return [f"Key {label!r} ({algorithm}) was made in {where}; the SHA-256 of its public key is {digest}."]

    def _proof(self, place: int) -> list[str]:
        order, uri = self.journal.order, self._tokens.uris[place]
        pin = self._tokens.log_in(place)
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
        order, uri = self.journal.order, self._tokens.uris[place]

        def show(one: Told) -> None:
            findings.append(one)
            show_finding(one)

        wanted = Order(
            uri=uri,
            key=order.key,
            psk_root=None if place else order.psk_root,
            wrap_key=None if place else order.wrap_key,
            sessions=self._gateway.token.sessions,
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


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
