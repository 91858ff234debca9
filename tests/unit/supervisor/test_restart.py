"""What a child's end means, and the waiting times."""

import pytest

from wghsm.exits import FINAL, ExitCode
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.supervisor.restart import Backoff, EndGateway, Restart, judge

SECOND = 1_000_000_000


def test_delays_double_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.after(0) / SECOND for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_a_good_life_starts_over() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(59 * SECOND)
    assert backoff.after(60 * SECOND) == SECOND // 10
    assert backoff.after(1) == SECOND // 5


@pytest.mark.parametrize("code", sorted(FINAL))
@pytest.mark.parametrize("served", [False, True])
def test_final_codes_end_the_gateway(code: ExitCode, served: bool) -> None:
    verdict = judge(Role.CUSTODIAN, code, m.Fault(code, "one line"), served=served)
    assert verdict == EndGateway(code, "one line")


def test_before_it_served_every_end_is_the_gateways() -> None:
    assert judge(Role.EGRESS, -9, None, served=False) == EndGateway(ExitCode.FAILURE, "egress ended by SIGKILL")
    assert judge(Role.EGRESS, 0, None, served=False) == EndGateway(ExitCode.FAILURE, "egress ended with exit code 0")
    assert judge(Role.EGRESS, 70, None, served=False) == EndGateway(ExitCode.PROTOCOL, "egress ended with exit code 70")
    late = judge(Role.EGRESS, -9, None, served=False, killed_for="it was not ready within 60 s")
    assert late == EndGateway(ExitCode.FAILURE, "egress was killed: it was not ready within 60 s")


@pytest.mark.parametrize(
    ("status", "killed_for", "said"),
    [
        (-11, "", "custodian ended by SIGSEGV: the token's module has crashed; wghsm token doctor -c FILE says where"),
        (-6, "", "custodian ended by SIGABRT: the token's module has crashed; wghsm token doctor -c FILE says where"),
        (-9, "", "custodian ended by SIGKILL"),
        (
            -9,
            "it was not ready within 120 s",
            "custodian was killed: it was not ready within 120 s: the token's module does not answer; "
            "wghsm token doctor -c FILE says where",
        ),
    ],
)
def test_the_custodians_death_points_to_the_module(status: int, killed_for: str, said: str) -> None:
    for served, verdict in ((False, EndGateway(ExitCode.FAILURE, said)), (True, Restart(said))):
        assert judge(Role.CUSTODIAN, status, None, served=served, killed_for=killed_for) == verdict


def test_afterwards_it_is_restarted() -> None:
    assert judge(Role.INGRESS, -11, None, served=True) == Restart("ingress ended by SIGSEGV")
    assert judge(Role.INGRESS, 1, m.Fault(1, "why"), served=True) == Restart("why")
    assert judge(Role.INGRESS, 99, None, served=True) == Restart("ingress ended with exit code 99")


def test_a_child_s_words_stay_one_line() -> None:
    assert judge(Role.INGRESS, 1, m.Fault(1, "a\nb\x1b[2J"), served=True) == Restart("a b [2J")


def test_a_final_code_without_a_word_is_final_too() -> None:
    verdict = judge(Role.CUSTODIAN, ExitCode.PIN_REFUSED, None, served=True)
    assert isinstance(verdict, EndGateway)
    assert verdict.exit_code == ExitCode.PIN_REFUSED
