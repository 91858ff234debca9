"""wghsm against wireguard-go on the same two cores, as ratios: `script/bench`, or `python -m benchmarks`.

    __main__      arguments -> laboratory -> measurements -> report
    throughput    one TCP stream through the gateway, both directions, and the CPU that the tunnel took for it
    handshakes    handshakes a second as responder, with load from `_generator`
    token_rate    the custodian against the bare token: what it costs beside its derives
    contenders    a wghsm gateway and a wireguard-go in one shape, and the CPU time of all their processes
    ratios        medians of per-round ratios
    report        the table on standard output, results.json, the table in docs/benchmarks.md

Needs root, and the laboratory of the network tests.
"""
