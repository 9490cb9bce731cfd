from __future__ import annotations

import time

from observatory_storage.circuit_breaker import CircuitBreaker


def wait_for_call(breaker: CircuitBreaker) -> None:
    deadline = time.monotonic() + 30
    while not breaker.allows_call():
        assert time.monotonic() < deadline
        time.sleep(breaker.remaining_secs)


def test_calls_are_allowed_until_several_failed_in_a_row() -> None:
    breaker = CircuitBreaker(failures=2, pause_secs=60)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    states = [(breaker.is_open, breaker.allows_call())]
    breaker.failed()
    states.append((breaker.is_open, breaker.allows_call()))
    assert states == [(False, True), (True, False)]
    assert 0 < breaker.remaining_secs <= 60


def test_one_call_is_allowed_after_the_pause() -> None:
    breaker = CircuitBreaker(failures=1, pause_secs=0.01, max_pause_secs=60)
    breaker.failed()
    wait_for_call(breaker)
    breaker._pause = 60
    breaker.failed()
    assert not breaker.allows_call()


def test_success_closes_it_and_forgets_earlier_failures() -> None:
    breaker = CircuitBreaker(failures=1, pause_secs=0.01)
    breaker.failed()
    wait_for_call(breaker)
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.remaining_secs == 0
    assert breaker.allows_call()


def test_pauses_double_up_to_the_longest_one() -> None:
    breaker = CircuitBreaker(failures=1, pause_secs=10, max_pause_secs=30)
    pauses = []
    for _ in range(4):
        breaker.failed()
        pauses.append(round(breaker.remaining_secs))
    assert pauses == [10, 20, 30, 30]
    assert breaker.times_opened == 1
