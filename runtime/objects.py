"""From prompts to objects: the records of one photograph that the command writes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinysam.runtime.errors import ArtifactError, ImageError, PromptError
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.mask_choice import stability
from tinysam.runtime.masks.clean import clean_mask
from tinysam.runtime.results import MaskRecord, Result
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.upscale import full_size_rle

Point = tuple[float, float, int]
"""x, y and label (1 on the object, 0 off it)."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


@dataclass(frozen=True)
class ObjectPrompt:
    """Points and a box that mean one object, in pixels of the original image."""

    points: tuple[Point, ...] = ()
    box: Box | None = None


def group_prompts(points: Sequence[Point], boxes: Sequence[Box]) -> list[ObjectPrompt]:
    """Which prompts mean one object.

    Each box is an object. Without boxes all points together are one object, with one box they belong to it; with more
    boxes a point belongs to every box that it lies in.

    Raises:
        PromptError: there are several boxes and a point lies in none of them.
    """
    if not boxes:
        return [ObjectPrompt(tuple(points))] if points else []
    if len(boxes) == 1:
        return [ObjectPrompt(tuple(points), boxes[0])]
    for point in points:
        if not any(_inside(point, box) for box in boxes):
            raise PromptError(
                f"point ({point[0]:g}, {point[1]:g}) lies in none of the {len(boxes)} boxes: "
                "with several boxes a point must lie in the box of its object"
            )
    return [ObjectPrompt(tuple(point for point in points if _inside(point, box)), box) for box in boxes]


def segment(
    segmenter: Segmenter,
    image: Image.Image,
    prompts: Sequence[ObjectPrompt] = (),
    settings: EverythingSettings | None = None,
    name: str = "image",
    clean: bool = True,
    embedding: Path | None = None,
    release: bool = False,
) -> Result:
    """Segments the objects that prompts ask for, or everything if there are none.

    Args:
        segmenter: its image is replaced.
        image: upright photograph.
        prompts: one for each object.
        settings: of segment-everything; None for those chosen for the model.
        name: of the photograph, for messages.
        clean: whether small islands and holes of the masks that prompts ask for go, by the manifest's `cleaning`; for
            everything `settings` decides.
        embedding: file with the photograph's embedding; written if it is not there or another's. For prompts only.
        release: whether segment-everything frees the memory of encoder and decoder after their last use.

    Raises:
        PromptError, ImageError, ArtifactError, EngineMissingError: see `Segmenter`.
    """
    if prompts:
        _encode(segmenter, image, embedding)
        return segment_encoded(segmenter, prompts, name, clean)
    # Imported here: a click does without it.
    from tinysam.runtime.everything.generator import segment_everything

    found = segment_everything(segmenter, image, settings, release=release)
    return _result(segmenter, name, (image.height, image.width), found.masks, found.timing_ms, found.notes)


def segment_encoded(
    segmenter: Segmenter, prompts: Sequence[ObjectPrompt], name: str = "image", clean: bool = True
) -> Result:
    """As `segment`, for the photograph that the segmenter holds and at least one prompt."""
    timing_ms = segmenter.timing_ms | {"load decoder": segmenter.graphs.load("decoder")}
    masks = [_segment_prompt(segmenter, prompt, timing_ms, clean) for prompt in prompts]
    notes = tuple(f"object {index + 1}: empty mask" for index, mask in enumerate(masks) if not mask.area)
    return _result(segmenter, name, segmenter.frame.original_size, masks, timing_ms, notes)


def _result(
    segmenter: Segmenter,
    name: str,
    size: tuple[int, int],
    masks: list[MaskRecord],
    timing_ms: dict[str, float],
    notes: tuple[str, ...],
) -> Result:
    graphs = segmenter.graphs
    return Result(
        name=name,
        image_size=size,
        masks=masks,
        model=f"{graphs.manifest.variant}-{graphs.manifest.image_size}",
        backend=graphs.backend,
        precision=graphs.precision,
        timing_ms=timing_ms,
        notes=notes,
    )


def _encode(segmenter: Segmenter, image: Image.Image, kept: Path | None) -> None:
    """Sets the image, by its embedding if that was kept."""
    if kept is not None and kept.is_file():
        try:
            segmenter.load_embedding(kept, image)
        except (ArtifactError, ImageError):  # another's, or damaged: made again
            pass
        else:
            return
    segmenter.set_image(image)
    if kept is not None:
        segmenter.save_embedding(kept)


def _segment_prompt(segmenter: Segmenter, prompt: ObjectPrompt, timing_ms: dict[str, float], clean: bool) -> MaskRecord:
    """The chosen mask; adds the time taken."""
    start = time.perf_counter()
    coords = [[point[:2] for point in prompt.points]] if prompt.points else None
    labels = [[point[2] for point in prompt.points]] if prompt.points else None
    boxes = [prompt.box] if prompt.box else None
    decoder_prompts = segmenter.prompts(coords, labels, boxes)
    masks, iou = segmenter.decode(decoder_prompts, multimask_output=None)
    decoded = time.perf_counter()
    frame, logits = segmenter.frame, masks[0, 0]
    height, width = frame.low_res_size
    shown = clean_mask(logits, segmenter.manifest.cleaning, frame.low_res_size) if clean else logits
    offset = segmenter.manifest.everything.stability_score_offset
    record = MaskRecord(
        rle=full_size_rle(np.ascontiguousarray(shown), frame.upscaler, frame.original_size),
        predicted_iou=float(iou[0, 0]),
        stability_score=float(stability(logits[None, :height, :width], offset)[0]),
        point_coords=tuple(point[:2] for point in prompt.points),
        point_labels=tuple(point[2] for point in prompt.points),
        box=prompt.box,
    )
    for stage, seconds in (("decoder", decoded - start), ("masks", time.perf_counter() - decoded)):
        timing_ms[stage] = timing_ms.get(stage, 0.0) + 1e3 * seconds
    return record


def _inside(point: Point, box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
