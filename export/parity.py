"""Every float file is run, through the runtime's own engines, and compared with the PyTorch model.

1. `encoder_cases`, `decoder_cases`: what a file is run on, signature by signature, and what it has to answer;
2. `compare`: names, shapes, and the relative error of every output;
3. `check_file`: all of it for one file, with the tolerance of its format.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinysam.calibration.arrays import Floats, relative_error
from tinysam.calibration.feeds import Feed
from tinysam.export.errors import ParityError
from tinysam.export.formats import WRITERS
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import cut, decoder_inputs, encoder_inputs, fill_slots, in_layout
from tinysam.runtime.contract import ATTEND, FREE, PREPARE, STAGE_POINTS, UPSCALE, decode_name
from tinysam.runtime.engines import Engine, load_quietly
from tinysam.runtime.engines.formats import FileFormat
from tinysam.runtime.manifest import ModelFile

Case = tuple[str, Mapping[str, Floats], Mapping[str, Floats]]
"""Signature, inputs, expected outputs."""


def encoder_cases(form: FileFormat, cases: list[ReferenceCase]) -> list[Case]:
    """What to run a format's float encoder on and what it must answer."""
    return [
        (form.encode, encoder_inputs(form, case.image), {"image_embeddings": in_layout(form, case.embedding)})
        for case in cases
    ]


def decoder_cases(form: FileFormat, cases: list[ReferenceCase]) -> list[Case]:
    """What to run a format's decoder on and what it must answer, for every signature that has room."""
    return [
        made
        for case in cases
        for prompts, answer in zip(case.prompts, case.answers, strict=True)
        for made in prompt_cases(form, case.embedding, prompts, answer)
    ]


def prompt_cases(form: FileFormat, embedding: Floats, prompts: Feed, answer: Mapping[str, Floats]) -> list[Case]:
    """The cases of one feed of prompts."""
    if not form.batches:
        return [(FREE, decoder_inputs(form, embedding, prompts), answer)]
    found: list[Case] = []
    count, points = prompts["point_labels"].shape
    for size, slots in form.batches:
        if points <= slots:
            rows = np.minimum(np.arange(size), count - 1)
            filled = decoder_inputs(form, embedding, cut(fill_slots(prompts, size, slots), size))
            expected = {name: values[rows] for name, values in answer.items()}
            found.append((decode_name(size, slots), filled, expected))
            if (size, slots) == (1, STAGE_POINTS) and not prompts["has_mask_input"][0]:
                found.append((ATTEND, filled, expected))
    return found


def compare(name: str, found: Mapping[str, Floats], expected: Mapping[str, Floats], tolerance: float) -> float:
    """Largest relative error over the outputs.

    Raises:
        ParityError: an output has another name or shape, or differs by more than the tolerance.
    """
    if set(found) != set(expected):
        raise ParityError(f"{name}: outputs are {sorted(found)}, expected {sorted(expected)}")
    worst = 0.0
    for output, want in expected.items():
        have = found[output]
        if have.shape != want.shape:
            raise ParityError(f"{name}: {output} has shape {have.shape}, expected {want.shape}")
        error = relative_error(have, want)
        if not error <= tolerance:
            difference = float(np.abs(have - want).max())
            raise ParityError(
                f"{name}: {output} differs from PyTorch by {error:.2e} (largest difference {difference:.3g}), "
                f"tolerance {tolerance:.0e}; nothing was published"
            )
        worst = max(worst, error)
    return worst


def run_decoder(decoder: Engine, signature: str, inputs: Feed) -> Feed:
    """Runs a decoder; all steps, if `signature` is the one of them that takes the prompt."""
    if signature != ATTEND:
        return decoder.run(signature, inputs)
    image = decoder.run(PREPARE, {"image_embeddings": inputs["image_embeddings"]})
    found = decoder.run(ATTEND, {**image, **{name: inputs[name] for name in ("point_coords", "point_labels")}})
    iou = found.pop("iou_predictions")
    return {**decoder.run(UPSCALE, found), "iou_predictions": iou}


def check_file(folder: Path, file: ModelFile, cases: list[Case], threads: int) -> dict[str, Any]:
    """Runs a float file; what the manifest says of it.

    Raises:
        ParityError: see `compare`.
    """
    engine = load_quietly(folder / file.path, file, threads)
    run = engine.run if file.part == "encoder" else partial(run_decoder, engine)
    tolerance = WRITERS[file.engine].tolerance
    errors = [
        compare(f"{file.path} {signature}".strip(), run(signature, dict(inputs)), expected, tolerance)
        for signature, inputs, expected in cases
    ]
    return {"reference": "torch", "relative_error": max(errors), "tolerance": tolerance, "cases": len(cases)}
