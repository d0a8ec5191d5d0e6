import errno
import os
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from gateway.errors import InvalidRequestError, StorageFullError
from gateway.store.audit import AuditTrail, Change
from gateway.store.damage import ArtifactFaults
from gateway.store.folder_storage import FolderStorage
from gateway.store.roi_key import RoiKey

KEY = RoiKey("role", "roi")
FIT = Change(action="fit", version_before=None, version_after=1, n_ok_after=3)


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    return AuditTrail(FolderStorage(tmp_path), ArtifactFaults())


def file_of(root: Path) -> Path:
    return root / ".audit" / "role" / "roi.jsonl"


def test_a_change_is_written_down_before_it_is_made_and_its_end_after(trail: AuditTrail, tmp_path: Path) -> None:
    with bound_contextvars(actor="engineer", client="192.0.2.7", request_id="r-1"), trail.change(KEY, FIT):
        (begun,) = trail.read(KEY, 10)
        assert begun["outcome"] == "unknown"
        assert file_of(tmp_path).read_bytes().endswith(b"\n")
    (done,) = trail.read(KEY, 10)
    assert done == {**begun, "outcome": "done"}
    told = ("role_id", "roi_id", "action", "actor", "client", "request_id", "version_before", "version_after")
    assert [done[name] for name in told] == ["role", "roi", "fit", "engineer", "192.0.2.7", "r-1", None, 1]
    assert (done["threshold_before"], done["n_ok_before"], done["n_ok_after"]) == (None, 0, 3)


def test_a_change_that_fails_says_with_what(trail: AuditTrail) -> None:
    with pytest.raises(InvalidRequestError), trail.change(KEY, FIT):
        raise InvalidRequestError("no")
    assert [(e["outcome"], e["error"]) for e in trail.read(KEY, 10)] == [("failed", "invalid_request")]


def test_the_newest_come_first_and_no_more_than_were_asked_for(trail: AuditTrail) -> None:
    for version in range(1, 6):
        with trail.change(KEY, Change(action="fit", version_before=version - 1, version_after=version)):
            pass
    assert [entry["version_after"] for entry in trail.read(KEY, 3)] == [5, 4, 3]
    assert trail.read(RoiKey("role", "other"), 3) == []


def test_a_line_torn_anywhere_by_a_kill_costs_itself_alone(trail: AuditTrail, tmp_path: Path) -> None:
    for _ in range(2):
        with trail.change(KEY, FIT):
            pass
    whole = file_of(tmp_path).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) - 1):
        file_of(tmp_path).write_bytes(whole[:cut])
        with trail.change(KEY, FIT):
            pass
        assert [entry["outcome"] for entry in trail.read(KEY, 10)] == ["done", "unknown", "done"]


def test_where_a_change_cannot_be_written_down_it_is_not_made(
    trail: AuditTrail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trail.change(KEY, FIT):
        pass
    before = file_of(tmp_path).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gateway.store.audit_file.os.fsync", full)
    with pytest.raises(StorageFullError), trail.change(KEY, FIT):
        pytest.fail("it was made")
    assert file_of(tmp_path).read_bytes() == before


def test_an_end_that_cannot_be_written_does_not_undo_the_change_and_is_told(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with trail.change(KEY, FIT):
        monkeypatch.setattr("gateway.store.audit_file.os.fsync", full)
    assert [entry["outcome"] for entry in trail.read(KEY, 10)] == ["unknown"]
    assert "cannot be recorded" in caplog.text


def test_lines_of_an_roi_whose_name_differs_in_case_alone_are_not_mixed_in(trail: AuditTrail, tmp_path: Path) -> None:
    """As on a file system that ignores case, where both have one file."""
    with trail.change(KEY, FIT):
        pass
    other = tmp_path / ".audit" / "role" / "ROI.jsonl"
    other.write_bytes(file_of(tmp_path).read_bytes())
    assert trail.read(RoiKey("role", "ROI"), 10) == []
