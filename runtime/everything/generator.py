"""Finds the masks of everything in a photograph.

For each crop of the photograph: encode it; ask the decoder for three masks at every point of a grid; keep those whose
predicted IoU and stability are high enough; drop the duplicates. Then drop the duplicates between crops, and only what
is left is brought to the photograph's size.

Hierarchical mode asks in two passes: a quarter of the grid on each side first; other points that fall into a sure
region of a good mask of that pass are left out of the second (Shu et al. 2023, TinySAM, arXiv:2312.13789).
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.runtime import preprocess
from tinysam.runtime.everything import candidates as cand
from tinysam.runtime.everything.candidates import Candidate
from tinysam.runtime.everything.crops import Crop, crops, is_flat
from tinysam.runtime.everything.finish import finish
from tinysam.runtime.everything.settings import QUALITY, EverythingSettings
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.graphs import Decoded
from tinysam.runtime.labels import PADDING, POSITIVE
from tinysam.runtime.mask_choice import stability
from tinysam.runtime.masks.clean import clean_masks
from tinysam.runtime.masks.nms import nms
from tinysam.runtime.prompts import Prompts
from tinysam.runtime.results import MaskRecord
from tinysam.runtime.segmenter import Segmenter

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

RELAX_STEPS = (0.1, 0.2, 0.4, np.inf)
"""If nothing passes, the model's own thresholds are lowered by these amounts in turn, the last of which drops them."""
_RESERVE_POINTS = 16
"""Points of a crop, those of the highest predicted IoU, that are asked again if nothing passes."""


@dataclass
class Found:
    """What one pass over the points of a crop has brought."""

    good: list[Candidate] = field(default_factory=list)
    points: list[Points] = field(default_factory=list)
    iou: list[Floats] = field(default_factory=list)
    """Of each decoder call: its points (P, 2) in pixels of the crop, and the highest predicted IoU (P,) of each."""
    reserve: list[Candidate] = field(default_factory=list)
    """If nothing is good: the best there is."""
    sure: NDArray[np.intp] | int = 0
    """Hierarchical mode: (side, side), how many good masks are above `coarse_logit_thresh` at each low-res pixel."""
    near: NDArray[np.intp] | int = 0
    """Hierarchical mode: (side, side), how many are above `coarse_thin_thresh` there."""


@dataclass(frozen=True)
class Everything:
    """The masks of a photograph, largest first."""

    masks: list[MaskRecord]
    notes: tuple[str, ...]
    """What a user should know; not empty if thresholds had to be relaxed or nothing was found."""
    timing_ms: dict[str, float]
    points: int
    """Prompts that were decoded."""
    drawn: int
    """Those of them whose masks were drawn, because one's predicted IoU was high enough."""


def segment_everything(
    segmenter: Segmenter, image: Any, settings: EverythingSettings | None = None, image_format: str = "RGB"
) -> Everything:
    """Segments everything in an image.

    Args:
        segmenter: its image is replaced.
        image: as for `Segmenter.set_image`.
        settings: None for those chosen for the model.
        image_format: `RGB` or `BGR`, of an array.

    Raises:
        ImageError, ArtifactError, EngineMissingError: see `Segmenter.set_image`.
    """
    settings = settings or EverythingSettings.of_model(segmenter.manifest.everything)
    return _Run(segmenter, settings).everything(preprocess.to_pil(image, image_format))


