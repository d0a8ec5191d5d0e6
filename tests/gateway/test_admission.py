import pytest

from gateway.admission import Admission
from gateway.errors import OverloadedError


def test_beyond_the_limit_a_request_is_refused_at_once_with_a_time_to_come_back() -> None:
    admission = Admission("inspect", 2)
    with admission.admit(), admission.admit():
        with pytest.raises(OverloadedError, match="2 requests to inspect") as caught, admission.admit():
            pass
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
    with admission.admit(), admission.admit():
        assert admission.in_flight == 2


def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission("fit", 1)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.admit():
            raise RuntimeError
    assert admission.in_flight == 0
