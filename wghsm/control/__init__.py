"""The control process: what wg(8) and the `wghsm` command say to a running gateway.

    wg(8)   -> NAME.sock  -> uapi (parse, policy) -> DeviceGet, DeviceSet -> supervisor
    wghsm   -> admin.sock -> admin                -> DeviceGet, StatusGet, RekeyRequest, StopRequest -> supervisor
    PSK in clear (authority: runtime only)        -> PutPsk -> custodian, never to the supervisor

It holds no key. The supervisor starts it as `python -m wghsm.control` with two listening sockets.
"""

from .uapi import Get, Malformed, Operation, Set, format_device, next_operation

__all__ = ["Get", "Malformed", "Operation", "Set", "format_device", "next_operation"]
