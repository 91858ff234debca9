"""The tunnel: packets between the TUN device and UDP, sealed and opened with session keys (the wg(4) of the design).

    egress, one process                                ingress, another process
    -------------------                                ------------------------
    TUN: a packet or super-packet a read               UDP: datagrams of one source a read
     |  destination -> peer             allowed_ips     |  length and type; types 1 to 3 go to handshake
     |  no endpoint: dropped                            |  index -> session; its age
     |  no session: staged, 128 a peer  staging         |  counter limit, authenticate, window    open
     |                                  -> handshake    |  inner length, cut the padding
     |  cut, next counter, pad, seal    seal            |  source belongs to this very peer?      allowed_ips
     |  a batch for one session                         |  ECN, merge
    UDP: one send for a batch, from     transmit        |  endpoint := source -> egress, handshake
     the address that the peer last                     |  NEXT: rotate -> egress, handshake      slots
     spoke to                           endpoints      TUN: packets and super-packets             deliver

    custodian --InstallSend--> egress, --InstallReceive--> ingress       keys come this way only
    ingress, handshake --Activate--> egress                              from then on a session sends

`seal` and `open` are the two functions of the packet path, in Python; `compiled` has both in C, and `engine` chooses.
docs/dataplane.md says what they do to a packet. `sender.Sender` and `receiver.Receiver` are the machines around them,
without sockets or a clock; `egress` and `ingress` are the programs. Each session's send counter and each replay window
have one owner, and both processes hold to the age and message limits whatever they are told (PROTOCOL.md sections 5, 9,
10).
"""

from wghsm.tunnel.times import Times

__all__ = ["Times"]