class _Run:
    """One photograph's way through the generator."""

    def __init__(self, segmenter: Segmenter, settings: EverythingSettings) -> None:
        self.segmenter, self.settings = segmenter, settings
        self.batch = settings.points_per_batch or default_batch(segmenter.manifest.image_size)
        self.timing_ms: dict[str, float] = {}
        self.points = self.drawn = 0

    def everything(self, picture: Image.Image) -> Everything:
        size = (picture.height, picture.width)
        layers = crops(size, self.settings.crop_n_layers, self.settings.crop_overlap_ratio)
        regions = [region for region in layers if not is_flat(picture, region)]
        if not regions:
            return Everything([], ("the picture is flat: it shows no objects",), {}, 0, 0)
        found = [self._crop(picture, region) for region in regions]
        good = [part.good for part in found]
        notes: tuple[str, ...] = ()
        if not any(good):
            good, notes = _relaxed([part.reserve for part in found], self.settings)
        kept = [(region, self._distinct(part, region, size)) for region, part in zip(regions, good, strict=True)]
        start = time.perf_counter()
        masks = finish(_between_crops(kept, self.settings), size, self.segmenter.manifest.image_size, self.settings)
        self._add("masks", start)
        return Everything(masks, notes, self.timing_ms, self.points, self.drawn)

    def _crop(self, picture: Image.Image, region: Crop) -> Found:
        """Encodes one crop and asks for masks at its points."""
        whole = region.box == (0, 0, *picture.size)
        self.segmenter.set_image(picture if whole else picture.crop(region.box))
        for stage, duration in self.segmenter.timing_ms.items():
            self.timing_ms[stage] = self.timing_ms.get(stage, 0.0) + duration
        self.timing_ms["load decoder"] = self.timing_ms.get("load decoder", 0) + self.segmenter.graphs.load("decoder")
        height, width = self.segmenter.frame.original_size
        points = self.settings.grid(region.layer) * [width, height]
        found = Found()
        if self.settings.hierarchical:
            first = self.settings.first_pass(region.layer)
            self._pass(points[first], found, mark_sure=True)
            sure, near = self._at(points, found.sure), self._at(points, found.near)
            points = points[~first & ~self.settings.left_out(region.layer, sure, near)]
        self._pass(points, found)
        if found.points and not found.good and any(map(self.settings.may_lower, QUALITY)):
            self._fill_reserve(found)
        return found

    def _at(self, points: Points, low_res: NDArray[Any] | int) -> NDArray[Any]:
        """(n,) values of a low-res map (side, side), or of one number for all of it, at points (n, 2) of the crop."""
        side = self.segmenter.graphs.low_res_side
        x, y = np.minimum(self.segmenter.frame.to_model(points) / LOW_RES_STRIDE, side - 1).astype(np.intp).T
        values: NDArray[Any] = np.broadcast_to(low_res, (side, side))[y, x]
        return values

    def _pass(self, points: Points, found: Found, mark_sure: bool = False) -> None:
        """Decodes points (n, 2) of the crop, batch by batch."""
        for begin in range(0, len(points), self.batch):
            chunk = points[begin : begin + self.batch]
            decoded = self._decode(chunk, self.settings.pred_iou_thresh)
            start = time.perf_counter()
            found.points.append(chunk)
            found.iou.append(decoded.iou.max(axis=1))
            if len(decoded.kept):
                self._judge(decoded, chunk, found, mark_sure)
            self._add("filters", start)
            self.drawn += len(decoded.kept)
        self.points += len(points)

    def _decode(self, points: Points, iou_threshold: float) -> Decoded:
        start = time.perf_counter()
        decoded = self.segmenter.decode_above(click_prompts(self.segmenter.frame, points), iou_threshold)
        self._add("decoder", start)
        return decoded

    def _judge(self, decoded: Decoded, points: Points, found: Found, mark_sure: bool) -> None:
        """Adds the good ones of one decoder call's masks."""
        settings, frame = self.settings, self.segmenter.frame
        height, width = frame.low_res_size
        iou = decoded.iou[decoded.kept]
        prompt, kind = np.nonzero(iou > settings.pred_iou_thresh)
        masks = decoded.masks[prompt, kind]
        scores = stability(masks[:, :height, :width], settings.stability_score_offset)
        good = scores >= settings.stability_score_thresh
        masks, origin = masks[good], points[decoded.kept[prompt[good]]]
        found.good += cand.make_candidates(frame, self._cleaned(masks), iou[prompt, kind][good], scores[good], origin)
        if mark_sure:
            found.sure = found.sure + (masks > settings.coarse_logit_thresh).sum(axis=0)
            found.near = found.near + (masks > settings.coarse_thin_thresh).sum(axis=0)

    def _fill_reserve(self, found: Found) -> None:
        """Draws the masks of the points that came closest to the threshold, as nothing passed."""
        frame, offset = self.segmenter.frame, self.settings.stability_score_offset
        height, width = frame.low_res_size
        points, iou = np.concatenate(found.points), np.concatenate(found.iou)
        for point in points[np.argsort(-iou, kind="stable")[:_RESERVE_POINTS]]:
            decoded = self._decode(point[None], -np.inf)
            masks = decoded.masks[0]
            scores = stability(masks[:, :height, :width], offset)
            origin = np.repeat(point[None], len(masks), axis=0)
            found.reserve += cand.make_candidates(frame, self._cleaned(masks), decoded.iou[0], scores, origin)

    def _cleaned(self, masks: Floats) -> Floats:
        """(n, side, side) masks without small islands and holes, if the settings want that."""
        if not self.settings.clean:
            return masks
        return clean_masks(masks, self.segmenter.manifest.cleaning, self.segmenter.frame.low_res_size)

    def _distinct(self, good: list[Candidate], region: Crop, size: tuple[int, int]) -> list[Candidate]:
        """Drops duplicates within one crop and masks that its edge cuts; boxes become the photograph's."""
        start = time.perf_counter()
        inside = [cand.moved(candidate, region.box) for candidate in good]
        cut = cand.cut_by_crop(cand.boxes_of(inside), region.box, size)
        inside = [candidate for candidate, is_cut in zip(inside, cut, strict=True) if not is_cut]
        scores = np.array([candidate.predicted_iou for candidate in inside])
        keep = nms(cand.boxes_of(inside), scores, self.settings.box_nms_thresh)
        self._add("nms", start)
        return [inside[index] for index in keep]

    def _add(self, stage: str, start: float) -> None:
        self.timing_ms[stage] = self.timing_ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - start)


