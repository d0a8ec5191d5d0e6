from hypothesis import given
from hypothesis import strategies as st

from gateway.calibration.conformal import conformal_rank, ok_scores_needed


@given(n=st.integers(1, 3000), thousandths=st.integers(1, 999))
def test_the_rank_exists_from_the_needed_number_of_scores_on(n: int, thousandths: int) -> None:
    rate = thousandths / 1000
    assert (conformal_rank(n, rate) <= n) == (n >= ok_scores_needed(rate))
