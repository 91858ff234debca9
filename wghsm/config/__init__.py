"""The YAML gateway file: its model, and reading it with every error named by line.

    bytes -> _yaml: tree of text with line numbers -> _model: typed values -> _conflicts: rules between keys
                                  |                            |                       |
                                  +------------ problems, all of them, sorted by line -+

_quick: the tree of a file in order, in less time.
_include: peers in other files.   _plan: what lies between two gateways.   _document: a gateway as JSON and back.
_schema: the file for editors.   _edit: changes to its text, which leave the rest of it as it is.

Callers: the commands (`wghsm check`, `wghsm run`) and the supervisor. This room knows no other one but
`wghsm.exits`; it opens the gateway file, what that includes, and where asked the files of wrapped PSKs: names are not
resolved, users not looked up.
"""

from wghsm.config._document import from_document, to_document, written
from wghsm.config._edit import with_fields, with_peer, without_peer, yaml_word
from wghsm.config._errors import ConfigError, Problem
from wghsm.config._firewall import Allow, limit_text
from wghsm.config._load import load, load_peers, load_text, peer_place
from wghsm.config._model import Audit, Clients, Firewall, Gateway, Hooks, Interface, Peer, Policy, Token, Tunnel, Users
from wghsm.config._plan import MAIN_TABLE, Change, Effect, KernelRoute, Plan, default_table, kernel_routes, plan
from wghsm.config._psk import PskDerived, PskNone, PskObject, PskWrapped
from wghsm.config._schema import json_schema, peers_schema
from wghsm.config._values import Endpoint
from wghsm.config._wrapped import WrappedPsk, format_wrapped, line_of_epoch, read_wrapped, read_wrapped_files

__all__ = [
    "MAIN_TABLE",
    "Allow",
    "Audit",
    "Change",
    "Clients",
    "ConfigError",
    "Effect",
    "Endpoint",
    "Firewall",
    "Gateway",
    "Hooks",
    "Interface",
    "KernelRoute",
    "Peer",
    "Plan",
    "Policy",
    "Problem",
    "PskDerived",
    "PskNone",
    "PskObject",
    "PskWrapped",
    "Token",
    "Tunnel",
    "Users",
    "WrappedPsk",
    "default_table",
    "format_wrapped",
    "from_document",
    "json_schema",
    "kernel_routes",
    "limit_text",
    "line_of_epoch",
    "load",
    "load_peers",
    "load_text",
    "peer_place",
    "peers_schema",
    "plan",
    "read_wrapped",
    "read_wrapped_files",
    "to_document",
    "with_fields",
    "with_peer",
    "without_peer",
    "written",
    "yaml_word",
]
