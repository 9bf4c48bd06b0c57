"""Model files in their engines, and models that are asked as calibration asks them.

LiteRT announces its delegate on standard error at the first run of a process, in the middle of a line of progress; this
run is therefore made here, quietly.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed, ImageFeed
from tinysam.runtime import engines
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.engines.onnx import OnnxEngine
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import Manifest, ModelFile
from tinysam.runtime.model import Model
from tinysam.runtime.process import quiet_native
from tinysam.runtime.prompts import Prompts


class FeedModel:
    """A model whose photographs and prompts are the feeds of `tinysam.calibration.feeds`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def encode(self, feed: ImageFeed) -> Floats:
        """Photograph -> embedding in the model's own layout."""
        return self.model.encode(self.model.encoder_input(feed.pixels))

    def decode(self, embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        """Low-res masks (P, masks, h, w) and predicted IoU (P, masks)."""
        mask = feed["mask_input"] if feed["has_mask_input"][0] else None
        return self.model.decode(embedding, Prompts(feed["point_coords"], feed["point_labels"], mask))


def open_files(folder: Path, manifest: Manifest, files: list[ModelFile], threads: int | None = None) -> Graphs:
    """Encoder and decoder of one engine and precision, ready to run; without `threads` on every core.

    Args:
        folder: with the files; its own manifest is not read.
        manifest: of the model, whatever files it lists.
        files: the encoder and the decoder.
        threads: for the operations of one run.
    """
    first = files[0]
    graphs = Graphs(folder, first.engine, first.precision, threads, replace(manifest, files=tuple(files)))
    if FORMATS[graphs.backend].announces:
        with quiet_native():
            graphs.encode(graphs.encoder_input(np.zeros((1, 1, 3), np.uint8)))
    return graphs


def with_graph(floats: Graphs, part: str, graph: onnx.ModelProto) -> Graphs:
    """The float ONNX files, but `encoder` or `decoder` is another graph with the same tensors, which is no file."""
    file = floats.manifest.find(part, floats.backend, floats.precision)
    engine = OnnxEngine(floats.folder / file.path, file, floats.threads, graph.SerializeToString())
    return floats.with_engine(part, engine)


def load_engine(folder: Path, file: ModelFile, threads: int) -> engines.Engine:
    """One file of an artifact folder, ready to run."""
    with quiet_native():
        engine = engines.load(folder / file.path, file, threads)
        if FORMATS[file.engine].announces:
            name, signature = next(iter(file.signatures.items()))
            shapes = {key: [int(n) for n in spec.shape] for key, spec in signature.inputs.items()}
            engine.run(name, {key: np.zeros(shapes[key], spec.dtype) for key, spec in signature.inputs.items()})
    return engine
