"""The tunnel: packets between the TUN device and UDP, sealed and opened with session keys (the wg(4) of the design).

    egress, one process                                ingress, another process
    -------------------                                ------------------------
    TUN: one packet a read                             UDP: one datagram a read, with its source and own address
     |  inner version, lengths          packets         |  length and type; types 1 to 3 go to handshake
     |  destination -> peer             allowed_ips     |  index -> session; age and counter limits
     |  no endpoint: dropped                            |  authenticate, then replay window       open
     |  no session: staged, 128 a peer  staging         |  endpoint := source -> egress, handshake
     |                                  -> handshake    |  NEXT: rotate -> egress, handshake      slots
     |  next counter, pad, seal         seal, slots     |  keepalive: ends here
    UDP: sendmsg from the address that                  |  inner length, cut the padding          packets
     the peer last spoke to             endpoints       |  source belongs to this very peer?      allowed_ips
                                                       TUN: one packet a write

    custodian --InstallSend--> egress, --InstallReceive--> ingress       keys come this way only
    ingress, handshake --Activate--> egress                              from then on a session sends

`seal.seal_read` and `open.open_read` are the two functions of the packet path: one TUN read into datagrams, one
UDP read into TUN writes. `sender.Sender` and `receiver.Receiver` are the machines around them, without sockets or
a clock; `egress` and `ingress` are the programs. Each session's send counter and each replay window have one
owner, and both processes hold to the age and message limits whatever they are told (PROTOCOL.md sections 5, 9, 10).
"""

from wghsm.tunnel.times import Times

__all__ = ["Times"]
