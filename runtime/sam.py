"""The interfaces of `segment_anything`, on this runtime: existing code changes one import.

>>> from tinysam.runtime.sam import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
>>> sam = sam_model_registry["nano"](checkpoint="artifacts/nano-448")
>>> predictor = SamPredictor(sam)

What differs: `checkpoint` is an artifact folder; there is no device; thresholds that are not given are the model's
own; boxes are cut off at the border of the image, and points outside of it are errors; `bbox` counts the last row
and column.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.contract import EMBED_DIM
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.resize import ResizeLongestSide
from tinysam.runtime.results import MaskRecord
from tinysam.runtime.segmenter import Segmenter

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SamModel(Segmenter):
    """What `sam_model_registry[...]()` returns: a segmenter with the attributes of `segment_anything`'s `Sam`."""

    device = "cpu"
    image_format = "RGB"
    mask_threshold = 0.0

    @property
    def image_encoder(self) -> SimpleNamespace:
        """With `img_size`, the side of the model's input in pixels."""
        return SimpleNamespace(img_size=self.manifest.image_size)

    @property
    def prompt_encoder(self) -> SimpleNamespace:
        """With the sizes that SAM's prompt encoder has."""
        size, grid = self.manifest.image_size, self.manifest.grid
        return SimpleNamespace(
            embed_dim=EMBED_DIM,
            input_image_size=(size, size),
            image_embedding_size=(grid, grid),
            mask_input_size=(4 * grid, 4 * grid),
        )

    def __call__(self, batched_input: Sequence[dict[str, Any]], multimask_output: bool = True) -> list[dict[str, Any]]:
        """Images with their prompts, as `Sam.forward`.

        Args:
            batched_input: for each image `image` (3, h, w), RGB in 0 to 255 in the model's size, and `original_size`
                (height, width); `point_coords`, `point_labels`, `boxes` and `mask_inputs` as for `predict_torch`.
            multimask_output: see `Segmenter.predict`.

        Returns:
            For each image `masks` (P, C, height, width), `iou_predictions` (P, C), `low_res_logits` (P, C, ...).
        """
        return [self._answer(SamPredictor(self), given, multimask_output) for given in batched_input]

    @staticmethod
    def _answer(predictor: "SamPredictor", given: dict[str, Any], multimask_output: bool) -> dict[str, Any]:
        predictor.set_torch_image(given["image"][None], given["original_size"])
        masks, iou, low_res = predictor.predict_torch(
            given.get("point_coords"),
            given.get("point_labels"),
            given.get("boxes"),
            given.get("mask_inputs"),
            multimask_output,
        )
        return {"masks": masks, "iou_predictions": iou, "low_res_logits": low_res}

    def to(self, device: Any = None) -> "SamModel":
        """Does nothing: artifacts run on the CPU."""
        return self

    def eval(self) -> "SamModel":
        """Does nothing: artifacts cannot be trained."""
        return self


class _Registry(dict[str, Callable[..., SamModel]]):
    """Any model name leads to the loader of artifacts."""

    def __missing__(self, name: str) -> Callable[..., SamModel]:
        def load(checkpoint: Path | str | None = None, **options: Any) -> SamModel:
            """`checkpoint`: artifact folder, None to search; other options as for `Segmenter`."""
            return SamModel(checkpoint, **options)

        return load


sam_model_registry = _Registry()


