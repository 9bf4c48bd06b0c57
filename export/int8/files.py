"""INT8 files of every format: runs of the float model for calibration, writing, and a check of the masks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed, ImageFeed, best_masks, decoder_feeds
from tinysam.calibration.judge import mask_iou
from tinysam.export.engine import FeedModel
from tinysam.export.errors import ParityError
from tinysam.export.formats import OBSERVED, WRITERS, Quantizer
from tinysam.export.int8.part import Calibration, Part, calibrate_parts
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import decoder_inputs, model_file
from tinysam.runtime.contract import Sizes, signatures
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import PARTS, ModelFile

Quantizers = dict[str, dict[str, Quantizer]]
"""Engine -> part -> what writes its files."""


@dataclass(frozen=True)
class Run:
    """One photograph with everything that is asked about it."""

    feed: ImageFeed
    embedding: Floats
    """Of the float model."""
    prompts: list[Feed]
    """Decoder inputs of the float ONNX file without the embedding."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph inside the square."""
        return self.feed.size


def calibration_runs(floats: Graphs, feeds: list[ImageFeed], seed: int) -> list[Run]:
    """What both graphs are observed on: the decoder gets real embeddings and prompts of each image."""
    model, low_res, runs = FeedModel(floats), floats.low_res_side, []
    for i, feed in enumerate(feeds):
        embedding = model.encode(feed)
        made = decoder_feeds(embedding, feed.size, model.decode, low_res, np.random.default_rng([seed, i]))
        prompts = [without_embedding(decoder_inputs(OBSERVED, embedding, prompt)) for prompt in made]
        runs.append(Run(feed, embedding, prompts))
    return runs


def without_embedding(inputs: dict[str, Floats]) -> Feed:
    """Decoder inputs but the embedding."""
    return {name: values for name, values in inputs.items() if name != "image_embeddings"}


def part_feeds(part: str, runs: list[Run]) -> list[dict[str, Floats]]:
    """Inputs of one part's ONNX graph."""
    if part == "encoder":
        return [{"image": run.feed.image} for run in runs]
    return [{"image_embeddings": run.embedding, **prompt} for run in runs for prompt in run.prompts]


def calibrate_files(folder: Path, runs: list[Run], description: dict[str, Any], method: str) -> Calibration:
    """Equalizes both float ONNX graphs in `folder`, and finds the ranges of the result."""
    return calibrate_parts(folder, {part: part_feeds(part, runs) for part in PARTS}, description, method)


def quantizers_of(parts: dict[str, Part], engines: tuple[str, ...], half: bool) -> Quantizers:
    """What writes the files of each engine; `half`: whether what is float in INT8 files may compute in fp16."""
    return {engine: {name: WRITERS[engine].quantizer(part, half) for name, part in parts.items()} for engine in engines}


def write_int8(
    quantizers: dict[str, Quantizer],
    images: dict[str, Any],
    image_size: int,
    masks: int,
    keep_float: frozenset[str] = frozenset(),
) -> list[ModelFile]:
    """Writes the parts of one engine; `keep_float` holds `encoder/<node>` and `decoder/<node>`."""
    files = []
    for part, quantizer in quantizers.items():
        kept = frozenset(name.removeprefix(f"{part}/") for name in keep_float if name.startswith(f"{part}/"))
        facts = quantizer.write_int8(kept)
        file = model_file(quantizer.part.folder, part, "int8", quantizer.form.name, image_size, masks)
        if part == "encoder":
            tensors = signatures(part, quantizer.form, Sizes(image_size, masks), "pixels", "uint8")
            file = replace(file, input="pixels", signatures=tensors)
        files.append(replace(file, quantization={**facts, "calibration": images}))
    return files


def check_masks(graphs: Graphs, cases: list[ReferenceCase]) -> dict[str, Any]:
    """Runs encoder and decoder one after the other and compares the masks of highest predicted IoU with PyTorch's.

    Raises:
        ParityError: a value is not finite.
    """
    model = FeedModel(graphs)
    agreement, same = [], []
    for case in cases:
        embedding = model.encode(case.feed)
        for prompts, answer in zip(case.prompts, case.answers, strict=True):
            masks, iou = model.decode(embedding, prompts)
            if not (np.isfinite(masks).all() and np.isfinite(iou).all()):
                raise ParityError(f"{graphs.backend} {graphs.precision}: outputs are not finite; nothing was published")
            same += list(iou.argmax(1) == answer["iou_predictions"].argmax(1))
            expected = best_masks(answer["low_res_masks"], answer["iou_predictions"])
            agreement += list(mask_iou(best_masks(masks, iou) > 0, expected > 0))
    return {"reference": "torch", "mask_iou": float(np.mean(agreement)), "same_mask": float(np.mean(same))}
