"""``scripts/picture``: the picture of the README, from a real inspection by a running gateway.

It fits the samples of `evaluation.samples`, calibrates with three NG images, and inspects an OK and an NG image.
"""

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

_ROI = {"role_id": "picture", "roi_id": "surface", "mm_per_px": "0.1"}
_GAP, _FOOT = 12, 46
_GREEN, _RED = (96, 176, 64), (60, 60, 230)  # BGR


def overlay(image: NDArray[np.uint8], answer: dict[str, Any], opacity: float = 0.5) -> NDArray[np.uint8]:
    """Draw the heatmap and the regions of an answer of `/infer` over the image.

    Args:
        image: uint8 [H, W] grey, as sent.
        answer: the answer, with a heatmap in base64.
        opacity: largest opacity of the heatmap, 0 to 1.

    Returns:
        uint8 [H, W, 3] BGR.
    """
    heat = cv2.imdecode(np.frombuffer(base64.b64decode(answer["heatmap_png_base64"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert heat is not None
    colour = cv2.applyColorMap(heat, cv2.COLORMAP_TURBO).astype(np.float32)
    low = 255 * (answer["threshold"] or 0) / answer["heatmap_max"]
    alpha = (opacity * np.clip(heat / max(low, 1.0), 0, 1) ** 4)[..., None]
    drawn = (alpha * colour + (1 - alpha) * image[..., None]).astype(np.uint8)
    for region in answer["regions"]:
        cv2.polylines(drawn, [np.array(region["contour"], np.int32)], True, _RED, 2, cv2.LINE_AA)
    return np.asarray(drawn, np.uint8)


def _captioned(picture: NDArray[np.uint8], lines: tuple[str, str], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Put two lines of text below a picture, uint8 [H, W, 3] BGR."""
    foot = np.full((_FOOT, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(foot, lines[0], (2, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)
    cv2.putText(foot, lines[1], (2, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (90, 90, 90), 1, cv2.LINE_AA)
    return np.vstack([picture, foot])


def draw(client: httpx.Client, samples: Path, ok: Path, ng: Path) -> NDArray[np.uint8]:
    """Fit, calibrate, inspect and draw.

    Args:
        client: of a gateway, with the right to teach.
        samples: folder written by `scripts/samples`.
        ok: an OK image to inspect.
        ng: an NG image to inspect.

    Returns:
        uint8 [H, W, 3] BGR: the OK image, the NG image and its overlay, side by side.

    Raises:
        httpx.HTTPError: the gateway is unreachable or answers with an error.
    """
    client.delete("/rois/picture/surface")
    good = [("images", (path.name, path.read_bytes())) for path in sorted((samples / "train/good").iterdir())]
    client.post("/fit_ok", data=_ROI, files=good).raise_for_status()
    inspected = [_infer(client, path)["score"] for path in sorted((samples / "test/pit").iterdir())[:3]]
    body = {
        **_ROI,
        "mm_per_px": 0.1,
        "ok_scores": [],
        "ng_scores": inspected,
        "area_mm2_thr": 1,
        "score_percentile": 99,
    }
    client.post("/calibrate_ng", json=body).raise_for_status()
    panels = []
    for path in (ok, ng):
        answer = _infer(client, path)
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        verdict = answer["verdict"].upper()
        said = f"{verdict}   score {answer['score']:.2f}, threshold {answer['threshold']:.2f}"
        areas = ", ".join(f"{region['area_mm2']:.0f} mm2" for region in answer["regions"]) or "no region"
        panels.append(
            (cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), overlay(np.asarray(image, np.uint8), answer), said, areas)
        )
    (ok_image, _, ok_said, ok_areas), (ng_image, ng_overlay, ng_said, ng_areas) = panels
    shown = [
        _captioned(np.asarray(ok_image, np.uint8), (ok_said, f"a good part: {ok_areas}"), _GREEN),
        _captioned(np.asarray(ng_image, np.uint8), ("a part with a crack", "as the camera sees it"), (40, 40, 40)),
        _captioned(ng_overlay, (ng_said, f"heatmap, region: {ng_areas}"), _RED),
    ]
    gap = np.full((shown[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.hstack([shown[0], gap, shown[1], gap, shown[2]])


def _infer(client: httpx.Client, path: Path) -> dict[str, Any]:
    answer = client.post("/infer", data=_ROI, files={"image": (path.name, path.read_bytes())})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/picture", description=__doc__)
    parser.add_argument("samples", type=Path, help="folder that scripts/samples wrote")
    parser.add_argument("out", type=Path, help="JPEG to write")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the gateway (default: %(default)s)")
    given = parser.parse_args(arguments)
    ok, ng = (given.samples / "test" / name for name in ("good/000.png", "crack/002.png"))
    try:
        with httpx.Client(base_url=given.url, timeout=300, trust_env=False) as client:
            picture = draw(client, given.samples, ok, ng)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    except (httpx.HTTPError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
