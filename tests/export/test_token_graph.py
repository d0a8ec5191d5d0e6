"""The graph in torch, compared with a computation by hand with timm and torch's own operators."""

from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch.nn.functional import interpolate, normalize

from export.backbone import TIMM_ID, load_weights
from export.errors import ExportError
from export.parity import camera_images
from export.token_graph import TokenGraph, resize_matrix, served_size
from export.weights import Weights


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights("seed:3")


def timm_maps(weights: Weights, pixels: torch.Tensor, layers: list[int]) -> list[torch.Tensor]:
    """Return the tokens [B, C, h, w] of the layers from timm. Pixels are float [B, 3, S, S], RGB, 0 to 255."""
    model = timm.create_model(TIMM_ID, img_size=pixels.shape[-1]).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(weights.state), model))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    return model.forward_intermediates(x, indices=layers, norm=True, output_fmt="NCHW", intermediates_only=True)


def as_tokens(maps: list[torch.Tensor]) -> torch.Tensor:
    return normalize(torch.cat(maps, dim=1).flatten(2).transpose(1, 2), dim=-1)


def colourful(size: int) -> torch.Tensor:
    images = camera_images(2, size, seed=1).astype(np.float32) * [1.0, 0.7, 0.4]
    return torch.from_numpy(images.astype(np.uint8))


def test_one_scale_equals_timm_with_imagenet_normalisation(weights):
    image = colourful(112)
    with torch.inference_mode():
        tokens = TokenGraph(weights, scales=[115], layers=[2, 5])(image)
        expected = as_tokens(timm_maps(weights, image.permute(0, 3, 1, 2).float(), [2, 5]))
    torch.testing.assert_close(tokens, expected, atol=2e-6, rtol=0)


def test_two_scales_equal_resizing_and_concatenating_by_hand(weights):
    graph = TokenGraph(weights, scales=[256, 384], layers=[9, 11])
    assert (graph.input_size, graph.dim, graph.token_hw) == (378, 1536, (27, 27))
    image = colourful(378)
    pixels = image.permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        tokens = graph(image)
        small = interpolate(pixels, size=(252, 252), mode="bilinear", antialias=True, align_corners=False)
        from_small = [
            interpolate(m, size=(27, 27), mode="bilinear", align_corners=False)
            for m in timm_maps(weights, small, [9, 11])
        ]
        expected = as_tokens(from_small + timm_maps(weights, pixels, [9, 11]))
    assert tokens.shape == (2, 729, 1536)
    torch.testing.assert_close(tokens, expected, atol=2e-5, rtol=0)


def test_every_block_matters_under_random_weights(weights):
    image = colourful(112)
    with torch.inference_mode():
        tokens = [TokenGraph(weights, scales=[112], layers=[layer])(image) for layer in range(12)]
    for before, after in pairwise(tokens):
        assert (before * after).sum(-1).mean() < 0.995


@pytest.mark.parametrize(("scale", "size"), [(384, 378), (378, 378), (256, 252), (391, 378), (392, 392)])
def test_served_size_is_the_largest_multiple_of_the_patch(scale, size):
    assert served_size(scale) == size


@pytest.mark.parametrize(("source", "target"), [(10, 4), (6, 9), (378, 252)])
def test_resize_matrix_keeps_a_constant(source, target):
    matrix = resize_matrix(source, target)
    assert matrix.shape == (target, source)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target))


@pytest.mark.parametrize("scales", [[], [384, 256], [378, 384], [20], [5000]])
def test_impossible_scales_are_refused(weights, scales):
    with pytest.raises(ExportError, match="scales"):
        TokenGraph(weights, scales=scales, layers=[9, 11])


@pytest.mark.parametrize("layers", [[], [11, 9], [9, 9], [12], [-1]])
def test_impossible_layers_are_refused(weights, layers):
    with pytest.raises(ExportError, match="layers"):
        TokenGraph(weights, scales=[384], layers=layers)
