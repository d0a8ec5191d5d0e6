"""Pictures and masks of an inspection. Needs the extra `images`."""

import io
from typing import TYPE_CHECKING, Any

from patchcore_client.errors import ImageError
from patchcore_client.images import Image, load, needed
from patchcore_client.inspection import Inspection

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

_HEAT = (255, 64, 0)
_LINE = (255, 0, 0)
_STRONGEST = 0.6


def draw(image: Image, inspection: Inspection) -> "Picture":
    """Return an image with the heatmap and the outlines of the regions.

    The heat begins at 0.8 times the threshold of regions and is strongest at 1.5 times. Before calibration, it begins
    at distance 0 and is strongest at the upper end of the heatmap. Each region has its area in mm² beside it, if
    the picture is large enough for the text.

    Args:
        image: the image that was inspected.
        inspection: the answer.

    Returns:
        RGB, of the size of the image as sent.

    Raises:
        ImageError: the image cannot be read, or has another size than the inspected one.
    """
    np, pillow, drawing = needed("numpy"), needed("PIL.Image"), needed("PIL.ImageDraw")
    picture = opened(image, inspection)
    heat = inspection.heatmap
    if heat is not None:
        threshold = inspection.peak_threshold
        low, high = (threshold * 0.8, threshold * 1.5) if threshold else (0, inspection.heatmap_max)
        alpha = (np.clip((heat - low) / (high - low), 0, 1) * (_STRONGEST * 255)).astype(np.uint8)
        picture.paste(pillow.new("RGB", picture.size, _HEAT), mask=pillow.fromarray(alpha))
    pen = drawing.Draw(picture)
    for region in inspection.regions:
        x, y, _, height = region.bbox
        outline = [tuple(point) for point in region.contour]
        pen.line([*outline, outline[0]], fill=_LINE, width=max(1, round(max(picture.size) / 400)))
        label = f"{region.area_mm2:.1f} mm2"  # the built-in font has no superscript
        _, _, right, bottom = pen.textbbox((0, 0), label, stroke_width=1)
        place = min(x, picture.width - right), min(y + height + 1, picture.height - bottom)
        if min(place) >= 0:
            pen.text(place, label, fill="white", stroke_width=1, stroke_fill="black")
    return picture


def masks(inspection: Inspection) -> "NDArray[Any]":
    """Return the areas inside the outlines of the regions, bool [n, H, W], in the order of the regions."""
    np, pillow, drawing = needed("numpy"), needed("PIL.Image"), needed("PIL.ImageDraw")
    width, height = inspection.image_size
    found = np.zeros((len(inspection.regions), height, width), bool)
    for mask, region in zip(found, inspection.regions, strict=True):
        canvas = pillow.new("1", (width, height))
        drawing.Draw(canvas).polygon([tuple(point) for point in region.contour], fill=1, outline=1)
        mask[:] = np.asarray(canvas)
    return found  # type: ignore[no-any-return]


def detections(inspection: Inspection) -> Any:
    """Return the regions as `supervision.Detections`: boxes, masks, and `area_mm2` in `data`. Needs supervision."""
    np, supervision = needed("numpy"), needed("supervision")
    if not inspection.regions:
        return supervision.Detections.empty()
    boxes = np.array([region.bbox for region in inspection.regions], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return supervision.Detections(
        xyxy=boxes,
        mask=masks(inspection),
        class_id=np.zeros(len(boxes), int),
        data={
            "class_name": np.array(["defect"] * len(boxes)),
            "area_mm2": np.array([region.area_mm2 for region in inspection.regions]),
        },
    )


def opened(image: Image, inspection: Inspection) -> "Picture":
    """Return the inspected image as RGB, upright, with 8 bits.

    Raises:
        ImageError: the image cannot be read, or has another size than the inspected one.
    """
    np, pillow, transposing = needed("numpy"), needed("PIL.Image"), needed("PIL.ImageOps")
    name, data = load(image)
    try:
        picture = transposing.exif_transpose(pillow.open(io.BytesIO(data)))
        if picture.mode.startswith(("I", "F")):  # 16 bits: Pillow would cut the values off at 255
            grey = np.asarray(picture, np.float32)
            picture = pillow.fromarray((grey * (255 / max(grey.max(), 1))).astype(np.uint8))
        picture = picture.convert("RGB")
    except OSError as error:
        raise ImageError(f"{name}: Pillow cannot read it: {error}") from error
    if picture.size != inspection.image_size:
        raise ImageError(f"{name}: {picture.size} pixels, but the inspected image has {inspection.image_size}")
    return picture  # type: ignore[no-any-return]
