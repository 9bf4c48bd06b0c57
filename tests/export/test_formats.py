"""A file format is added to the exporter by a writer."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinysam.export import formats
from tinysam.export.errors import ExportError, ParityError
from tinysam.export.formats.tflite import TfliteQuantizer
from tinysam.export.pipeline import write_float
from tinysam.export.progress import Progress
from tinysam.export.settings import ExportSettings
from tinysam.models.variants import get_variant
from tinysam.runtime.engines.formats import FORMATS, FileFormat, Package
from tinysam.runtime.manifest import ModelFile

SIZE, GRID = 64, 4


class TableEngine:
    """Answers with the arrays that stand in its file."""

    def __init__(self, path: Path, file: ModelFile, threads: int) -> None:
        with np.load(path) as table:
            self.answers = dict(table)

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.answers


class TableWriter(formats.Writer):
    """Writes what PyTorch answers in the only case."""

    form = FileFormat("table", "Table", (Package("numpy", "numpy", (1, 0)),), "table_driver", "NHWC", "")
    tolerance = 1e-6
    quantizer = TfliteQuantizer
    error = 0.0

    def write_encoder(self, sam: Any, case: Any, path: Path) -> None:
        embedding = case.embedding.transpose(0, 2, 3, 1) + self.error
        with path.open("wb") as stream:
            np.savez(stream, image_embeddings=embedding)

    def write_decoder(self, sam: Any, mask_tokens: tuple[int, ...], case: Any, path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, **case.answers[0])


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> TableWriter:
    made, driver = TableWriter(), ModuleType("table_driver")
    driver.ENGINE = TableEngine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "table_driver", driver)
    monkeypatch.setitem(FORMATS, "table", made.form)
    monkeypatch.setitem(formats.WRITERS, "table", made)
    return made


def write(folder: Path) -> list[ModelFile]:
    """Writes both float files, with one photograph and one click for a model that is not needed."""
    random = np.random.default_rng(0)
    prompts = {
        "point_coords": np.zeros((1, 2, 2), np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 16, 16), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    answer = {"low_res_masks": random.random((1, 4, 16, 16)), "iou_predictions": random.random((1, 4))}
    case: Any = SimpleNamespace(
        image=random.random((1, 3, SIZE, SIZE), np.float32),
        embedding=random.random((1, 256, GRID, GRID), np.float32),
        prompts=(prompts,),
        answers=({name: values.astype(np.float32) for name, values in answer.items()},),
    )
    nano = get_variant("nano")
    settings = ExportSettings(nano, None, 448, ("fp32",), ("table",), "arm", None, 1, folder)
    sam: Any = None
    return write_float(sam, settings, [case], folder, "table", Progress(2))


def test_a_format_is_added_by_a_writer(tmp_path: Path, writer: TableWriter) -> None:
    encoder, decoder = write(tmp_path)
    assert (encoder.path, encoder.engine, encoder.layout) == ("encoder.fp32.table", "table", "NHWC")
    assert decoder.signatures[""].inputs["mask_input"].shape == (1, 112, 112, 1)
    assert encoder.parity == {"reference": "torch", "relative_error": 0.0, "tolerance": 1e-6, "cases": 1}


def test_the_tolerance_is_the_writers(tmp_path: Path, writer: TableWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "error", 1e-5)
    with pytest.raises(ParityError, match=r"encoder\.fp32\.table: image_embeddings differs .* tolerance 1e-06"):
        write(tmp_path)


def test_formats_without_fp16_are_refused_it(tmp_path: Path, writer: TableWriter) -> None:
    with pytest.raises(ExportError, match="precision fp16: table files have none; add --format tflite"):
        ExportSettings(get_variant("nano"), None, 448, ("fp16",), ("table",), "arm", None, 1, tmp_path)
