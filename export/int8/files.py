"""The INT8 files: made from equalized float graphs, with ranges found once, on ONNX, for both engines."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.blocks import Block, blocks_of
from tinysam.calibration.equalization import Equalized, equalize
from tinysam.calibration.feeds import Feed, ImageFeed, best_masks, decoder_feeds
from tinysam.calibration.half import allow_half
from tinysam.calibration.judge import mask_iou
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.parameters import clipped_weights, replace_onnx, replace_tflite
from tinysam.calibration.pixel_input import take_pixels_onnx, take_pixels_tflite
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_constants import dequantize_code, pack_constants, to_bytes
from tinysam.calibration.tflite_int8 import quantize_tflite
from tinysam.export.engine import load_engine
from tinysam.export.errors import ParityError
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import (
    TFLITE_PROMPTS,
    channels_last,
    decoder_inputs,
    fill_slots,
    model_file,
)
from tinysam.models.sam import MEAN, STD
from tinysam.runtime import engines
from tinysam.runtime.contract import Sizes, decode_name, signatures
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.engines.onnx import open_session
from tinysam.runtime.manifest import ModelFile
from tinysam.runtime.quiet import quiet_native

PARTS = ("encoder", "decoder")


@dataclass(frozen=True)
class Calibration:
    """What INT8 files are made with, and what it was found on."""

    equalized: dict[str, Equalized]
    """By part."""
    ranges: dict[str, TensorRanges]
    """By part, of the equalized graphs."""
    images: dict[str, Any]
    """Description of the image set."""


@dataclass(frozen=True)
class Run:
    """One photograph with everything that is asked about it."""

    feed: ImageFeed
    embedding: Floats
    """Of the float model."""
    prompts: list[Feed]
    """Decoder inputs of the ONNX file without the embedding."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph inside the square."""
        return self.feed.size


def session(source: Path | bytes) -> ort.InferenceSession:
    """A quiet session with every core."""
    return open_session(source, engines.usable_cores())


@dataclass(frozen=True)
class OnnxModel:
    """Encoder and decoder in onnxruntime, without a manifest; the image is normalized."""

    encoder: ort.InferenceSession
    decoder: ort.InferenceSession

    def encode(self, feed: ImageFeed) -> Floats:
        """Photograph -> (1, dim, grid, grid)."""
        embedding: Floats = self.encoder.run(None, {"image": feed.image})[0]
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
        embedding = model.encode(feed)
        made = decoder_feeds(embedding, feed.size, model.decode, low_res, np.random.default_rng([seed, i]))
        prompts = [without_embedding(decoder_inputs("onnx", embedding, prompt)) for prompt in made]
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


def calibrate_parts(
    folder: Path, feeds_of: dict[str, list[dict[str, Floats]]], description: dict[str, Any], method: str
) -> Calibration:
    """The same for some parts, with their inputs."""
    equalized, ranges = {}, {}
    for part, feeds in feeds_of.items():
        source = onnx.load(folder / f"{part}.fp32.onnx")
        equalized[part] = equalize(source, feeds)
        ranges[part] = calibrate(replace_onnx(source, equalized[part].values), feeds, method)
    return Calibration(equalized, ranges, description)


