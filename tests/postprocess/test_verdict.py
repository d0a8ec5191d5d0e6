import pytest

from postprocess.verdict import judge


@pytest.mark.parametrize(
    ("score", "threshold", "n_regions", "expected"),
    [
        (0.9, None, 0, ("uncalibrated", None)),
        (0.5, 0.5, 0, ("ok", None)),
        (0.51, 0.5, 0, ("ng", "score")),
        (0.5, 0.5, 1, ("ng", "region")),
        (0.51, 0.5, 2, ("ng", "both")),
    ],
)
def test_the_verdict_and_its_reason(
    score: float, threshold: float | None, n_regions: int, expected: tuple[str, str | None]
) -> None:
    assert judge(score, threshold, n_regions) == expected
