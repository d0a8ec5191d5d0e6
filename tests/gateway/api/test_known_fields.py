import pytest

from gateway.api.known_fields import repeated_field, unknown_fields

KNOWN = {"role_id", "roi_id", "mm_per_px", "ok_scores", "false_alarm_rate"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ok_score", "ok_scores"),
        ("false_alarm", "false_alarm_rate"),
        ("roleId", "role_id"),
        ("ROI-ID", "roi_id"),
        ("mmPerPx", "mm_per_px"),
        ("mm_per_pixel", "mm_per_px"),
    ],
)
def test_the_nearest_known_name_is_suggested(name, meant) -> None:
    assert unknown_fields([name], KNOWN) == f"unknown field '{name}' (did you mean '{meant}'?)"


def test_a_name_unlike_all_others_has_no_suggestion() -> None:
    assert unknown_fields(["x"], KNOWN) == "unknown field 'x'"


def test_several_unknown_names_are_listed_and_the_message_is_bounded() -> None:
    message = unknown_fields([f"{i}" * 200 for i in range(20)], KNOWN)
    assert message is not None
    assert message.endswith("and 15 more")
    assert len(message) < 500


def test_names_of_known_clients_without_meaning_are_ignored() -> None:
    assert unknown_fields(["role_id", "model_key", "model_key"], KNOWN) is None


def test_only_lists_may_be_repeated() -> None:
    assert repeated_field(["images", "images", "shape"], {"images"}) is None
    assert repeated_field(["images", "shape", "shape"], {"images"}) == "shape"
