"""The YAML gateway file: its model, and reading it with every error named by line.

    bytes -> _yaml: tree of text with line numbers -> _model: typed values -> _conflicts: rules between keys
                                  |                            |                       |
                                  +------------ problems, all of them, sorted by line -+

Callers: the commands (`wghsm check`, `wghsm run`) and the supervisor. This room knows no other one but
`wghsm.exits`; it opens one file and nothing else: names are not resolved, users not looked up.
"""

from wghsm.config._errors import ConfigError, Problem
from wghsm.config._load import load, load_text
from wghsm.config._model import Gateway, Interface, Peer, Token, Users
from wghsm.config._values import Endpoint, PskDerived, PskNone, PskObject

__all__ = [
    "ConfigError",
    "Endpoint",
    "Gateway",
    "Interface",
    "Peer",
    "Problem",
    "PskDerived",
    "PskNone",
    "PskObject",
    "Token",
    "Users",
    "load",
    "load_text",
]
