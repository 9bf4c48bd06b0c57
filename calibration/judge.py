"""What quantization does to masks, the only criterion for keep-in-float.

Every photograph's objects are the float model's own masks of clicks, those that it believes in most. Asked again with
weaker prompts, a jittered box and another click inside, the float model finds them more or less well. Boxes go in as
the runtime puts them in, with the filled box as mask prompt where the model wants one. The drop is how
much less of them the quantized model finds, in points of mean IoU. Annotated masks take the place of the model's own
where there are any: `python -m tinysam.evaluation.agreement`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.feeds import Feed, box_prompts, jittered_boxes, point_prompts, prompt_feed
from tinysam.runtime.mask_choice import is_ambiguous
from tinysam.runtime.prompts import filled_boxes

Encode = Callable[[Any], Floats]
"""Photograph (whatever the model takes for one) -> embedding, in the layout that its decoder takes."""
Decode = Callable[[Floats, Feed], tuple[Floats, Floats]]
"""Embedding and prompt feed -> low-res masks (P, masks, h, w) and predicted IoU (P, masks)."""

CLICKS = 24
"""Clicks on every photograph that look for objects."""
Choose = Callable[[Floats, npt.NDArray[np.bool_], Floats], npt.NDArray[np.intp]]
"""Predicted IoU (P, masks), (P,) whether a prompt is ambiguous, masks (P, masks, h, w) -> the mask a user gets (P,):
`tinysam.runtime.mask_choice.choose_mask` with a model's rule and tokens."""

OBJECTS = 12
"""Objects of every photograph: the masks with the highest predicted IoU."""


@dataclass(frozen=True)
class Judgement:
    """What became of the masks."""

    drop: float
    """Points of mean IoU lost against the float model."""
    agreement: float
    """Mean IoU with the float model's masks."""
    same: float
    """Share of prompts for which the same mask is chosen."""
    drop_error: float = 0.0
    """The drop is this uncertain: half of its 95 % confidence interval, from the spread between photographs."""
    agreement_error: float = 0.0
    """Likewise of the agreement."""
    prompts: int = 0
    """How many prompts were asked."""

    def describe(self) -> dict[str, float | None]:
        """For `report.json`, which knows no infinity: None for the intervals of a single photograph."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class View:
    """What is judged at once: a photograph, or a part of one."""

    image: Any
    """Whatever the models take for a photograph."""
    size: tuple[int, int]
    """(height, width) inside the square."""
    photograph: str
    """Name of the photograph: views of one depend on each other."""


@dataclass(frozen=True)
class Question:
    """One view with weak prompts, the objects they mean, and the float model's answers."""

    view: View
    embedding: Floats
    """Of the float model."""
    prompts: tuple[Feed, ...]
    objects: npt.NDArray[np.bool_]
    """(OBJECTS, h, w)."""
    masks: tuple[npt.NDArray[np.bool_], ...]
    """(OBJECTS, h, w) for each feed."""
    chosen: tuple[npt.NDArray[np.intp], ...]


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Floats:
    """(P,) IoU of (P, h, w) masks; 1 where both are empty."""
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    return floats(np.where(either, both / np.maximum(either, 1), 1.0))


def inside(mask: npt.NDArray[np.bool_], size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """x and y of any cell of a low-res mask, in model pixels; anywhere in the photograph if it is empty."""
    found = np.flatnonzero(mask)
    if not len(found):
        return floats(rng.uniform((0, 0), (size[1], size[0])))
    y, x = divmod(int(rng.choice(found)), mask.shape[1])
    return floats([4 * x + 2, 4 * y + 2])


def chosen_masks(
    decode: Decode, embedding: Floats, feed: Feed, choose: Choose
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp], Floats]:
    """What a user gets for P prompts: masks (P, h, w), their places (P,) and their predicted IoU (P,)."""
    masks, iou = decode(embedding, feed)
    ambiguous = is_ambiguous(feed["point_labels"], bool(feed["has_mask_input"][0]))
    rows, chosen = np.arange(len(iou)), choose(iou, ambiguous, masks)
    return masks[rows, chosen] > 0, chosen, iou[rows, chosen]


