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


@pytest.mark.parametrize(
    ("threshold", "n_regions", "expected"),
    [(0.5, 0, "review"), (0.5, 1, "ng"), (0.3, 0, "ng"), (None, 0, "uncalibrated")],
)
def test_only_an_image_that_would_pass_goes_to_review(threshold: float | None, n_regions: int, expected: str) -> None:
    assert judge(0.4, threshold, n_regions, in_review_band=True)[0] == expected
