"""The textbook generator that everything mode is timed against finds what the runtime's plain grid finds."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.evaluation.bench_everything import Seconds, textbook, threshold_for
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.prompts import Prompts


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    return Segmenter(disc_model.build(tmp_path), precision="fp32", threads=1)


class TorchDiscs:
    """The disc model behind the interface of `tinysam.models.Sam`, with a single mask in front that is never good."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def decode(self, embedding: torch.Tensor, coords: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
        prompts = Prompts(coords.numpy(), labels.numpy().astype(np.float32))
        masks, iou = (torch.from_numpy(part) for part in self.segmenter.decode(prompts))
        return SimpleNamespace(
            low_res_masks=torch.cat([torch.full_like(masks[:, :1], 9.0), masks], dim=1),
            iou=torch.cat([torch.ones_like(iou[:, :1]), iou], dim=1),
        )


def test_the_textbook_finds_what_the_plain_grid_finds(segmenter: Segmenter) -> None:
    settings = EverythingSettings.of_model(
        disc_model.THRESHOLDS, points_per_side=6, stability_score_thresh=0.6, hierarchical=False
    )
    found = segment_everything(segmenter, picture(200, 150), settings)
    segmenter.set_image(picture(200, 150))
    count = textbook(TorchDiscs(segmenter), torch.zeros(1), segmenter.frame, settings)  # type: ignore[arg-type]
    assert count > 20
    assert abs(count - len(found.masks)) <= 0.1 * count  # boxes of whole pixels decide close calls differently
    half = replace(settings, points_per_side=16)
    counts = [
        textbook(TorchDiscs(segmenter), torch.zeros(1), segmenter.frame, half, batches)  # type: ignore[arg-type]
        for batches in (1, 4)
    ]
    assert 0 < counts[0] < counts[1]


def test_the_threshold_lets_a_share_of_the_masks_pass(segmenter: Segmenter) -> None:
    low, high = (threshold_for(share, segmenter, picture(200, 150)) for share in (0.5, 0.1))
    points = EverythingSettings(points_per_side=8).grid(0) * [200, 150]
    _, iou = segmenter.decode(segmenter.prompts(points[:, None], np.ones((64, 1))))
    assert (iou > low).mean() == pytest.approx(0.5, abs=0.02)
    assert (iou > high).mean() == pytest.approx(0.1, abs=0.02)


def test_a_row_says_how_many_times_as_fast() -> None:
    line = Seconds(2.0, 3.0).line("onnx int8", Seconds(8.0, 15.0), "64 points")
    assert " ".join(line.split()) == "onnx int8 2.00 s wall 4.0 x 3.00 s cpu 5.0 x 64 points"
