"""wg-quick's and systemd-networkd's files, read into one description of a site, and a site written for wg-quick.

    bytes -> _lines: section, key, place of the value -> _wg_quick | _networkd -> Site: settings, peers, what is left
    Site -> format_wg_quick -> text without secrets

Keys in clear are copied from the caller's buffer into bytearrays and nowhere else; the caller wipes them (`Site.wipe`)
and its buffer. Pure: no file is opened here. Called by `wghsm import` and `wghsm export`.
"""

from wghsm.wgquick._networkd import parse_networkd
from wghsm.wgquick._site import BadSiteError, Left, Site, SitePeer
from wghsm.wgquick._wg_quick import parse_wg_quick
from wghsm.wgquick._write import format_wg_quick

__all__ = ["BadSiteError", "Left", "Site", "SitePeer", "format_wg_quick", "parse_networkd", "parse_wg_quick"]
