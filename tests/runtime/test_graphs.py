"""What depends on a photograph alone is computed once for it, however many points are asked."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysam.runtime import engines
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.prompts import Prompts

CLICKS = Prompts(
    np.array([[[100, 200], [0, 0]], [[300, 50], [0, 0]]], np.float32), np.array([[1, -1], [1, -1]], np.float32), None
)


class Spy:
    """An engine that notes which signatures are run."""

    def __init__(self, engine: engines.Engine) -> None:
        self.engine, self.runs = engine, []

    def run(self, signature: str, inputs: Any) -> Any:
        self.runs.append(signature)
        return self.engine.run(signature, inputs)


@pytest.fixture(scope="module")
def plain(real_artifacts: Path) -> Graphs:
    return Graphs(real_artifacts, "tflite", "int8", 1)


@pytest.fixture
def spied(plain: Graphs) -> tuple[Graphs, Spy]:
    file = plain.manifest.find("decoder", "tflite", "int8")
    spy = Spy(engines.load(plain.folder / file.path, file, 1))
    return plain.with_engine("decoder", spy), spy


@pytest.fixture(scope="module")
def embeddings(plain: Graphs) -> list[np.ndarray]:
    """Of two pictures of coloured blocks."""
    pictures = np.random.default_rng(0).integers(0, 255, (2, 7, 7, 3)).repeat(64, 1).repeat(64, 2)
    return [plain.encode(plain.encoder_input(picture.astype(np.uint8))) for picture in pictures]


def test_each_photograph_is_prepared_once(spied: tuple[Graphs, Spy], embeddings: list[np.ndarray]) -> None:
    graphs, spy = spied
    for embedding in (embeddings[0], embeddings[0], embeddings[1]):
        graphs.decode_above(embedding, CLICKS, 9.0)
    assert spy.runs == ["prepare", *["attend_1x2"] * 4, "prepare", *["attend_1x2"] * 2]


def test_a_lone_prompt_prepares_nothing(spied: tuple[Graphs, Spy], embeddings: list[np.ndarray]) -> None:
    graphs, spy = spied
    graphs.decode(embeddings[0], Prompts(CLICKS.coords[:1], CLICKS.labels[:1], None))
    assert spy.runs == ["decode_1x2"]


def test_a_model_with_another_decoder_prepares_anew(spied: tuple[Graphs, Spy], embeddings: list[np.ndarray]) -> None:
    graphs, spy = spied
    graphs.decode_above(embeddings[0], CLICKS, 9.0)
    other = graphs.with_engine("decoder", Spy(spy.engine))
    other.decode_above(embeddings[0], CLICKS, 9.0)
    assert other._loaded["decoder"].runs[0] == "prepare"


def test_threads_with_photographs_of_their_own(spied: tuple[Graphs, Spy], embeddings: list[np.ndarray]) -> None:
    graphs, spy = spied
    expected = [graphs.decode_above(embedding, CLICKS, -np.inf).masks for embedding in embeddings]
    spy.runs.clear()

    def ask(embedding: np.ndarray) -> list[np.ndarray]:
        return [graphs.decode_above(embedding, CLICKS, -np.inf).masks for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        for found, masks in zip(pool.map(ask, embeddings), expected, strict=True):
            assert all(np.array_equal(one, masks) for one in found)
    assert spy.runs.count("prepare") == 2