class SamPredictor(Segmenter):
    """`segment_anything.SamPredictor`: `set_image`, then `predict`."""

    def __init__(self, sam_model: Segmenter) -> None:
        """`sam_model` may be shared by many predictors: each has its own image."""
        self.model = sam_model if isinstance(sam_model, SamModel) else _sam_model(sam_model)
        self.graphs = sam_model.graphs
        self.reset_image()
        self.transform = ResizeLongestSide(self.manifest.image_size)

    @property
    def device(self) -> str:
        """Always the CPU."""
        return "cpu"

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the photograph; OrderError if no image is set."""
        return self.frame.original_size

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the photograph in the model's input; OrderError if no image is set."""
        return self.frame.input_size

    def set_torch_image(self, transformed_image: Any, original_image_size: tuple[int, int]) -> None:
        """As `set_image`, from (1, 3, h, w) RGB in 0 to 255 whose long side is the model's input size."""
        pixels = np.asarray(transformed_image)
        self.set_resized(pixels[0].transpose(1, 2, 0), (int(original_image_size[0]), int(original_image_size[1])))

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Batched prompts that are in the model frame already; tensors come back if tensors were given.

        Args:
            point_coords: (P, N, 2), see `transform.apply_coords_torch`; None for none.
            point_labels: (P, N).
            boxes: (P, 4) or None.
            mask_input: (P, 1, 4 * grid, 4 * grid) or None.
            multimask_output: see `Segmenter.predict`.
            return_logits: see `Segmenter.predict`.

        Returns:
            Masks (P, C, height, width), predicted IoU (P, C), low-res logits (P, C, 4 * grid, 4 * grid).
        """
        prompts = self.prompts(point_coords, point_labels, boxes, mask_input, in_model_frame=True)
        low_res, iou = self.decode(prompts, multimask_output)
        upscaler = self.frame.upscaler
        masks = upscaler.logits(low_res) if return_logits else upscaler.masks(low_res)
        given = next(values for values in (point_coords, boxes, mask_input) if values is not None)
        return _like(given, masks), _like(given, iou), _like(given, low_res)


class SamAutomaticMaskGenerator:
    """`segment_anything.SamAutomaticMaskGenerator`: same arguments, same records."""

    hierarchical = False

    def __init__(
        self,
        model: Segmenter,
        points_per_side: int | None = 32,
        points_per_batch: int | None = None,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float | None = None,
        box_nms_thresh: float | None = None,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.float64]] | None = None,
        min_mask_region_area: float = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Arguments are those of `EverythingSettings`; None is the model's own value.

        Raises:
            ValueError: an unknown `output_mode`, both or neither of `points_per_side` and `point_grids`.
        """
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode is {output_mode!r}, expected one of {', '.join(OUTPUT_MODES)}")
        if (points_per_side is None) == (point_grids is None):
            raise ValueError("give points_per_side or point_grids, and None for the other")
        own = {
            "points_per_side": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "stability_score_offset": stability_score_offset,
            "box_nms_thresh": box_nms_thresh,
        }
        self.settings = EverythingSettings.of_model(
            model.manifest.everything,
            points_per_batch=points_per_batch,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            min_mask_region_area=min_mask_region_area,
            clean=False,
            hierarchical=self.hierarchical,
            **{name: value for name, value in own.items() if value is not None},
        )
        self.predictor = SamPredictor(model)
        self.output_mode = output_mode

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Records of all masks of an RGB image, uint8 (height, width, 3).

        Keys: segmentation (bool (height, width), or run lengths), area, bbox (x, y, width, height), predicted_iou,
        point_coords [[x, y]], stability_score, crop_box (x, y, width, height).
        """
        found = segment_everything(self.predictor, image, self.settings)
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        self.predictor.reset_image()
        return [self._record(mask) for mask in found.masks]

    def _record(self, mask: MaskRecord) -> dict[str, Any]:
        x0, y0, x1, y1 = mask.crop_box or (0, 0, mask.rle.size[1], mask.rle.size[0])
        return {
            "segmentation": self._segmentation(mask),
            "area": mask.area,
            "bbox": list(mask.bbox),
            "predicted_iou": mask.predicted_iou,
            "point_coords": [list(point) for point in mask.point_coords],
            "stability_score": mask.stability_score,
            "crop_box": [x0, y0, x1 - x0, y1 - y0],
        }

    def _segmentation(self, mask: MaskRecord) -> Any:
        if self.output_mode == "binary_mask":
            return mask.mask()
        size = list(mask.rle.size)
        if self.output_mode == "coco_rle":
            return {"size": size, "counts": mask.rle.to_coco()}
        return {"size": size, "counts": mask.rle.counts.tolist()}


class SamHierarchicalMaskGenerator(SamAutomaticMaskGenerator):
    """TinySAM's generator: a coarse grid first, then only the points that confident masks left open."""

    hierarchical = True

    def __init__(self, model: Segmenter, *args: Any, high_score_thresh: float | None = None, **options: Any) -> None:
        """`high_score_thresh` is TinySAM's name of `coarse_logit_thresh`."""
        super().__init__(model, *args, **options)
        if high_score_thresh is not None:
            self.settings = replace(self.settings, coarse_logit_thresh=high_score_thresh)

    hierarchical_generate = SamAutomaticMaskGenerator.generate


def _sam_model(segmenter: Segmenter) -> SamModel:
    """The same loaded model with SAM's attributes."""
    model = SamModel.__new__(SamModel)
    model.graphs = segmenter.graphs
    model.reset_image()
    return model


def _like(given: Any, array: NDArray[Any]) -> Any:
    """`array`, as a torch tensor if `given` is one; torch itself is never imported here."""
    return sys.modules["torch"].from_numpy(array) if type(given).__module__ == "torch" else array
