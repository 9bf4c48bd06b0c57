"""Finds the masks of everything in a photograph.

As SAM's automatic mask generator (Kirillov et al. 2023, arXiv:2304.02643, appendix B), but for the order of the steps:

1. For each crop of the photograph: encode it.
2. Ask the decoder for three masks at points of a grid, a few points at a time; in hierarchical mode also for the one of
   its single-mask output. `points.py` says which points: all, or in hierarchical mode those that are not known yet.
3. Keep the masks whose predicted IoU and stability are high enough; of those that show one object keep the best; drop
   those that the edge of the crop cuts; clean what is left.
4. Drop the duplicates between crops.
5. Bring what is left to the photograph's size.

SAM does 3 and 4 at the photograph's size. Here they are done at the decoder's resolution.
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
from tinysam.runtime.everything.postprocess import to_full_size
from tinysam.runtime.everything.settings import QUALITY, EverythingSettings
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.labels import PADDING, POSITIVE
from tinysam.runtime.mask_choice import stability
from tinysam.runtime.masks.nms import nms
from tinysam.runtime.model import Decoded
from tinysam.runtime.prompts import Prompts
from tinysam.runtime.results import MaskRecord, add_times
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
    segmenter: Segmenter,
    image: Any,
    settings: EverythingSettings | None = None,
    image_format: str = "RGB",
    release: bool = False,
) -> Everything:
    """Segments everything in an image.

    Args:
        segmenter: its image is replaced.
        image: as for `Segmenter.set_image`.
        settings: None for those chosen for the model.
        image_format: `RGB` or `BGR`, of an array.
        release: whether to free the memory of encoder and decoder after their last use.

    Raises:
        ImageError, ArtifactError, EngineMissingError: see `Segmenter.set_image`.
    """
    settings = settings or EverythingSettings.of_model(segmenter.manifest.everything)
    return _Run(segmenter, settings, release).everything(preprocess.to_pil(image, image_format))


class _Run:
    """One photograph's way through the generator."""

    def __init__(self, segmenter: Segmenter, settings: EverythingSettings, release: bool) -> None:
        self.segmenter, self.settings, self.release = segmenter, settings, release
        self.batch = settings.points_per_batch or default_batch(segmenter.manifest.image_size)
        self.timing_ms: dict[str, float] = {}
        self.points = self.drawn = 0

    def everything(self, picture: Image.Image) -> Everything:
        size = (picture.height, picture.width)
        layers = crops(size, self.settings.crop_n_layers, self.settings.crop_overlap_ratio)
        regions = [region for region in layers if not is_flat(picture, region)]
        if not regions:
            return Everything([], ("the picture is flat: it shows no objects",), {}, 0, 0)
        found = [self._crop(picture, region, region is regions[-1]) for region in regions]
        self._free("decoder")
        good = [part.good for part in found]
        notes: tuple[str, ...] = ()
        if not any(good):
            good, notes = _relaxed([part.reserve for part in found], self.settings)
        kept = [(region, self._distinct(part, region, size)) for region, part in zip(regions, good, strict=True)]
        start = time.perf_counter()
        pairs = _between_crops(kept, self.settings)
        masks = to_full_size(pairs, size, self.segmenter.manifest.image_size, self.settings)
        self._add("masks", start)
        return Everything(masks, notes, self.timing_ms, self.points, self.drawn)

    def _crop(self, picture: Image.Image, region: Crop, last: bool) -> Found:
        """Encodes one crop and asks for masks at its points."""
        whole = region.box == (0, 0, *picture.size)
        self.segmenter.set_image(picture if whole else picture.crop(region.box))
        add_times(self.timing_ms, self.segmenter.timing_ms)
        if last:
            self._free("encoder")
        add_times(self.timing_ms, {"load decoder": self.segmenter.graphs.load("decoder")})
        found = Found()
        self._ask(region.layer, found)
        if found.points and not found.good and any(map(self.settings.may_lower, QUALITY)):
            self._fill_reserve(found)
        return found

    def _free(self, part: str) -> None:
        if self.release:
            self.segmenter.graphs.release(part)

    def _ask(self, layer: int, found: Found) -> None:
        """Decodes points of the crop, round by round, as long as there are some to ask."""
        height, width = self.segmenter.frame.original_size
        points, plan = self.settings.grid(layer) * [width, height], self.settings.plan(layer, self.batch)
        side = self.segmenter.graphs.low_res_side
        x, y = np.minimum(self.segmenter.frame.to_model(points) / LOW_RES_STRIDE, side - 1).astype(np.intp).T
        while len(chosen := plan.take()):
            for begin in range(0, len(chosen), self.batch):
                good = self._judge(points[chosen[begin : begin + self.batch]], found)
                plan.cover((good[:, y, x] > self.settings.coarse_logit_thresh).sum(axis=0))

    def _decode(self, points: Points, iou_threshold: float) -> Decoded:
        start = time.perf_counter()
        prompts = click_prompts(self.segmenter.frame, points)
        decoded = self.segmenter.decode_above(prompts, iou_threshold, self.settings.single_mask)
        self._add("decoder", start)
        return decoded

    def _judge(self, points: Points, found: Found) -> Floats:
        """Decodes points (P, 2), adds the good ones of their masks and returns them, (n, side, side)."""
        settings, frame = self.settings, self.segmenter.frame
        decoded = self._decode(points, settings.pred_iou_thresh)
        start = time.perf_counter()
        found.points.append(points)
        found.iou.append(decoded.iou.max(axis=1))
        height, width = frame.low_res_size
        iou = decoded.iou[decoded.kept]
        prompt, kind = np.nonzero(iou > settings.pred_iou_thresh)
        masks = decoded.masks[prompt, kind]
        scores = stability(masks[:, :height, :width], settings.stability_score_offset)
        good = scores >= settings.stability_score_thresh
        masks, origin = masks[good], points[decoded.kept[prompt[good]]]
        found.good += cand.make_candidates(frame, masks, iou[prompt, kind][good], scores[good], origin)
        self.points += len(points)
        self.drawn += len(decoded.kept)
        self._add("filters", start)
        return masks

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
            found.reserve += cand.make_candidates(frame, masks, decoded.iou[0], scores, origin)

    def _distinct(self, good: list[Candidate], region: Crop, size: tuple[int, int]) -> list[Candidate]:
        """Drops duplicates within one crop and masks that its edge cuts, cleans; boxes become the photograph's."""
        start = time.perf_counter()
        x0, y0, x1, y1 = region.box
        boxes = cand.boxes_of(good) + np.array([x0, y0, x0, y0])
        cut = cand.cut_by_crop(boxes, region.box, size)
        whole = [candidate for candidate, is_cut in zip(good, cut, strict=True) if not is_cut]
        frame = Frame((y1 - y0, x1 - x0), self.segmenter.manifest.image_size)
        kept = cand.distinct(whole, self.settings, frame)
        if self.settings.clean:
            kept = [cand.cleaned(candidate, self.segmenter.manifest.cleaning, frame) for candidate in kept]
        self._add("nms", start)
        return [cand.moved(candidate, region.box) for candidate in kept]

    def _add(self, stage: str, start: float) -> None:
        add_times(self.timing_ms, {stage: 1e3 * (time.perf_counter() - start)})


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
    """The masks to show although none passed, and a note. Thresholds that a caller gave are never lowered."""
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
            return good, (f"{asked}, nor the lowered thresholds: showing the masks of highest predicted IoU",)
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
