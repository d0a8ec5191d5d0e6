import pytest

from gateway.errors import InvalidRequestError
from gateway.store.roi_key import RoiKey


@pytest.mark.parametrize("value", ["a", "A-1", "disc front", "x" * 64, "_", "-", "a..b", "1.2.3", "con"])
def test_ids_of_the_contract_are_accepted(value: str) -> None:
    assert str(RoiKey(value, "roi")) == f"{value}/roi"


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        ".a",
        "a.",
        " a",
        "a ",
        "x" * 65,
        "a\n",
        "a\0",
        "é",
        "ａ",
        "a\u202e",
        "~",
        "%2e",
    ],
)
@pytest.mark.parametrize("field", ["role_id", "roi_id"])
def test_other_ids_never_become_a_key(field: str, value: str) -> None:
    ids = {"role_id": "role", "roi_id": "roi", field: value}
    with pytest.raises(InvalidRequestError, match=field) as caught:
        RoiKey(**ids)
    assert "64 characters" in caught.value.hint


def test_a_very_long_id_is_not_echoed_whole() -> None:
    with pytest.raises(InvalidRequestError, match=r"\(10000 characters\)") as caught:
        RoiKey("x" * 10_000, "roi")
    assert len(caught.value.message) < 200
