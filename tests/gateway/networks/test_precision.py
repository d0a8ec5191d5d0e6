"""Which precision a processor gets, and why."""

import re

import pytest

from gateway.networks.embedded.precision import Processor, choose_precision, this_processor
from gateway.networks.model_description import Int8Export, Parity
from tests.export.tiny_model import description

AMX = Processor(has_amx=True, has_vnni=True, has_bf16=True)
VNNI_AND_BF16 = Processor(has_amx=False, has_vnni=True, has_bf16=True)
VNNI = Processor(has_amx=False, has_vnni=True, has_bf16=False)
PLAIN = Processor(has_amx=False, has_vnni=False, has_bf16=False)

INT8 = Int8Export(
    graph_sha256="1" * 64,
    fingerprint="2" * 64,
    n_calibration=10,
    n_inspected=10,
    images_sha256="3" * 64,
    spearman=0.98,
    least_spearman=0.95,
    auroc_f32=0.9,
    auroc_int8=0.895,
    largest_auroc_loss=0.01,
    mean_cosine=0.99,
    min_cosine=0.9,
    passed=True,
    nncf="3.4.0",
)
FAILED = INT8.model_copy(update={"spearman": 0.9, "passed": False})
FAR_IN_BF16 = {"openvino-bf16": Parity(max_abs_error=1, min_cosine=0.9, tolerance_cosine=0.999, passed=False)}


@pytest.mark.parametrize(
    ("processor", "int8", "expected", "reason"),
    [
        (AMX, INT8, "bf16", "AMX"),
        (AMX, None, "bf16", "AMX"),
        (VNNI_AND_BF16, INT8, "int8", "VNNI and no AMX"),
        (VNNI, INT8, "int8", "VNNI and no AMX"),
        (VNNI_AND_BF16, None, "bf16", "no int8 export"),
        (VNNI_AND_BF16, FAILED, "bf16", "failed its check .*0.900, at least 0.95"),
        (VNNI, None, "f32", "no bf16"),
        (PLAIN, INT8, "f32", "no bf16"),
    ],
)
def test_auto_takes_what_the_processor_computes_fastest_of_what_passed(processor, int8, expected, reason):
    choice = choose_precision(description(int8=int8), "auto", processor)
    assert choice.precision == expected
    assert choice.reason.startswith("auto: ")
    assert re.search(reason, choice.reason)


def test_without_its_check_in_bf16_a_model_is_served_in_f32():
    choice = choose_precision(description(parity=FAR_IN_BF16), "auto", AMX)
    assert (choice.precision, choice.reason) == ("f32", "auto: the export did not pass its check in bf16")


def test_what_is_asked_for_is_taken_or_refused_with_the_reason():
    model = description(int8=INT8)
    for asked in ("f32", "bf16", "int8"):
        assert choose_precision(model, asked, AMX).precision == asked
    with pytest.raises(RuntimeError, match="GATEWAY_PRECISION=bf16, but the processor has no bf16"):
        choose_precision(model, "bf16", VNNI)
    with pytest.raises(RuntimeError, match=r"GATEWAY_PRECISION=int8, but the model has no int8 export.*--int8 FOLDER"):
        choose_precision(description(), "int8", AMX)
    with pytest.raises(RuntimeError, match=r"failed its check .*AUROC on pasted defects 0\.895, in f32 0\.900"):
        choose_precision(description(int8=FAILED), "int8", AMX)


def test_the_graph_in_int8_is_another_model():
    model = description(int8=INT8)
    in_int8 = model.as_int8()
    assert not in_int8.same_model_as(model)
    assert (in_int8.fingerprint, in_int8.graph_sha256, in_int8.precision) == ("2" * 64, "1" * 64, "int8")
    assert in_int8.parity == {}
    with pytest.raises(ValueError, match="no int8 export"):
        in_int8.as_int8()


def test_this_processor_is_recognised():
    found = this_processor()
    assert not found.has_amx or found.has_bf16
