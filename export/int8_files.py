"""The INT8 files: ranges are found once on the float ONNX files and serve both engines."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed, ImageFeed, best_masks, decoder_feeds
from tinysam.calibration.judge import mask_iou
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_constants import pack_constants
from tinysam.calibration.tflite_int8 import quantize_tflite
from tinysam.calibration.tuned_files import tune_onnx, tune_tflite
from tinysam.export.engine import load_engine
from tinysam.export.errors import ParityError
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import (
    ENCODE,
    TFLITE_PROMPTS,
    channels_last,
    decoder_inputs,
    encoder_inputs,
    fill_slots,
    model_file,
)
from tinysam.runtime import engines
from tinysam.runtime.contract import decode_name
from tinysam.runtime.engines.onnx import open_session
from tinysam.runtime.manifest import ModelFile
from tinysam.runtime.quiet import quiet_native


@dataclass(frozen=True)
class Calibration:
    """Ranges of encoder and decoder, and what they were found on."""

    encoder: TensorRanges
    decoder: TensorRanges
    images: dict[str, Any]
    """Description of the image set."""

    def of(self, part: str) -> TensorRanges:
        """Ranges of `encoder` or `decoder`."""
        return self.encoder if part == "encoder" else self.decoder


@dataclass(frozen=True)
class Run:
    """One photograph with everything that is asked about it."""

    image: Floats
    """(1, 3, S, S)."""
    size: tuple[int, int]
    """(height, width) of the photograph inside the square."""
    embedding: Floats
    """Of the float model."""
    prompts: list[Feed]
    """Decoder inputs of the ONNX file without the embedding."""


def session(path: Path) -> ort.InferenceSession:
    """A quiet session with every core."""
    return open_session(path, engines.usable_cores())


@dataclass(frozen=True)
class OnnxModel:
    """Encoder and decoder in onnxruntime, without a manifest."""

    encoder: ort.InferenceSession
    decoder: ort.InferenceSession

    def encode(self, image: Floats) -> Floats:
        """(1, 3, S, S) -> (1, dim, grid, grid)."""
        embedding: Floats = self.encoder.run(None, {"image": image})[0]
        return embedding

    def decode(self, embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        """Low-res masks and predicted IoU."""
        masks, iou = self.decoder.run(None, decoder_inputs("onnx", embedding, feed))
        return masks, iou


def float_model(folder: Path) -> OnnxModel:
    """The float ONNX files."""
    return OnnxModel(session(folder / "encoder.fp32.onnx"), session(folder / "decoder.fp32.onnx"))


def calibration_runs(model: OnnxModel, feeds: list[ImageFeed], low_res: int, seed: int) -> list[Run]:
    """What both graphs are observed on: the decoder gets real embeddings and prompts of each image."""
    runs = []
    for i, feed in enumerate(feeds):
        embedding = model.encode(feed.image)
        made = decoder_feeds(embedding, feed.size, model.decode, low_res, np.random.default_rng([seed, i]))
        prompts = [without_embedding(decoder_inputs("onnx", embedding, prompt)) for prompt in made]
        runs.append(Run(feed.image, feed.size, embedding, prompts))
    return runs


def without_embedding(inputs: dict[str, Floats]) -> Feed:
    """Decoder inputs but the embedding."""
    return {name: values for name, values in inputs.items() if name != "image_embeddings"}


def calibrate_files(folder: Path, runs: list[Run], description: dict[str, Any], method: str) -> Calibration:
    """Ranges of both float ONNX files in `folder`."""
    encoder = calibrate(folder / "encoder.fp32.onnx", ({"image": run.image} for run in runs), method)
    prompts = ({"image_embeddings": run.embedding, **prompt} for run in runs for prompt in run.prompts)
    return Calibration(encoder, calibrate(folder / "decoder.fp32.onnx", prompts, method), description)


def write_part(
    folder: Path, part: str, engine: str, found: TensorRanges, target: str, keep_float: frozenset[str]
) -> dict[str, Any]:
    """Writes one INT8 file next to its float file."""
    destination, source = folder / f"{part}.int8.{engine}", folder / f"{part}.fp32.{engine}"
    tuned, tuned_onnx = folder / f"{part}.tuned.{engine}", folder / f"{part}.tuned.onnx"
    tune_onnx(folder / f"{part}.fp32.onnx", tuned_onnx, found)
    if engine == "onnx":
        facts = quantize_onnx(tuned, destination, found, OnnxScheme(target, keep_float, attention=part == "encoder"))
    else:
        tune_tflite(source, tuned, Graph(onnx.load(folder / f"{part}.fp32.onnx")), found)
        with quiet_native():
            facts = quantize_tflite(tuned, destination, Graph(onnx.load(tuned_onnx)), found, keep_float)
        destination.write_bytes(pack_constants(destination.read_bytes()))
    for path in {tuned, tuned_onnx}:
        path.unlink()
    return facts


def write_int8(
    folder: Path,
    engine: str,
    calibration: Calibration,
    target: str,
    image_size: int,
    masks: int,
    keep_float: frozenset[str] = frozenset(),
) -> list[ModelFile]:
    """Writes encoder and decoder for one engine; `keep_float` holds `encoder/<node>` and `decoder/<node>`."""
    files = []
    for part in ("encoder", "decoder"):
        kept = frozenset(name.removeprefix(f"{part}/") for name in keep_float if name.startswith(f"{part}/"))
        facts = write_part(folder, part, engine, calibration.of(part), target, kept)
        file = model_file(folder, part, "int8", engine, image_size, masks)
        files.append(replace(file, quantization={**facts, "calibration": calibration.images}))
    return files


class FileModel:
    """Encoder and decoder files of one engine as functions, for `tinysam.calibration.judge`."""

    def __init__(self, folder: Path, pair: list[ModelFile]) -> None:
        self.engine = pair[0].engine
        self.encoder, self.decoder = (load_engine(folder, file) for file in pair)

    def encode(self, image: Floats) -> Floats:
        """(1, 3, S, S) -> embedding in the engine's layout."""
        name = "" if self.engine == "onnx" else ENCODE
        return self.encoder.run(name, encoder_inputs(self.engine, image))["image_embeddings"]

    def decode(self, embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        """Low-res masks and predicted IoU."""
        found = decode(self.decoder, self.engine, embedding, feed)
        return found["low_res_masks"], found["iou_predictions"]


def check_int8(folder: Path, files: list[ModelFile], cases: list[ReferenceCase], least: float) -> dict[str, Any]:
    """Runs the INT8 encoder and decoder one after the other and compares the chosen masks with PyTorch's.

    Raises:
        ParityError: a value is not finite, or the mean IoU of the masks is below `least`.
    """
    model = FileModel(folder, files)
    agreement, same = [], []
    for case in cases:
        embedding = model.encode(case.image)
        for prompts, answer in zip(case.prompts, case.answers, strict=True):
            masks, iou = model.decode(embedding, prompts)
            if not (np.isfinite(masks).all() and np.isfinite(iou).all()):
                raise ParityError(f"{files[1].path}: INT8 outputs are not finite; nothing was published")
            same += list(iou.argmax(1) == answer["iou_predictions"].argmax(1))
            expected = best_masks(answer["low_res_masks"], answer["iou_predictions"])
            agreement += list(mask_iou(best_masks(masks, iou) > 0, expected > 0))
    mean = float(np.mean(agreement))
    if mean < least:
        raise ParityError(
            f"{files[0].path} and {files[1].path}: INT8 masks agree with PyTorch's by a mean IoU of {mean:.3f}, "
            f"at least {least} needed; calibrate on photographs like yours (--calib-dir) or lower --least-mask-iou"
        )
    return {"reference": "torch", "mask_iou": mean, "same_mask": float(np.mean(same)), "tolerance": least}


def decode(decoder: engines.Engine, engine: str, embedding: Floats, prompts: Feed) -> dict[str, Floats]:
    """Decodes prompts from an embedding in the engine's own layout."""
    if engine == "onnx":
        return decoder.run("", decoder_inputs("onnx", embedding, prompts))
    count, points = prompts["point_labels"].shape
    slots = next(slots for _, slots in TFLITE_PROMPTS if slots >= points)
    parts = []
    for i in range(count):
        one = {k: v[i : i + 1] if k.startswith("point") else v for k, v in prompts.items()}
        filled = {**fill_slots(one, 1, slots), "image_embeddings": embedding}
        filled["mask_input"] = channels_last(filled["mask_input"])
        parts.append(decoder.run(decode_name(1, slots), filled))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
