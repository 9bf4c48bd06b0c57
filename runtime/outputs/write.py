"""Writes a result in the formats that were asked for."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tinysam.runtime.atomic import open_atomically
from tinysam.runtime.outputs import FORMATS, VIDEO_FORMATS, Format, Original
from tinysam.runtime.results import Result


def write_result(
    result: Result,
    image: Image.Image | None,
    folder: Path,
    stem: str,
    formats: Sequence[str],
    photo: Path | None = None,
) -> list[Path]:
    """Writes files named `stem` and the suffix of each format (`FORMATS`); returns their paths.

    Drawing the overlay changes `image`; its `info` may hold the photograph's `icc_profile` and `exif`.

    Args:
        result: masks of one photograph.
        image: the photograph, RGB; None if there is no overlay among the formats.
        folder: of the files; it is made if need be.
        stem: beginning of their names.
        formats: keys of `FORMATS`.
        photo: the photograph's file, which LabelMe opens beside the masks.

    Raises:
        ImageError: the photograph is too large for an overlay.
        OutputError: a file cannot be written. Those named earlier are complete.
    """
    original = Original(image, _relative(photo, folder) if photo else result.name)
    written = []
    for form in map(FORMATS.__getitem__, formats):
        if form.has_file_per_mask:
            written += _write_masks(result, form, folder, stem)
            continue
        path, write = folder / (stem + form.suffix), form.import_writer()
        with open_atomically(path) as stream:
            write(result, original, stream)
        written.append(path)
    return written


def are_written(folder: Path, stem: str, formats: Sequence[str], is_video: bool) -> bool:
    """Whether the results of a picture or video are there. A picture without masks has no files of format `mask`."""
    if is_video:
        suffixes = [VIDEO_FORMATS[name] for name in {"overlay", *formats}]
    else:
        suffixes = [FORMATS[name].suffix.format(number=1) for name in formats]
    return all((folder / (stem + suffix)).is_file() for suffix in suffixes)


def _write_masks(result: Result, form: Format, folder: Path, stem: str) -> list[Path]:
    """Files of single masks, the first one last: where it is, all of them are."""
    write = form.import_writer()
    paths = [folder / (stem + form.suffix.format(number=number + 1)) for number in range(len(result.masks))]
    for path, mask in reversed(list(zip(paths, result.masks, strict=True))):
        with open_atomically(path) as stream:
            write(mask, stream)
    return paths


def _relative(photo: Path, folder: Path) -> str:
    """The photograph as seen from the folder, links followed; its full path if it is on another drive."""
    target = Path(os.path.realpath(photo.parent)) / photo.name
    try:
        return Path(os.path.relpath(target, os.path.realpath(folder))).as_posix()
    except ValueError:
        return target.as_posix()
