"""A gateway that serves token models of two input sizes: the ROI chooses at its fit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel
from tests.export.tiny_model import write_version

OK = [png(steel(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def served(launch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a model of 28 pixels, and one of 112 beside it."""
    repository: Path = tmp_path_factory.mktemp("sizes")
    write_version(repository / "dinov2_vits14" / "1", factor=1 / 256)
    write_version(repository / "dinov2_vits14_112" / "1", factor=1 / 256, grid=8)
    with launch("sizes", model_repository=repository) as gateway:
        yield gateway


def test_small_rois_do_not_load_the_large_model(served: Gateway) -> None:
    answer = served.fit("small", OK)
    assert (answer["input_size"], answer["token_shape"]) == (None, [2, 2])
    ready = served.client.get("/ready").json()
    assert (ready["input_sizes"], ready["networks"]) == ([28, 112], [])


def test_rois_of_both_sizes_are_inspected_in_one_request(served: Gateway) -> None:
    assert served.fit("small", OK)["token_shape"] == [2, 2]
    answer = served.fit("large", OK, input_size=112)
    assert (answer["input_size"], answer["token_shape"]) == (112, [8, 8])
    items = [{"role_id": "steel", "roi_id": roi, "mm_per_px": 0.2} for roi in ("small", "large", "small")]
    files = [("images", (f"{i}.png", image)) for i, image in enumerate(OK)]
    batch = served.client.post("/infer_batch", data={"items": json.dumps(items)}, files=files)
    assert [result["token_shape"] for result in answered(batch)["results"]] == [[2, 2], [8, 8], [2, 2]]
    assert served.client.get("/ready").json()["networks"] == ["dinov2_vits14_112: ready"]
    assert served.client.get("/rois/steel/large").json()["input_size"] == 112
    # A later fit keeps the size; the size of the configured model leads back to it.
    assert served.fit("large", [png(steel(9))])["input_size"] == 112
    assert served.fit("large", [png(steel(10))], input_size=28)["token_shape"] == [2, 2]


@pytest.mark.parametrize(
    ("input_size", "said"),
    [
        ("56", "no token model of input size 56 is served; there are 28, 112"),
        ("5", "input_size"),
        ("large", "input_size"),
    ],
)
def test_an_unknown_size_is_refused_with_the_sizes_that_are_served(served: Gateway, input_size: str, said: str) -> None:
    response = served.post("/fit_ok", "new", OK, "images", fields={"input_size": input_size})
    assert response.status_code == 422
    assert said in response.json()["error"]["message"]
    assert served.client.get("/rois/steel/new").status_code == 404
