"""The search for scales, fed with the photographs and prompts of the calibration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tinysam.calibration.fisher import record_fisher
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.search_graph import GraphSearch, SearchCache
from tinysam.export.decoder_graph import SelectiveDecoder, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.int8.files import Run
from tinysam.export.int8.part import Calibration, float_graph
from tinysam.models.sam import Sam

MOST_IMAGES = 32
"""Photographs of which gradients are taken."""


def graphs(sam: Sam, mask_tokens: tuple[int, ...]) -> dict[str, nn.Module]:
    """The PyTorch graphs behind the ONNX files, with the same names of parameters."""
    return {
        "encoder": encoder_graph(sam.image_encoder, sam.image_size),
        "decoder": SelectiveDecoder(decoder_graph(sam, mask_tokens)).eval(),
    }


def search(
    folder: Path,
    modules: dict[str, nn.Module],
    start: Calibration,
    runs: list[Run],
    cache: Path,
    seed: int,
    tell: Callable[[int, int], None],
) -> Calibration:
    """Better ranges, weight limits and biases for both parts.

    Args:
        folder: with the float ONNX files.
        modules: of `graphs`.
        start: ranges to start from.
        runs: photographs and prompts.
        cache: where results are kept until the export is published.
        seed: of everything that is drawn.
        tell: is told how many of how many activations are done.
    """
    for part, module in modules.items():
        changed = {name: torch.from_numpy(value) for name, value in start.equalized[part].values.items()}
        module.load_state_dict(changed, strict=False)
    some = ((run.feed.image, run.size, run.prompts) for run in runs[:MOST_IMAGES])
    samples = record_fisher(modules["encoder"], modules["decoder"], some, seed)
    kept = SearchCache(cache)
    jobs = {
        part: GraphSearch(part, Graph(float_graph(folder, part)), module, samples, start.ranges[part])
        for part, module in modules.items()
    }
    total = sum(len(job.start.ranges) for job in jobs.values())
    for done, _ in enumerate(step for job in jobs.values() for step in job.run(kept)):
        tell(done + 1, total)
    return replace(start, ranges={part: job.result(kept) for part, job in jobs.items()})