def default_batch(image_size: int) -> int:
    """Prompts per decoder call that measured fastest: see docs/runtime.md."""
    return 4 if image_size <= 512 else 1


def click_prompts(frame: Frame, points: Points) -> Prompts:
    """One positive click each at points (n, 2) in pixels of the picture, with SAM's padding point."""
    coords = np.pad(frame.to_model(points)[:, None], ((0, 0), (0, 1), (0, 0)))
    return Prompts(coords, np.tile(np.array([POSITIVE, PADDING], np.float32), (len(points), 1)))


def _relaxed(
    reserves: list[list[Candidate]], settings: EverythingSettings
) -> tuple[list[list[Candidate]], tuple[str, ...]]:
    """The masks to show although none passed, and the note that says so. A caller's thresholds hold in any case."""
    wanted = f"predicted IoU {settings.pred_iou_thresh:.2f} and stability {settings.stability_score_thresh:.2f}"
    asked = f"no mask reached {wanted}"
    if not any(map(settings.may_lower, QUALITY)):
        return reserves, (f"{asked}, which were given: nothing is shown",)
    for step in RELAX_STEPS:
        iou, stable = settings.lowered(step)
        good = [
            [one for one in reserve if one.predicted_iou > iou and one.stability_score >= stable]
            for reserve in reserves
        ]
        if any(good):
            if step < np.inf:
                return good, (f"{asked}: lowered to {iou:.2f} and {stable:.2f}",)
            return good, (f"{asked}, nor anything near: showing the best there are",)
    if not any(reserves):
        return reserves, ("the model found nothing in this image",)
    return [[] for _ in reserves], (f"{asked}: nothing is shown",)


def _between_crops(
    kept: list[tuple[Crop, list[Candidate]]], settings: EverythingSettings
) -> list[tuple[Crop, Candidate]]:
    """Drops duplicates between crops: of two, the one from the smaller crop stays."""
    pairs = [(region, candidate) for region, candidates in kept for candidate in candidates]
    if len(kept) == 1:
        return pairs
    areas = [(region.box[2] - region.box[0]) * (region.box[3] - region.box[1]) for region, _ in pairs]
    boxes = cand.boxes_of([candidate for _, candidate in pairs])
    keep = nms(boxes, 1 / np.array(areas, np.float64), settings.crop_nms_thresh)
    return [pairs[index] for index in keep]