class PartQuantizer:
    """Makes INT8 files of one part as often as asked; what they have in common is computed once.

    Args:
        folder: with the float files.
        part: `encoder` or `decoder`.
        calibration: of these float files.
        target: processor of the ONNX files, `arm` or `x86`.
        patterns: names of the graph's blocks, see `tinysam.calibration.blocks.block_name`.
    """

    def __init__(
        self, folder: Path, part: str, calibration: Calibration, target: str, patterns: tuple[str, ...]
    ) -> None:
        self.folder, self.part, self.target, self.patterns = folder, part, target, patterns
        self.half = False
        """Whether TFLite files may compute in fp16 what they compute in float, see `try_half`."""
        self.found, self.values = calibration.ranges[part], calibration.equalized[part].values

    @cached_property
    def source(self) -> onnx.ModelProto:
        """The float graph as it was exported."""
        return onnx.load(self.folder / f"{self.part}.fp32.onnx")

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The float graph that is quantized."""
        return replace_onnx(self.source, self.parameters)

    @cached_property
    def parameters(self) -> dict[str, Floats]:
        """Every parameter that is another than in the float files: equalized, and clipped by the search."""
        equalized = replace_onnx(self.source, self.values)
        return self.values | clipped_weights(equalized, self.found.weight_limits)

    @cached_property
    def tflite(self) -> bytes:
        """The float TFLite file that is quantized."""
        model = schema.ModelT.InitFromPackedBuf((self.folder / f"{self.part}.fp32.tflite").read_bytes(), 0)
        replace_tflite(model, self.source, self.parameters)
        return to_bytes(model)

    @cached_property
    def blocks(self) -> list[Block]:
        """The graph's blocks."""
        return blocks_of(Graph(self.source), self.found.observations, self.patterns)

    @property
    def always_float(self) -> frozenset[str]:
        """Nodes of the block that reads the photograph."""
        return frozenset(node for block in self.blocks if block.reads_image for node in block.nodes)

    def onnx_model(self, keep_float: frozenset[str]) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """INT8 graph that takes what the float graph takes, and what the manifest says of it."""
        scheme = OnnxScheme(self.target, keep_float | self.always_float, attention=self.part == "encoder")
        return quantize_onnx(self.graph, self.found, scheme)

    def write_onnx(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """Writes the INT8 ONNX file; what the manifest says of it."""
        model, facts = self.onnx_model(keep_float)
        if self.part == "encoder":
            take_pixels_onnx(model, MEAN, STD)
        onnx.save(model, self.folder / f"{self.part}.int8.onnx")
        return facts

    def write_tflite(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """Writes the INT8 TFLite file; what the manifest says of it.

        What is float in an encoder runs in fp16, if the model bears that and the processor can; in a decoder it does
        not, see `tinysam.calibration.half`.
        """
        with quiet_native():
            content, facts = quantize_tflite(self.tflite, Graph(self.graph), self.found, keep_float | self.always_float)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        if self.part == "encoder":
            take_pixels_tflite(model, MEAN, STD, dequantize_code(model))
        pack_constants(model)
        if self.half and self.part == "encoder":
            allow_half(model)
        (self.folder / f"{self.part}.int8.tflite").write_bytes(to_bytes(model))
        return facts

    def write(self, engine: str, keep_float: frozenset[str]) -> dict[str, Any]:
        """Writes the INT8 file of one engine; what the manifest says of it."""
        return {"onnx": self.write_onnx, "tflite": self.write_tflite}[engine](keep_float)


def write_int8(
    folder: Path,
    engine: str,
    quantizers: dict[str, PartQuantizer],
    images: dict[str, Any],
    image_size: int,
    masks: int,
    keep_float: frozenset[str] = frozenset(),
) -> list[ModelFile]:
    """Writes encoder and decoder for one engine; `keep_float` holds `encoder/<node>` and `decoder/<node>`."""
    files = []
    for part, quantizer in quantizers.items():
        kept = frozenset(name.removeprefix(f"{part}/") for name in keep_float if name.startswith(f"{part}/"))
        facts = quantizer.write(engine, kept)
        file = model_file(folder, part, "int8", engine, image_size, masks)
        if part == "encoder":
            tensors = signatures(part, FORMATS[engine], Sizes(image_size, masks), "pixels", "uint8")
            file = replace(file, input="pixels", signatures=tensors)
        files.append(replace(file, quantization={**facts, "calibration": images}))
    return files


class FileModel:
    """Encoder and decoder files of one engine as functions, for `tinysam.calibration.judge`."""

    def __init__(self, folder: Path, pair: list[ModelFile]) -> None:
        self.engine, self.file = pair[0].engine, pair[0]
        self.encoder, self.decoder = (load_engine(folder, file) for file in pair)

    def encode(self, feed: ImageFeed) -> Floats:
        """Photograph -> embedding in the engine's layout."""
        (name,) = self.file.signatures
        return self.encoder.run(name, {"image": feed.input_of(self.file)})["image_embeddings"]

    def decode(self, embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        """Low-res masks and predicted IoU."""
        found = decode(self.decoder, self.engine, embedding, feed)
        return found["low_res_masks"], found["iou_predictions"]


def check_masks(folder: Path, files: list[ModelFile], cases: list[ReferenceCase]) -> dict[str, Any]:
    """Runs encoder and decoder one after the other and compares the chosen masks with PyTorch's.

    Raises:
        ParityError: a value is not finite.
    """
    model = FileModel(folder, files)
    agreement, same = [], []
    for case in cases:
        embedding = model.encode(case.feed)
        for prompts, answer in zip(case.prompts, case.answers, strict=True):
            masks, iou = model.decode(embedding, prompts)
            if not (np.isfinite(masks).all() and np.isfinite(iou).all()):
                raise ParityError(f"{files[1].path}: outputs are not finite; nothing was published")
            same += list(iou.argmax(1) == answer["iou_predictions"].argmax(1))
            expected = best_masks(answer["low_res_masks"], answer["iou_predictions"])
            agreement += list(mask_iou(best_masks(masks, iou) > 0, expected > 0))
    return {"reference": "torch", "mask_iou": float(np.mean(agreement)), "same_mask": float(np.mean(same))}


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
