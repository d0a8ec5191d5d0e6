"""The exported graph of the token model: uint8 RGB image -> L2-normalised patch tokens."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from export.backbone import DEPTH, PATCH, WIDTH, build_backbone, pixel_statistics
from export.errors import ExportError
from export.weights import Weights

# A smaller grid has too few tokens for an inspection. With a larger one, attention takes more memory than servers have.
SMALLEST_SCALE, LARGEST_SCALE = 56, 1036


def served_size(scale: int) -> int:
    """Return the largest multiple of the patch size up to `scale`, in pixels: 384 -> 378."""
    return scale // PATCH * PATCH


def check_layout(scales: Sequence[int], layers: Sequence[int]) -> None:
    """Check that a graph can be built for these sizes and layers.

    Raises:
        ExportError: scales or layers out of range or order.
    """
    sizes = [served_size(scale) for scale in scales]
    if not scales or sizes != sorted(set(sizes)):
        raise ExportError(f"scales {list(scales)}: give ascending sizes, at least one patch ({PATCH} pixels) apart")
    if not SMALLEST_SCALE <= sizes[0] <= sizes[-1] <= LARGEST_SCALE:
        raise ExportError(f"scales {list(scales)}: each must be between {SMALLEST_SCALE} and {LARGEST_SCALE} pixels")
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < DEPTH:
        raise ExportError(f"layers {list(layers)}: give blocks from 0 to {DEPTH - 1}, in ascending order")


class TokenGraph(nn.Module):
    """Image uint8 [B, S, S, 3] RGB -> tokens float32 [B, (S/14)^2, D], each of L2 norm 1; D = layers x scales x 384.

    The tokens of the chosen layers, after the final norm, are concatenated as PatchCore (Roth et al., "Towards Total
    Recall in Industrial Anomaly Detection", 2022) does with its feature levels. For smaller scales, the graph resizes
    the image, and resizes the tokens to the largest grid. The order is that of `scales`, with the layers in each. Both
    resizes are products with fixed matrices, because the resize operators of the runtimes differ.
    """

    def __init__(self, weights: Weights, *, scales: Sequence[int], layers: Sequence[int]) -> None:
        """Build the graph around frozen weights.

        Args:
            weights: from `load_weights`.
            scales: image sizes in pixels, ascending; the graph uses the `served_size` of each.
            layers: blocks whose outputs are used, counted from 0, ascending.

        Raises:
            ExportError: scales or layers out of range or order, or weights that do not fit.
        """
        super().__init__()
        check_layout(scales, layers)
        self.scales = tuple(scales)
        self.layers = tuple(layers)
        self.input_size = served_size(scales[-1])
        self.token_hw = (self.input_size // PATCH, self.input_size // PATCH)
        self.dim = len(scales) * len(layers) * WIDTH

        backbone = build_backbone(weights, self.input_size)
        mean, std = pixel_statistics()
        self.mean = nn.Buffer(torch.tensor(mean) * 255)
        self.std = nn.Buffer(torch.tensor(std) * 255)
        # All scales share the blocks. Only the positions depend on the grid.
        self.patch_embed = backbone.patch_embed.proj
        assert backbone.cls_token is not None
        self.cls_token = backbone.cls_token
        self.blocks = nn.ModuleList(list(backbone.blocks.children())[: layers[-1] + 1])
        self.norm = backbone.norm
        self.positions = nn.ParameterList()
        self.image_resize = nn.ParameterList()
        self.token_resize = nn.ParameterList()
        for size in map(served_size, scales):
            at_size = backbone if size == self.input_size else build_backbone(weights, size)
            self.positions.append(at_size.pos_embed)
            if size != self.input_size:
                self.image_resize.append(_constant(resize_matrix(self.input_size, size)))
                to_grid = resize_matrix(size // PATCH, self.token_hw[0])
                self.token_resize.append(_constant(torch.kron(to_grid, to_grid)))
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute tokens: uint8 [B, S, S, 3] RGB -> float32 [B, N, D]."""
        pixels = ((image.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        maps: list[torch.Tensor] = []
        for to_size, to_grid, positions in zip(self.image_resize, self.token_resize, self.positions[:-1], strict=True):
            resized = to_size @ pixels @ to_size.T
            maps += [to_grid @ tokens for tokens in self._tokens(resized, positions)]
        maps += self._tokens(pixels, self.positions[-1])
        return F.normalize(torch.cat(maps, dim=-1), dim=-1)

    def _tokens(self, pixels: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + positions
        taken = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.layers:
                taken.append(self.norm(x)[:, 1:])
        return taken


def resize_matrix(source: int, target: int) -> torch.Tensor:
    """Return the matrix float32 [target, source] of torch's antialiased bilinear interpolation of one axis."""
    identity = torch.eye(source)[None, None]
    return F.interpolate(identity, size=(target, source), mode="bilinear", antialias=True, align_corners=False)[0, 0]


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
