"""The detector that a version names, and which detectors learn from fits."""

import json

import pytest

from gateway.detectors import load_detector, require_taught
from gateway.detectors.memory_bank.detector import bank_files
from gateway.errors import TrainedOfflineError
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import Manifest
from tests.gateway.store.test_artifact_store import bank_of, manifest_of

BANK = manifest_of(1, bank_of(1))
STUDENT = BANK.model_copy(
    update={"detector": "student-teacher", "score_rule": "top_mean", "version": 2, "extractor": "student"}
)


def test_a_version_of_another_kind_is_of_a_format_that_older_gateways_leave_alone():
    for manifest, number in ((BANK, 2), (STUDENT, 3)):
        data = manifest.to_bytes()
        assert json.loads(data)["format"] == number
        assert Manifest.from_bytes(data, "manifest.json") == manifest.model_copy(update={"format": number})


def test_a_manifest_without_a_detector_is_a_memory_bank():
    written = json.loads(BANK.model_dump_json())
    del written["detector"], written["score_rule"]
    read = Manifest.model_validate(written)
    assert (read.detector, read.score_rule) == ("memory-bank", "percentile")


def test_a_student_refuses_to_be_taught_and_names_the_last_bank():
    assert (BANK.is_taught, STUDENT.is_taught) == (True, False)
    require_taught(BANK, lambda: pytest.fail("nobody asked"))
    newest_first = [STUDENT, BANK.model_copy(update={"version": 7}), BANK]
    with pytest.raises(TrainedOfflineError, match="role/roi") as refused:
        require_taught(STUDENT, lambda: newest_first)
    assert "version 7" in refused.value.hint
    with pytest.raises(TrainedOfflineError) as alone:
        require_taught(STUDENT, lambda: [STUDENT])
    assert "roll back" not in alone.value.hint


def test_files_of_another_kind_are_damage():
    files = bank_files(bank_of(1), BANK)
    assert load_detector(files, BANK).files() == files
    for wrong in (files, {"model.onnx": b"", "model.json": b"{}"}):
        with pytest.raises(DamagedError):
            load_detector(wrong, STUDENT)


def test_an_imported_bank_that_differs_from_its_manifest_is_refused():
    detector = load_detector(bank_files(bank_of(1), BANK), BANK.model_copy(update={"n_embeddings": 1}))
    with pytest.raises(ValueError, match="not the one that the manifest describes"):
        detector.check()
