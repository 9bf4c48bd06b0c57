"""Thresholds of segment-everything compared on annotated photographs, with one pass of the decoder for all of them.

Every point of the grid is decoded once, with the lowest of the thresholds. What the generator
would have found with others, plain or hierarchical, follows from that exactly: which masks pass, which points are asked
after them, which masks the suppression keeps. Two things are not simulated. A photograph in which nothing passes counts
as one without masks, where the generator would show its best with a note. And the time has to be measured for real,
for the setting that is chosen: `python -m tinysam.evaluation.bench_hierarchical`.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from tinysam.datasets.coco import Photo
from tinysam.evaluation.tasks import Figures, mean
from tinysam.runtime.everything import candidates as cand
from tinysam.runtime.everything.candidates import Candidate
from tinysam.runtime.everything.generator import click_prompts, default_batch
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.geometry import LOW_RES_STRIDE
from tinysam.runtime.mask_choice import ambiguous_masks, stability
from tinysam.runtime.model import Decoded
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.upscale import full_size_rle

SWEPT = (
    "pred_iou_thresh",
    "stability_score_thresh",
    "coarse_logit_thresh",
    "coarse_agreement",
    "coarse_share",
    "box_nms_thresh",
    "mask_nms_thresh",
)
"""Settings that may have several values."""

Values = tuple[tuple[str, tuple[float, ...]], ...]


class GridPass:
    """The masks of one photograph at every point of the grid that pass the lowest thresholds."""

    def __init__(self, segmenter: Segmenter, photo: Photo, image: Image.Image, lowest: EverythingSettings) -> None:
        segmenter.set_image(image)
        self.segmenter, self.photo, self.lowest = segmenter, photo, lowest
        size = np.array([photo.width, photo.height], np.float64)
        self.points = lowest.grid(0) * size
        self.best_iou = np.zeros(len(self.points), np.float32)
        """(points,) highest predicted IoU of each point's ambiguous masks: whether the point is drawn."""
        self.point: list[int] = []
        """Of each mask, the point that gave it."""
        self.single: list[bool] = []
        """Of each mask, whether it is of the single-mask output."""
        self.masks: list[Candidate] = []
        self.at_points: list[NDArray[np.float32]] = []
        """Of each mask, its logits (points,) where the generator looks whether a point is done."""
        self._ambiguous = ambiguous_masks(segmenter.manifest.mask_tokens)
        self.batch = default_batch(segmenter.manifest.image_size)
        for begin in range(0, len(self.points), self.batch):
            self._decode(begin, self.points[begin : begin + self.batch])
        self._overlaps: dict[tuple[object, ...], NDArray[np.float64]] = {}

    def _decode(self, begin: int, points: NDArray[np.float64]) -> None:
        prompts = click_prompts(self.segmenter.frame, points)
        decoded = self.segmenter.decode_above(prompts, self.lowest.pred_iou_thresh, single_mask=True)
        self.best_iou[begin : begin + len(points)] = decoded.iou[:, self._ambiguous].max(axis=1)
        if len(decoded.kept):
            self._keep(decoded, begin)

    def _keep(self, decoded: Decoded, begin: int) -> None:
        frame = self.segmenter.frame
        height, width = frame.low_res_size
        iou = decoded.iou[decoded.kept]
        prompt, kind = np.nonzero(iou > self.lowest.pred_iou_thresh)
        masks = decoded.masks[prompt, kind]
        scores = stability(masks[:, :height, :width], self.lowest.stability_score_offset)
        x, y = (frame.to_model(self.points) / LOW_RES_STRIDE).astype(np.intp).T
        for index in np.flatnonzero(scores >= self.lowest.stability_score_thresh):
            point = begin + int(decoded.kept[prompt[index]])
            one = slice(index, index + 1)
            found = cand.make_candidates(
                frame, masks[one], iou[prompt, kind][one], scores[one], self.points[point : point + 1]
            )
            self.masks += found  # none, if the mask is empty inside the photograph
            self.point += [point] * len(found)
            self.single += [kind[index] not in self._ambiguous] * len(found)
            side = masks.shape[-1] - 1
            self.at_points += [masks[index][np.minimum(y, side), np.minimum(x, side)]] * len(found)

    def outcome(self, settings: EverythingSettings) -> dict[str, Any]:
        """Points that the generator would have asked, those of them whose masks were drawn, and the best IoU of each
        annotated mask."""
        # The generator compares in the decoder's float32.
        predicted = np.array([mask.predicted_iou for mask in self.masks], np.float32)
        stable = np.array([mask.stability_score for mask in self.masks], np.float64)
        good = (predicted > np.float32(settings.pred_iou_thresh)) & (stable >= settings.stability_score_thresh)
        if not settings.single_mask:
            good &= ~np.array(self.single, np.bool_)
        asked = self._asked(good, settings)
        chosen = np.flatnonzero(good & asked[np.array(self.point, np.intp)])
        kept = cand.distinct([self.masks[index] for index in chosen], settings, self.segmenter.frame)
        overlaps = [self._overlap(mask) for mask in kept]
        best = np.max(overlaps, axis=0) if overlaps else np.zeros(len(self.photo.masks))
        return {
            "points": int(asked.sum()),
            "drawn": int((asked & (self.best_iou > np.float32(settings.pred_iou_thresh))).sum()),
            "masks": len(kept),
            "best_iou": best.tolist(),
        }

    def _asked(self, good: NDArray[np.bool_], settings: EverythingSettings) -> NDArray[np.bool_]:
        """(points,) which points the generator would ask if these masks (n,) are good."""
        asked, plan = np.zeros(len(self.points), np.bool_), settings.plan(0, self.batch)
        while len(chosen := plan.take()):
            asked[chosen] = True
            covering = np.zeros(len(self.points), np.intp)
            for index in np.flatnonzero(good & np.isin(self.point, chosen)):
                covering += self.at_points[index] > settings.coarse_logit_thresh
            plan.cover(covering)
        return asked

    def _overlap(self, mask: Candidate) -> NDArray[np.float64]:
        """(annotated masks,) IoU of one mask with each, at the photograph's size."""
        key = mask.origin, mask.logits.shape, mask.logits.tobytes()
        if key not in self._overlaps:
            size, frame = (self.photo.height, self.photo.width), self.segmenter.frame
            mask = cand.cleaned(mask, self.segmenter.manifest.cleaning, frame)
            rle = full_size_rle(mask.logits, frame.upscaler, size, origin=mask.origin)
            mine = [{"size": list(size), "counts": rle.to_coco().encode()}]
            truth = [one.rle for one in self.photo.masks]
            self._overlaps[key] = np.asarray(coco_mask.iou(mine, truth, [0] * len(truth)))[0]
        return self._overlaps[key]


