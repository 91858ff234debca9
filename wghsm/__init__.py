"""wghsm: a WireGuard gateway whose long-term secrets stay in a PKCS#11 token.

docs/architecture.md draws the rooms of this package and the walls between its processes.
"""

__version__ = "0.1.0"
