"""JSON bodies of the GUI. Keys that the gateway does not know are ignored: the program cannot be changed."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from gateway.api.fields import OR_NULL, AreaMm2, MmPerPx, Percentile, RecipeId, RoiId, RoleId


class GuiBody(BaseModel):
    """What every body says."""

    model_config = ConfigDict(extra="ignore")

    role_id: RoleId
    roi_id: RoiId
    recipe_id: Annotated[RecipeId | None, OR_NULL] = None
    model_key: str | None = None


class CalibrateNg(GuiBody):
    """Body of `/calibrate_ng`.

    The scores are those that `/infer` answered, so they are of the images that the gateway has. They are not used
    again: the gateway scores its images itself.
    """

    mm_per_px: MmPerPx
    ok_scores: list[float] | None = None
    ng_scores: list[float] | None = None
    area_mm2_thr: AreaMm2 | None = None
    score_percentile: Percentile | None = None


class CalibrateDataset(GuiBody):
    """Body of `/calibrate_dataset`."""

    default_mm_per_px: MmPerPx | None = None
    require_ng: bool | None = True
    score_percentile: Percentile | None = None
    area_mm2_thr: AreaMm2 | None = None


class InferDataset(GuiBody):
    """Body of `/infer_dataset`."""

    include_heatmap: bool | None = None
    default_mm_per_px: MmPerPx | None = None
    labels: list[Literal["ok", "ng"]] | None = None
