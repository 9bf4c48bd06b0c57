"""Brings the masks that are left to the photograph's size, one after the other."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinysam.runtime.everything.candidates import Candidate
from tinysam.runtime.everything.crops import Crop
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.geometry import Frame
from tinysam.runtime.masks.clean import remove_small_regions
from tinysam.runtime.masks.nms import nms
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.results import MaskRecord
from tinysam.runtime.upscale import Upscaler, full_size_rle


def to_full_size(
    pairs: Sequence[tuple[Crop, Candidate]], size: tuple[int, int], image_size: int, settings: EverythingSettings
) -> list[MaskRecord]:
    """Records of candidates with their crops, largest first; `size` is the photograph's (height, width)."""
    upscalers: dict[Crop, Upscaler] = {}
    records = []
    for region, candidate in pairs:
        if region not in upscalers:
            x0, y0, x1, y1 = region.box
            upscalers[region] = Frame((y1 - y0, x1 - x0), image_size).upscaler
        rle = full_size_rle(candidate.logits, upscalers[region], size, origin=candidate.origin, offset=region.box[:2])
        if rle.area:
            records.append(_record(rle, candidate, region))
    if settings.min_mask_region_area > 0:
        records = _without_small_regions(records, settings)
    return sorted(records, key=lambda record: -record.area)


def _record(rle: Rle, candidate: Candidate, region: Crop) -> MaskRecord:
    return MaskRecord(
        rle=rle,
        predicted_iou=candidate.predicted_iou,
        stability_score=candidate.stability_score,
        point_coords=(candidate.point,),
        point_labels=(1,),
        crop_box=region.box,
    )


def _without_small_regions(records: list[MaskRecord], settings: EverythingSettings) -> list[MaskRecord]:
    """Cleans the masks; of those that became duplicates, one that needed no cleaning stays."""
    cleaned = [remove_small_regions(record.rle, settings.min_mask_region_area) for record in records]
    boxes = np.array([rle.box for rle, _ in cleaned], np.float64).reshape(-1, 4)
    scores = np.array([0.0 if changed else 1.0 for _, changed in cleaned])
    keep = nms(boxes, scores, max(settings.box_nms_thresh, settings.crop_nms_thresh))
    return [replace(records[index], rle=cleaned[index][0]) for index in keep]
