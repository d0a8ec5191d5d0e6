"""Make timm importable beside a torchvision that was built for another torch, such as a CUDA build."""

import importlib.util
from pathlib import Path

import torch

# The operators that torchvision's Python code needs at import, whether or not its compiled operators load.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration ends with its library object


def declare_missing_ops() -> None:
    """Declare torchvision's operators if its compiled operators do not load. Call this before the first import of timm.

    The export does not call these operators. timm needs only image transforms of torchvision, but without them
    ``import torchvision`` fails with ``operator torchvision::nms does not exist``.
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
        return True  # the import of timm names the missing package
    for compiled in Path(spec.submodule_search_locations[0]).glob("_C.*"):
        try:
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False
