"""From checkpoint to published artifact folder: `export` writes all of it, `calibrate` the smaller files of it anew.

1. `load_inputs`: model, photographs, and the fingerprint of all that decides what comes out;
2. PyTorch's answers on some photographs, which every file has to give as well;
3. float files, written and checked; or those that are there;
4. INT8 and fp16 files, made from the float ones (`tinysam.export.int8.pipeline`);
5. the manifest; then the folder is moved into place.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tinysam.calibration.feeds import image_feeds
from tinysam.calibration.images import ImageSet, load_image_set
from tinysam.export.errors import ExportError
from tinysam.export.formats import OBSERVED, WRITERS
from tinysam.export.int8.pipeline import Quantization, quantization_steps
from tinysam.export.parity import check_file, decoder_cases, encoder_cases
from tinysam.export.progress import Progress
from tinysam.export.publish import publish, workspace
from tinysam.export.reference import ReferenceCase, reference_cases
from tinysam.export.settings import ExportSettings, fingerprint, tool_versions
from tinysam.export.tensors import model_file
from tinysam.export.torch_model import manifest_of
from tinysam.models.checkpoint import load, weights_path
from tinysam.models.sam import Sam
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import (
    PARTS,
    Manifest,
    ModelFile,
    read_manifest,
    sha256_file,
    verify_file,
    write_manifest,
)


@dataclass(frozen=True)
class Inputs:
    """What files are made of."""

    settings: ExportSettings
    checkpoint: Path
    sha256: str
    """Of the checkpoint."""
    sam: Sam
    images: ImageSet
    """Calibration photographs."""

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that decides the files."""
        return fingerprint(self.settings, self.sha256, self.images.sha256)

    @property
    def cache(self) -> Path:
        """Where the search keeps its results until they are published; they hold for one fingerprint."""
        return self.settings.out / f".{self.settings.folder.name}.search-{self.key[:16]}.json"

    @property
    def empty_manifest(self) -> Manifest:
        """The manifest without files: preprocessing, thresholds, origin."""
        settings = self.settings
        manifest = manifest_of(settings.variant, settings.image_size, settings.mask_tokens)
        source = {"checkpoint": self.checkpoint.name, "sha256": self.sha256}
        return replace(manifest, source=source, tools=tool_versions())


def load_inputs(settings: ExportSettings) -> Inputs:
    """Loads checkpoint and photographs.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        CalibrationError: the images cannot be used.
    """
    checkpoint = weights_path(settings.variant, settings.checkpoint)
    sam = load(settings.variant, settings.checkpoint, settings.image_size)
    images = load_image_set(settings.calib, settings.calib_count, settings.seed, settings.image_size)
    return Inputs(settings, checkpoint, sha256_file(checkpoint), sam, images)


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
    writer, form = WRITERS[engine], FORMATS[engine]
    for part in PARTS:
        path = folder / form.file_name(part, "fp32")
        with progress.step(f"{part} {engine} fp32") as details:
            if part == "encoder":
                writer.write_encoder(sam, cases[0], path)
                checks = encoder_cases(form, cases)
            else:
                writer.write_decoder(sam, settings.mask_tokens, cases[0], path)
                checks = decoder_cases(form, cases)
            file = model_file(folder, part, "fp32", engine, settings.image_size, len(settings.mask_tokens))
            parity = check_file(folder, file, checks, usable_cores())
            details.append(f"({file.size_bytes / 1e6:.1f} MB, relative error {parity['relative_error']:.1e})")
        files.append(replace(file, parity=parity))
    return files


def export(settings: ExportSettings) -> bool:
    """Exports, unless the folder is up to date already; True if something was written.

    Raises:
        ExportError: the output cannot be written, or a conversion failed.
        ParityError: a file does not compute what PyTorch computes.
        CheckpointError: the checkpoint cannot be used.
        CalibrationError: the images or the graph cannot be used.
    """
    inputs = load_inputs(settings)
    if up_to_date(settings.folder, inputs.key):
        return False
    with workspace(settings.folder) as folder:
        finish(inputs, make_files(inputs, inputs.empty_manifest, folder), folder)
    return True


def calibrate(settings: ExportSettings, report_only: bool = False) -> Path:
    """Makes the smaller files of `settings.folder` anew from its float files; the path of the report.

    Args:
        settings: its precisions and formats are those of the folder.
        report_only: leave the files as they are and write the report.

    Raises:
        ExportError: the checkpoint is not the one that the folder was exported from.
        What `export` raises.
    """
    published = settings.folder
    manifest = read_manifest(published)
    if sha256_file(weights_path(settings.variant, settings.checkpoint)) != manifest.source.get("sha256"):
        raise ExportError(
            f"{published} was exported from {manifest.source.get('checkpoint')}, other weights than given: "
            "give that file with --checkpoint"
        )
    inputs = load_inputs(settings)
    floats = [file for file in manifest.files if file.precision == "fp32"]
    with workspace(published) as folder:
        for file in floats:
            shutil.copy(verify_file(published, file), folder)
        made = make_files(inputs, manifest, folder, floats)
        if report_only:
            for path in folder.glob("report.*"):
                shutil.copy(path, published)
            inputs.cache.unlink(missing_ok=True)
        else:
            finish(inputs, made, folder)
    return published / "report.html"


def make_files(inputs: Inputs, manifest: Manifest, folder: Path, floats: Sequence[ModelFile] = ()) -> Manifest:
    """Makes every file that was asked for.

    Args:
        inputs: what they are made of.
        manifest: whatever files it lists.
        folder: where they go.
        floats: float files that `folder` has already; without, they are written.

    Returns:
        The manifest with the files. Float files that only served as a source are removed.
    """
    settings, sam, smaller = inputs.settings, inputs.sam, inputs.settings.has_smaller
    engines = () if floats else tuple(dict.fromkeys((OBSERVED.name,) * smaller + settings.formats))
    progress = Progress(1 + 2 * len(engines) + smaller * quantization_steps(settings))
    feeds = list(image_feeds(inputs.images.images, manifest))
    with progress.step("reference: PyTorch on photographs"):
        cases = reference_cases(sam, settings.mask_tokens, feeds)
    files = [*floats, *(f for name in engines for f in write_float(sam, settings, cases, folder, name, progress))]
    if smaller:
        quantization = Quantization(sam, settings, inputs.images, feeds, cases, files, folder, progress)
        files += quantization.run(inputs.cache)
    wanted = [f for f in files if f.precision in settings.precisions and f.engine in settings.formats]
    for file in files:
        if file not in wanted:
            (folder / file.path).unlink()
    return replace(manifest, files=tuple(wanted), source={**manifest.source, "fingerprint": inputs.key})


def finish(inputs: Inputs, manifest: Manifest, folder: Path) -> None:
    """Writes the manifest and publishes the folder."""
    write_manifest(manifest, folder)
    publish(folder, inputs.settings.folder)
    inputs.cache.unlink(missing_ok=True)
