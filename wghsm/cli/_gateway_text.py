"""A gateway file written from nothing, for `wghsm import` and `wghsm init`.

Nothing secret comes in here. What is None is left out.
"""

from collections.abc import Iterable, Mapping

from wghsm.config import with_peer, yaml_word

__all__ = ["Fields", "gateway_text"]

Fields = Mapping[str, str | int | bool | list[str] | None]


def gateway_text(head: Iterable[str], sections: Mapping[str, Fields], peers: Iterable[Fields]) -> str:
    """The text; `head` are lines of comment, without their #."""
    text = "".join(f"# {line}\n" for line in head) + "version: 1\n"
    for name, fields in sections.items():
        written = {key: value for key, value in fields.items() if value is not None}
        if written:
            text += f"{name}:\n" + "".join(f"  {key}: {yaml_word(value)}\n" for key, value in written.items())
    entries = [{key: value for key, value in peer.items() if value is not None} for peer in peers]
    if not entries:
        return text + "peers: []\n"
    # One entry at a time: each is `peers:` and the entry, of a file without any.
    return text + "peers:\n" + "".join(with_peer("", entry).removeprefix("peers:\n") for entry in entries)
