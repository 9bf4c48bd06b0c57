"""Settings of segment-everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.everything.points import GridPlan, HierarchicalPlan, point_grid
from tinysam.runtime.manifest import EverythingThresholds

QUALITY = ("pred_iou_thresh", "stability_score_thresh")
"""The thresholds on a mask's quality: a model has its own, and those may be lowered if no mask passes."""
MASK_NMS_THRESH = 0.8
"""Of hierarchical mode, where the caller gives no threshold for boxes."""


@dataclass(frozen=True)
class EverythingSettings:
    """The arguments of SAM's automatic mask generator and of TinySAM's hierarchical one, under their names."""

    points_per_side: int = EverythingThresholds.points_per_side
    points_per_batch: int | None = None
    """Prompts per call of the decoder; None takes what measured fastest for the model's size."""
    pred_iou_thresh: float = EverythingThresholds.pred_iou_thresh
    stability_score_thresh: float = EverythingThresholds.stability_score_thresh
    stability_score_offset: float = EverythingThresholds.stability_score_offset
    box_nms_thresh: float = EverythingThresholds.box_nms_thresh
    """IoU of boxes above which the worse of two masks goes."""
    crop_n_layers: int = 0
    """Layer i looks at the photograph again in 2**i x 2**i overlapping crops."""
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of neighbouring crops of layer 1, as a part of the photograph's short side."""
    crop_n_points_downscale_factor: int = 1
    """Layer i has a grid this much coarser on each side, i times."""
    point_grids: Sequence[NDArray[np.float64]] | None = None
    """(n, 2) x and y in 0 to 1 for each layer, in place of regular grids."""
    min_mask_region_area: float = 0
    """Holes and islands with fewer pixels are removed; 0 leaves all."""
    clean: bool = True
    """Small islands and holes go as well, by the model's `cleaning`; False: SAM's exact masks."""
    mask_nms_thresh: float | None = None
    """IoU of masks above which the worse of two goes, in place of `box_nms_thresh`; None: boxes are compared."""
    hierarchical: bool = True
    """A coarse grid first, then the points that good masks and asked points left least known: see `points.py`."""
    single_mask: bool = False
    """The mask of the model's single-mask output takes part beside the three of each point; `of_model` says so for
    hierarchical mode: it comes with the three at no cost."""
    coarse_logit_thresh: float = EverythingThresholds.coarse_logit_thresh
    """Hierarchical mode: a good mask covers the points where its logit is above this."""
    coarse_agreement: int = EverythingThresholds.coarse_agreement
    """Hierarchical mode: so many good masks over a point make it known."""
    coarse_share: float = EverythingThresholds.coarse_share
    """Hierarchical mode: most of the grid's points that are asked, as a part of all."""
    model_quality: Mapping[str, float] = field(default_factory=dict)
    """The model's own values of those `QUALITY` thresholds that the caller did not give."""

    def __post_init__(self) -> None:
        if not 1 <= self.points_per_side <= 256:
            raise ValueError(f"points_per_side is {self.points_per_side}, expected 1 to 256")
        if self.points_per_batch is not None and self.points_per_batch < 1:
            raise ValueError(f"points_per_batch is {self.points_per_batch}, expected 1 or more")
        if not 0 <= self.crop_n_layers <= 4:
            raise ValueError(f"crop_n_layers is {self.crop_n_layers}, expected 0 to 4")
        if self.coarse_agreement < 1:
            raise ValueError(f"coarse_agreement is {self.coarse_agreement}, expected 1 or more")
        if not 0 <= self.coarse_share <= 1:
            raise ValueError(f"coarse_share is {self.coarse_share}, expected 0 to 1")
        if self.mask_nms_thresh is not None and not 0 <= self.mask_nms_thresh <= 1:
            raise ValueError(f"mask_nms_thresh is {self.mask_nms_thresh}, expected 0 to 1")
        if self.crop_n_points_downscale_factor < 1:
            raise ValueError(
                f"crop_n_points_downscale_factor is {self.crop_n_points_downscale_factor}, expected 1 or more"
            )
        if not 0 <= self.crop_overlap_ratio < 1:
            raise ValueError(f"crop_overlap_ratio is {self.crop_overlap_ratio}, expected 0 up to but not including 1")
        if self.point_grids is not None and len(self.point_grids) != self.crop_n_layers + 1:
            raise ValueError(
                f"{len(self.point_grids)} point_grids, expected one for each of {self.crop_n_layers + 1} layers"
            )

    @classmethod
    def of_model(cls, thresholds: EverythingThresholds, **changes: object) -> "EverythingSettings":
        """The settings chosen for a model, with changes. Thresholds among the changes are never lowered.

        Hierarchical mode takes the single-mask output as well and compares masks to find duplicates, unless the changes
        have a threshold for boxes.
        """
        own = {name: getattr(thresholds, name) for name in QUALITY if name not in changes}
        values: dict[str, object] = {**vars(thresholds), "model_quality": own, **changes}
        if values.get("hierarchical", True):
            values.setdefault("single_mask", True)
            if "box_nms_thresh" not in changes:
                values.setdefault("mask_nms_thresh", MASK_NMS_THRESH)
        return cls(**values)  # type: ignore[arg-type]

    def lowered(self, step: float) -> tuple[float, float]:
        """Predicted IoU and stability to ask for after the model's own thresholds are lowered by `step`."""
        iou, stability = (getattr(self, name) - (step if self.may_lower(name) else 0) for name in QUALITY)
        return iou, stability

    def may_lower(self, name: str) -> bool:
        """Whether the threshold of that name is the model's own, not one that a caller gave."""
        return bool(self.model_quality.get(name) == getattr(self, name))

    def grid(self, layer: int) -> NDArray[np.float64]:
        """(n, 2) x and y in 0 to 1 of the points of a crop of that layer."""
        if self.point_grids is not None:
            return np.asarray(self.point_grids[layer], np.float64)
        return point_grid(self._points_per_side(layer))

    def plan(self, layer: int, batch: int) -> GridPlan:
        """Which of those points to ask, and in which order; the plain grid in rounds of `batch`."""
        points = self.grid(layer)
        if not self.hierarchical:
            return GridPlan(np.arange(len(points)), batch)
        return HierarchicalPlan(points, self._points_per_side(layer), self.coarse_agreement, self.coarse_share)

    def _points_per_side(self, layer: int) -> int:
        return max(1, int(self.points_per_side / self.crop_n_points_downscale_factor**layer))
