"""A new ROI gets no name that a copy of the models folder would not survive; ROIs that exist keep working."""

import threading
from pathlib import Path

import pytest

from gateway.errors import InvalidRequestError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import CURRENT
from gateway.store.roi_key import RoiKey


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "models", keep_versions=3)


def fitted(store: ArtifactStore, key: RoiKey) -> None:
    store.folder(key).mkdir(parents=True)
    (store.folder(key) / CURRENT).touch()


def create(store: ArtifactStore, role_id: str, roi_id: str) -> None:
    with store.lock(RoiKey(role_id, roi_id), 5, creates=True):
        pass


@pytest.mark.parametrize("value", ["CON", "nul", "Com1", "lpt9.png", "aux.tar.gz"])
@pytest.mark.parametrize("field", ["role_id", "roi_id"])
def test_a_new_roi_gets_no_name_that_windows_reserves(store: ArtifactStore, field: str, value: str) -> None:
    ids = {"role_id": "role", "roi_id": "roi", field: value}
    with pytest.raises(InvalidRequestError, match=f"{field}: Windows reserves the name '{value}'") as caught:
        create(store, **ids)
    assert "Use another" in caught.value.hint
    assert list(store.storage.root.rglob("*")) == []  # not even a lock


def test_an_roi_with_such_a_name_that_exists_keeps_working(store: ArtifactStore) -> None:
    fitted(store, RoiKey("con", "nul"))
    fitted(store, RoiKey("Part", "Face"))
    fitted(store, RoiKey("part", "face"))
    for key in store.rois():
        create(store, key.role_id, key.roi_id)
    assert len(store.rois()) == 3


@pytest.mark.parametrize(
    ("existing", "new", "says"),
    [
        (("Part", "face"), ("part", "other"), "role_id: 'part' differs only in case from the existing role 'Part'"),
        (("part", "Face"), ("part", "face"), "roi_id: 'face' differs only in case from the existing ROI 'part/Face'"),
        (("LÍNEA 1", "a"), ("Li\u0301nea 1", "a"), "role_id: 'Línea 1' differs only in case from .*'LÍNEA 1'"),
        (("Straße", "a"), ("STRASSE", "a"), "role_id: 'STRASSE' differs only in case from the existing role 'Straße'"),
    ],
)
def test_a_new_id_differs_in_more_than_case(
    store: ArtifactStore, existing: tuple[str, str], new: tuple[str, str], says: str
) -> None:
    fitted(store, RoiKey(*existing))
    with pytest.raises(InvalidRequestError, match=says) as caught:
        create(store, *new)
    assert "differs in more than case" in caught.value.hint
    assert store.folders() == [RoiKey(*existing)]


def test_a_recipe_has_its_own_names_and_a_name_of_its_own(store: ArtifactStore) -> None:
    fitted(store, RoiKey("Part", "Face", "winter"))
    create(store, "part", "face")
    for recipe_id in ("Winter", "DEFAULT", "con"):
        with (
            pytest.raises(InvalidRequestError, match=r"^recipe_id"),
            store.lock(RoiKey("a", "b", recipe_id), 5, creates=True),
        ):
            pass
    with (
        pytest.raises(InvalidRequestError, match="ROI 'winter/Part/Face'"),
        store.lock(RoiKey("Part", "face", "winter"), 5, creates=True),
    ):
        pass


def test_another_role_may_have_the_same_roi_in_another_case(store: ArtifactStore) -> None:
    fitted(store, RoiKey("one", "Face"))
    create(store, "two", "face")
    assert store.folder(RoiKey("two", "face")).is_dir()


def test_storing_images_gives_an_roi_no_such_name_either(store: ArtifactStore) -> None:
    fitted(store, RoiKey("Part", "face"))
    for ids in (("part", "face"), ("Part", "FACE"), ("Part", "nul")):
        with pytest.raises(InvalidRequestError), store.image_lock(RoiKey(*ids), 5, creates=True):
            pass
    with store.image_lock(RoiKey("one", "Face"), 5, creates=True), pytest.raises(InvalidRequestError):
        create(store, "one", "face")  # while images of another new ROI are being stored


def test_a_name_is_free_again_after_deletion_and_after_an_interrupted_first_fit(store: ArtifactStore) -> None:
    create(store, "Part", "face")  # nothing is published: the folder is left
    create(store, "part", "face")
    fitted(store, RoiKey("role", "Roi"))
    with pytest.raises(InvalidRequestError):
        create(store, "role", "roi")
    store.delete(RoiKey("role", "Roi"))
    create(store, "role", "roi")
    assert store.rois() == []


@pytest.mark.parametrize(("one", "other"), [(("Part", "a"), ("part", "b")), (("role", "Face"), ("role", "face"))])
def test_of_two_first_fits_at_the_same_time_one_is_refused(
    store: ArtifactStore, one: tuple[str, str], other: tuple[str, str]
) -> None:
    outcomes: list[str] = []
    together, refused = threading.Barrier(2), threading.Event()

    def first_fit(ids: tuple[str, str]) -> None:
        together.wait()
        try:
            with store.lock(RoiKey(*ids), 5, creates=True):
                refused.wait(60)  # the winner's fit runs until the other one is refused
                outcomes.append("done")
        except InvalidRequestError:
            outcomes.append("refused")
            refused.set()

    threads = [threading.Thread(target=first_fit, args=(ids,)) for ids in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "refused"]


def test_the_winner_may_go_on_to_publish(store: ArtifactStore) -> None:
    winner = RoiKey("Part", "a")
    with store.lock(winner, 5, creates=True):
        (store.folder(winner) / CURRENT).touch()
        with pytest.raises(InvalidRequestError):
            create(store, "part", "b")
    assert store.rois() == [winner]
