"""The handshake process: peers, indices, cookies, timers, roaming. It parses what strangers send and knows no key.

    ingress --Datagram--> core --> gate (mac1, mac2, rate) --> custodian
                           |  ^                                   |
      message 1 to 3 <-----+  +------ fields, session numbers ----+
                           |
                           +--> egress: Activate, SendKeepalive, PurgeStaged; ingress, egress: ForgetSessions

    core        the machine: messages in, effects out         timers     the five timers of a peer
    gate        what costs nothing comes before the token     indices    32-bit indices, sessions by slot
    load        the token's pending work and latency          intake     a datagram's way to gate and exchange
    requests    open questions, sessions half installed       schedule   deadlines, paced re-keys
    peers       what is known of a peer                       pace       how many re-keys at once
    shell       sockets, clock, loop

`core.HandshakeCore` is pure; `shell.main` is the program around it, started by `python -m wghsm.handshake`.
"""

from wghsm.handshake.core import HandshakeCore
from wghsm.handshake.effects import Effect, SendDatagram, Tell
from wghsm.handshake.times import Limits, Times

__all__ = ["Effect", "HandshakeCore", "Limits", "SendDatagram", "Tell", "Times"]