def box_feed(boxes: Floats, low_res: int, fill_boxes: bool) -> Feed:
    """Decoder inputs for (P, 4) boxes in the model frame, as the runtime makes them."""
    coords, labels = box_prompts(boxes)
    return prompt_feed(coords, labels, filled_boxes(coords, labels, low_res) if fill_boxes else None, low_res)


def question(view: View, encode: Encode, decode: Decode, seed: list[int], choose: Choose, fill_boxes: bool) -> Question:
    """Finds the objects of a view with the float model and asks for them again."""
    rng, size = np.random.default_rng(seed), view.size
    embedding = encode(view.image)
    side = _side(embedding)
    coords, labels = point_prompts(size, CLICKS, rng)
    masks, _, iou = chosen_masks(decode, embedding, prompt_feed(coords, labels, None, side), choose)
    believed = np.argsort(-iou, kind="stable")[:OBJECTS]
    objects = masks[believed]
    coords, labels = floats(coords[believed]), floats(labels[believed])
    boxes = jittered_boxes(floats(objects), size, rng)
    coords[:, 0] = [inside(mask, size, rng) for mask in objects]
    feeds = (box_feed(boxes, side, fill_boxes), prompt_feed(coords, labels, None, side))
    answers = [chosen_masks(decode, embedding, feed, choose) for feed in feeds]
    return Question(
        view,
        embedding,
        feeds,
        objects,
        tuple(masks for masks, _, _ in answers),
        tuple(chosen for _, chosen, _ in answers),
    )


def _side(embedding: Floats) -> int:
    """Side of low-res masks for a square embedding, channels first."""
    return 4 * embedding.shape[-1]


class Judge:
    """Questions about views of photographs, asked of one model after the other.

    Args:
        views: of the photographs.
        encode: of the float model, channels first.
        decode: of the float model.
        seed: of the prompts.
        choose: which mask a user gets.
        fill_boxes: whether boxes go in as filled masks as well (the manifest's `box_masks`).
    """

    def __init__(
        self,
        views: Sequence[View],
        encode: Encode,
        decode: Decode,
        seed: int,
        choose: Choose,
        fill_boxes: bool,
    ) -> None:
        self.choose = choose
        self.questions = [question(view, encode, decode, [seed, i], choose, fill_boxes) for i, view in enumerate(views)]

    def judge(self, encode: Encode | None, decode: Decode) -> Judgement:
        """Asks another model; without `encode` its decoder gets the float model's embeddings."""
        rows: list[tuple[Floats, Floats, Floats]] = []
        for q in self.questions:
            embedding = q.embedding if encode is None else encode(q.view.image)
            drops, agreements, same = [], [], []
            for feed, expected, chosen in zip(q.prompts, q.masks, q.chosen, strict=True):
                found, same_as, _ = chosen_masks(decode, embedding, feed, self.choose)
                drops.append(mask_iou(expected, q.objects) - mask_iou(found, q.objects))
                agreements.append(mask_iou(found, expected))
                same.append(same_as == chosen)
            rows.append((np.concatenate(drops), np.concatenate(agreements), floats(np.concatenate(same))))
        drop, agreement, alike = (np.concatenate(column) for column in zip(*rows, strict=True))
        names = [q.view.photograph for q in self.questions]
        drop_error, agreement_error = (half_interval([row[i] for row in rows], names) for i in (0, 1))
        return Judgement(
            100 * float(drop.mean()),
            float(agreement.mean()),
            float(alike.mean()),
            100 * drop_error,
            agreement_error,
            len(drop),
        )


def half_interval(views: Sequence[Floats], photographs: Sequence[str]) -> float:
    """Half of the 95 % confidence interval of a mean over prompts; prompts of one photograph depend on each other.

    The interval of a mean over clusters (Liang and Zeger 1986, https://doi.org/10.1093/biomet/73.1.13) with Student's
    t, since the photographs may be few.

    Args:
        views: values of the prompts of each view.
        photographs: names of the photographs that the views belong to.
    """
    names = sorted(set(photographs))
    if len(names) < 2:
        return float("inf")
    values = np.concatenate(views).astype(np.float64)
    cluster = np.repeat([names.index(name) for name in photographs], [len(view) for view in views])
    sums = np.bincount(cluster, values - values.mean())
    error = np.sqrt(len(names) / (len(names) - 1) * (sums**2).sum()) / len(values)
    return float(stats.t.ppf(0.975, len(names) - 1) * error)
