"""Lets timm be imported where torchvision was built for another torch, such as a CUDA build beside a CPU torch."""

import importlib.util
from pathlib import Path

import torch

# What torchvision's Python code registers itself against at import, whether or not its compiled operators are there.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration lives as long as its library object


def declare_missing_ops() -> None:
    """Declare torchvision's operators where its own do not load; call before the first import of timm.

    Nothing here calls them: timm takes only image transforms from torchvision, but `import torchvision` fails on
    ``operator torchvision::nms does not exist`` without them.
    """
    if _declared or _own_ops_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, signature in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + signature)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _own_ops_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # timm's import names the missing package better than we could
    for compiled in Path(spec.submodule_search_locations[0]).glob("_C.*"):
        try:
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False
