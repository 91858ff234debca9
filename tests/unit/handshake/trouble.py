"""How bad the simulated world may be: hypothesis strategies, shared by the tests of whole gateways."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from .world import MILLISECOND, SECOND, Conditions

SEEDS = st.integers(0, 2**32)
RECOVERY = 15 * SECOND
"""How long packets may be away once the world is good again."""

LOSSLESS = st.builds(
    Conditions,
    channel_delay=st.sampled_from([0, MILLISECOND, 50 * MILLISECOND]),
    token_delay=st.sampled_from([0, 20 * MILLISECOND, 400 * MILLISECOND]),
    link_delay=st.sampled_from([0, 20 * MILLISECOND, 300 * MILLISECOND]),
    repeated_installs=st.sampled_from([0.0, 0.5]),
)
BAD = st.builds(
    Conditions,
    channel_delay=st.sampled_from([0, 5 * MILLISECOND, 100 * MILLISECOND]),
    token_delay=st.sampled_from([0, 20 * MILLISECOND, 900 * MILLISECOND]),
    link_delay=st.just(10 * MILLISECOND),
    link_jitter=st.sampled_from([0, 50 * MILLISECOND, 2 * SECOND]),
    loss=st.floats(0, 0.6),
    duplicates=st.floats(0, 0.5),
    repeated_installs=st.floats(0, 1),
)


def examples(number: int) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=number)
