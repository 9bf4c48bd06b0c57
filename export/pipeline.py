"""The export from checkpoint to published artifact folder.

Float files are written and checked first, INT8 files are made from them, and the folder is moved into place last.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinysam.calibration.feeds import image_feeds
from tinysam.calibration.images import ImageSet, load_image_set
from tinysam.export import float_files
from tinysam.export.int8.pipeline import Quantization, quantization_steps
from tinysam.export.parity import check_file
from tinysam.export.progress import Progress
from tinysam.export.publish import publish, workspace
from tinysam.export.reference import ReferenceCase, reference_cases
from tinysam.export.settings import ExportSettings, fingerprint, tool_versions
from tinysam.export.tensors import model_file
from tinysam.export.torch_model import manifest_of
from tinysam.models.checkpoint import load, weights_path
from tinysam.models.sam import Sam
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import (
    Manifest,
    ModelFile,
    read_manifest,
    sha256_file,
    verify_file,
    write_manifest,
)


def empty_manifest(settings: ExportSettings, source: dict[str, Any]) -> Manifest:
    """The manifest without files: preprocessing, thresholds, origin."""
    manifest = manifest_of(settings.variant, settings.image_size, settings.mask_tokens)
    return replace(manifest, source=source, tools=tool_versions())


def up_to_date(folder: Path, key: str) -> bool:
    """Whether `folder` holds, undamaged, what an export with this fingerprint would write."""
    try:
        manifest = read_manifest(folder)
        for file in manifest.files:
            verify_file(folder, file)
    except (OSError, ArtifactError):
        return False
    return manifest.source.get("fingerprint") == key


def write_float(
    sam: Sam, settings: ExportSettings, cases: list[ReferenceCase], folder: Path, engine: str, progress: Progress
) -> list[ModelFile]:
    """Writes and checks encoder and decoder for one engine."""
    files = []
    for part in ("encoder", "decoder"):
        path = folder / f"{part}.fp32.{engine}"
        with progress.step(f"{part} {engine} fp32") as details:
            if part == "encoder":
                write = float_files.write_encoder_onnx if engine == "onnx" else float_files.write_encoder_tflite
                write(sam, cases[0], path)
                checks = float_files.encoder_cases(engine, cases)
            else:
                write_decoder = float_files.write_decoder_onnx if engine == "onnx" else float_files.write_decoder_tflite
                write_decoder(sam, settings.mask_tokens, cases[0], path)
                checks = float_files.decoder_cases(engine, cases)
            file = model_file(folder, part, "fp32", engine, settings.image_size, len(settings.mask_tokens))
            parity = check_file(folder, file, checks, usable_cores())
            details.append(f"({file.size_bytes / 1e6:.1f} MB, relative error {parity['relative_error']:.1e})")
        files.append(replace(file, parity=parity))
    return files


def cache_path(settings: ExportSettings, key: str) -> Path:
    """Where the search keeps its results until they are published; they hold for one fingerprint."""
    return settings.out / f".{settings.folder.name}.search-{key[:16]}.json"


def export(settings: ExportSettings) -> bool:
    """Exports, unless the folder is up to date already; True if something was written.

    Raises:
        ExportError: the output cannot be written, or a conversion failed.
        ParityError: a file does not compute what PyTorch computes.
        CheckpointError: the checkpoint cannot be used.
        CalibrationError: the images or the graph cannot be used.
    """
    checkpoint = weights_path(settings.variant, settings.checkpoint)
    sam = load(settings.variant, settings.checkpoint, settings.image_size)
    images = load_image_set(settings.calib, settings.calib_count, settings.seed, settings.image_size)
    checkpoint_sha256 = sha256_file(checkpoint)
    key = fingerprint(settings, checkpoint_sha256, images.sha256)
    if up_to_date(settings.folder, key):
        return False
    source = {"checkpoint": checkpoint.name, "sha256": checkpoint_sha256, "fingerprint": key}
    cache = cache_path(settings, key)
    with workspace(settings.folder) as folder:
        manifest = write_files(sam, settings, images, empty_manifest(settings, source), folder, cache)
        write_manifest(manifest, folder)
        publish(folder, settings.folder)
    cache.unlink(missing_ok=True)
    return True


def write_files(
    sam: Sam, settings: ExportSettings, images: ImageSet, manifest: Manifest, folder: Path, cache: Path
) -> Manifest:
    """Writes every file that was asked for; float files that only served as a source are removed."""
    smaller = bool({"int8", "fp16"} & set(settings.precisions))
    # Smaller files of either engine are calibrated on the float ONNX files.
    floats_of = ("onnx", *(f for f in settings.formats if f != "onnx")) if smaller else settings.formats
    progress = Progress(1 + 2 * len(floats_of) + smaller * quantization_steps(settings))
    feeds = list(image_feeds(images.images, manifest))
    with progress.step("reference: PyTorch on photographs"):
        cases = reference_cases(sam, settings.mask_tokens, feeds)
    files = [f for engine in floats_of for f in write_float(sam, settings, cases, folder, engine, progress)]
    if smaller:
        files += Quantization(sam, settings, images, feeds, cases, files, folder, progress).run(cache)
    wanted = [f for f in files if f.precision in settings.precisions and f.engine in settings.formats]
    for file in files:
        if file not in wanted:
            (folder / file.path).unlink()
    return replace(manifest, files=tuple(wanted))
