"""The scale of a recipe: fixed once, for all gateways on the folder, until the recipe is empty."""

from pathlib import Path

import pytest

from gateway.gui.errors import OtherScaleError
from gateway.gui.scale import RecipeScales
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, keep_versions=5)


def scales_of(store: ArtifactStore) -> RecipeScales:
    return RecipeScales(store, Settings(_env_file=None))


def fill(store: ArtifactStore, recipe_id: str) -> Path:
    folder = store.images(RoiKey("Inspection", "inspection-1", recipe_id)).folder
    folder.mkdir(parents=True)
    image = folder / f"{'0' * 64}.png"
    image.touch()
    return image


def test_the_first_one_counts_in_its_recipe_alone(store) -> None:
    fill(store, "Föhn 1")
    scales_of(store).fix("Föhn 1", 0.2)
    scales_of(store).fix("Föhn 1", 0.2 + 1e-9)
    with pytest.raises(OtherScaleError, match=r"0\.1 here, but recipe 'Föhn 1' is fixed at 0\.2"):
        scales_of(store).fix("Föhn 1", 0.1)
    scales_of(store).fix("default", 0.1)
    assert [scales_of(store).of(each) for each in ("Föhn 1", "default", "other")] == [0.2, 0.1, None]
    scales_of(store).require("other", 5)


def test_an_empty_recipe_takes_another_scale(store) -> None:
    image = fill(store, "A")
    scales_of(store).fix("A", 0.2)
    image.unlink()
    scales_of(store).require("A", 0.2)
    scales_of(store).fix("A", 0.1)
    assert scales_of(store).of("A") == 0.1


def test_a_request_states_one_scale_also_of_an_empty_recipe(store) -> None:
    with pytest.raises(OtherScaleError, match=r"0\.2 and 0\.1 in one request"):
        scales_of(store).fix("A", 0.2, 0.2, 0.1)
    scales_of(store).fix("A")
    assert scales_of(store).of("A") is None


def test_a_damaged_file_fixes_nothing(store) -> None:
    fill(store, "A")
    scales_of(store).fix("A", 0.2)
    path = store.root / ".gui" / "A.json"
    path.write_bytes(path.read_bytes().replace(b"0.2", b"0.3"))
    assert scales_of(store).of("A") is None
    scales_of(store).fix("A", 0.1)
    assert scales_of(store).of("A") == 0.1


def test_the_file_is_no_roi(store) -> None:
    scales_of(store).fix("A", 0.2)
    assert store.folders() == []