@dataclass(frozen=True)
class SweepTask:
    """Mean best IoU, prompts and drawn masks of plain and hierarchical segment-everything for many thresholds."""

    values: Values
    """Of `SWEPT` settings, the values to try; the others are the model's."""

    def settings(self, segmenter: Segmenter, hierarchical: bool, changes: Mapping[str, float]) -> EverythingSettings:
        """The model's settings with changes."""
        return EverythingSettings.of_model(segmenter.manifest.everything, hierarchical=hierarchical, **changes)

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> list[dict[str, Any]]:
        """One row for each combination of values and each of plain and hierarchical."""
        lowest = {name: min(values) for name, values in self.values}
        seen = GridPass(segmenter, photo, image, self.settings(segmenter, True, lowest))
        rows = []
        for combination in itertools.product(*(values for _, values in self.values)):
            changes = dict(zip((name for name, _ in self.values), combination, strict=True))
            for hierarchical in (False, True):
                found = seen.outcome(self.settings(segmenter, hierarchical, changes))
                rows.append({"settings": changes, "hierarchical": hierarchical, **found})
        return rows

    def figures(self, records: Iterable[list[dict[str, Any]]]) -> Figures:
        """A line for each combination: hierarchical beside plain with the same thresholds."""
        kept = list(records)
        pairs = [pair(rows) for rows in zip(*kept, strict=True)]
        lines = [compared(plain, coarse) for plain, coarse in zip(pairs[::2], pairs[1::2], strict=True)]
        return Figures({"sweep": lines}, table_of(lines) if lines else "nothing evaluated")


def pair(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Means of one combination in one mode over photographs; the IoU over annotated masks."""
    means = {name: mean([row[name] for row in rows]) for name in ("points", "drawn", "masks")}
    best = mean([value for row in rows for value in row["best_iou"]])
    return {"settings": rows[0]["settings"], **means, "best_iou": best}


def compared(plain: dict[str, Any], coarse: dict[str, Any]) -> dict[str, Any]:
    """Hierarchical relative to plain."""
    return {
        **coarse["settings"],
        "plain": {key: value for key, value in plain.items() if key != "settings"},
        "hierarchical": {key: value for key, value in coarse.items() if key != "settings"},
        "fewer_points": plain["points"] / max(1, coarse["points"]),
        "fewer_drawn": plain["drawn"] / max(1, coarse["drawn"]),
        "kept_iou": coarse["best_iou"] / plain["best_iou"] if plain["best_iou"] else 0.0,
    }


def table_of(lines: list[dict[str, Any]]) -> str:
    """For people."""
    names = [name for name in SWEPT if name in lines[0]]
    head = [*names, "plain IoU", "hier. IoU", "kept", "points", "fewer", "drawn", "fewer", "masks"]
    rows = [
        [f"{line[name]:g}" for name in names]
        + [f"{line['plain']['best_iou']:.4f}", f"{line['hierarchical']['best_iou']:.4f}", f"{line['kept_iou']:.1%}"]
        + [f"{line['hierarchical']['points']:.0f}", f"{line['fewer_points']:.2f}x"]
        + [f"{line['hierarchical']['drawn']:.0f}", f"{line['fewer_drawn']:.2f}x"]
        + [f"{line['plain']['masks']:.0f}/{line['hierarchical']['masks']:.0f}"]
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in [head, *rows])
