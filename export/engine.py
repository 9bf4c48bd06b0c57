"""Model files in their engines, and models that are asked as calibration asks them."""

from dataclasses import replace
from pathlib import Path

import onnx

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed, ImageFeed
from tinysam.runtime.engines.onnx import OnnxEngine
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import Manifest, ModelFile
from tinysam.runtime.model import Model
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
    return graphs.with_quiet_start()


def with_graph(floats: Graphs, part: str, graph: onnx.ModelProto) -> Graphs:
    """The float ONNX files, but `encoder` or `decoder` is another graph with the same tensors, which is no file."""
    file = floats.manifest.find(part, floats.backend, floats.precision)
    engine = OnnxEngine(floats.folder / file.path, file, floats.threads, graph.SerializeToString())
    return floats.with_engine(part, engine)
