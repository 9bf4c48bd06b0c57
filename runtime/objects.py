"""From prompts to objects: the records of one photograph that the command writes."""

import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tinysam.runtime.errors import ArtifactError, ImageError, PromptError
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.mask_choice import stability
from tinysam.runtime.preprocess import to_pil
from tinysam.runtime.prompts import Box, ObjectPrompt, Point
from tinysam.runtime.results import MaskRecord, Result, add_times
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.zoom import Answer, Looks, Views


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
    zoom_in: bool = True,
    embedding: Path | None = None,
    release: bool = False,
) -> Result:
    """Segments the objects that prompts ask for, or everything if there are none.

    Args:
        segmenter: its image is replaced, or, if boxes are answered from windows alone, forgotten.
        image: upright photograph.
        prompts: one for each object.
        settings: of segment-everything; None for those chosen for the model.
        name: of the photograph, for messages.
        clean: whether small islands and holes of the masks that prompts ask for go, by the manifest's `cleaning`; for
            everything `settings` decides.
        zoom_in: whether objects that prompts ask for are looked at closer, by the manifest's `zoom_in`.
        embedding: file with the photograph's embedding; written if it is not there or another's. For prompts only,
            which are all answered from it, without looking closer.
        release: whether segment-everything frees the memory of encoder and decoder after their last use.

    Raises:
        PromptError, ImageError, ArtifactError, EngineMissingError: see `Segmenter`.
    """
    if prompts:
        views = None
        if embedding is not None:
            _encode(segmenter, image, embedding)
        else:
            views = Views.of(to_pil(image), segmenter.manifest, zoom_in)
        return segment_views(segmenter, views, prompts, name, clean)
    # Imported here: a click does without it.
    from tinysam.runtime.everything.generator import segment_everything

    found = segment_everything(segmenter, image, settings, release=release)
    return _result(segmenter, name, (image.height, image.width), found.masks, found.timing_ms, found.notes, True)


def segment_views(
    segmenter: Segmenter,
    views: Views | None,
    prompts: Sequence[ObjectPrompt],
    name: str = "image",
    clean: bool = True,
    release: bool = False,
) -> Result:
    """As `segment` with at least one prompt, for views of the photograph; None: for what the segmenter holds.

    `release`: see `Looks`; not for several prompts that are looked at closer, which would have the graphs loaded again
    and again.
    """
    looks_once = views is None or views.copy is None
    looks = Looks(segmenter, views, release and (len(prompts) == 1 or looks_once))
    timing_ms: dict[str, float] = {}
    masks = [_record(looks, prompt, looks.answer(prompt), timing_ms, clean) for prompt in prompts]
    notes = tuple(f"object {index + 1}: empty mask" for index, mask in enumerate(masks) if not mask.area)
    return _result(segmenter, name, looks.size, masks, looks.timing_ms | timing_ms, notes)


def _result(
    segmenter: Segmenter,
    name: str,
    size: tuple[int, int],
    masks: list[MaskRecord],
    timing_ms: dict[str, float],
    notes: tuple[str, ...],
    everything: bool = False,
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
        everything=everything,
    )


def _encode(segmenter: Segmenter, image: Image.Image, kept: Path) -> None:
    """Sets the image, by its embedding if that was kept."""
    if kept.is_file():
        try:
            segmenter.load_embedding(kept, image)
        except (ArtifactError, ImageError):  # another's, or damaged: made again
            pass
        else:
            return
    segmenter.set_image(image)
    segmenter.save_embedding(kept)


def _record(looks: Looks, prompt: ObjectPrompt, answer: Answer, timing_ms: dict[str, float], clean: bool) -> MaskRecord:
    """The mask at the photograph's size; adds the time taken."""
    start = time.perf_counter()
    height, width = answer.frame.low_res_size
    offset = looks.manifest.everything.stability_score_offset
    record = MaskRecord(
        rle=answer.rle(looks.cleaned(answer) if clean else answer.low_res, looks.size),
        predicted_iou=answer.predicted_iou,
        stability_score=float(stability(answer.low_res[None, :height, :width], offset)[0]),
        point_coords=tuple(point[:2] for point in prompt.points),
        point_labels=tuple(point[2] for point in prompt.points),
        box=prompt.box,
        crop_box=answer.window,
    )
    add_times(timing_ms, {"masks": 1e3 * (time.perf_counter() - start)})
    return record


def _inside(point: Point, box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
