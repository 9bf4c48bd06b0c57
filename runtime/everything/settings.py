"""Settings of segment-everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.manifest import EverythingThresholds

QUALITY = ("pred_iou_thresh", "stability_score_thresh")
"""The thresholds on a mask's quality: a model has its own, and those may be lowered if no mask passes."""
COARSE_DIVISOR = 4
"""The first pass of hierarchical mode has a grid this much coarser on each side."""


@dataclass(frozen=True)
class EverythingSettings:
    """The arguments of SAM's automatic mask generator and of TinySAM's hierarchical one, under their names."""

    points_per_side: int = 32
    points_per_batch: int | None = None
    """Prompts per call of the decoder; None takes what measured fastest for the model's size."""
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
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
    hierarchical: bool = True
    """A coarse grid first, then only the points of the full grid that confident masks left open."""
    coarse_logit_thresh: float = 8.5
    """Hierarchical mode: pixels of a good mask above this logit need no second look."""
    coarse_agreement: int = 1
    """Hierarchical mode: so many good masks must be above it there, and above the next one. With more than one, a part
    inside of a found object is looked for as long as the object is all that was found."""
    coarse_thin_thresh: float = 1000.0
    """Hierarchical mode: where `coarse_agreement` good masks are above this logit, only every second point of the grid
    (as the squares of a chessboard) gets a second look. Logits never reach 1000."""
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
        """The settings chosen for a model, with changes. Thresholds among the changes are obeyed to the letter."""
        own = {name: getattr(thresholds, name) for name in QUALITY if name not in changes}
        values: dict[str, object] = {**vars(thresholds), "model_quality": own, **changes}
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

    def first_pass(self, layer: int) -> NDArray[np.bool_]:
        """(n,) which points of the grid hierarchical mode asks first: those next to the points of a coarse grid."""
        points = self.grid(layer)
        first = np.zeros(len(points), np.bool_)
        if len(points):
            # Up and left of the middle between four points, so that rounding does not choose.
            wanted = point_grid(max(1, self._points_per_side(layer) // COARSE_DIVISOR)) - 1e-6
            first[[np.square(points - place).sum(axis=1).argmin() for place in wanted]] = True
        return first

    def left_out(self, layer: int, sure: NDArray[np.intp], near: NDArray[np.intp]) -> NDArray[np.bool_]:
        """(n,) which points of the grid hierarchical mode does not ask in its second pass.

        Args:
            layer: of the crop.
            sure: (n,) good masks of the first pass that are above `coarse_logit_thresh` at each point.
            near: (n,) those above `coarse_thin_thresh`.
        """
        index = np.arange(len(sure))
        per_side = self._points_per_side(layer) if self.point_grids is None else len(sure)
        row, column = np.divmod(index, max(1, per_side))
        chessboard = (row + column) % 2 == 1
        left_out: NDArray[np.bool_] = (sure >= self.coarse_agreement) | ((near >= self.coarse_agreement) & chessboard)
        return left_out

    def _points_per_side(self, layer: int) -> int:
        return max(1, int(self.points_per_side / self.crop_n_points_downscale_factor**layer))


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """(n * n, 2) x and y in 0 to 1, row by row: the centres of n x n equal cells."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)
