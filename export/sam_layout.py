"""`tinysam-export --layout sam`: the ONNX files of an artifact folder in the layout that SAM's other programs load."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from tinysam.calibration.photographs import bundled_photographs
from tinysam.export.errors import ExportError, ParityError
from tinysam.export.publish import publish, workspace
from tinysam.export.sam_graphs import FRAME, sam_decoder, sam_encoder
from tinysam.runtime import Segmenter
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.formats import ONNX
from tinysam.runtime.engines.onnx import open_session
from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import PARTS, Manifest, read_manifest, verify_file

LAYOUTS = ("tinysam", "sam")
LEAST_IOU = 0.999
"""Of masks through the standard layout and through our own runtime, for the same file and picture."""
PROMPTS = (([(0.45, 0.2)], [1]), ([(0.3, 0.05), (0.65, 0.4)], [2, 3]), ([(0.45, 0.2), (0.5, 0.6)], [1, 0]))
"""Points in parts of width and height, and their labels: a click, a box, two clicks."""
MODEL_FILE = """\
# For X-AnyLabeling and AnyLabeling: "Load custom model", then this file.
type: segment_anything
name: tinysam-edge-{name}-{precision}
provider: TinySAM Edge
display_name: TinySAM Edge {name} ({precision})
encoder_model_path: encoder.{precision}.onnx
decoder_model_path: decoder.{precision}.onnx
input_size: {frame}
max_width: {frame}
max_height: 682
"""


def check_layout(layout: str, formats: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    """ExportError for an unknown layout, or for SAM's without ONNX files to make it of."""
    if layout not in LAYOUTS:
        raise ExportError(f"layout {layout}: expected {' or '.join(LAYOUTS)}")
    if layout == "sam" and (ONNX.name not in formats or not set(precisions) & set(ONNX.precisions)):
        raise ExportError(
            "layout sam consists of ONNX files, fp32 and int8: expected onnx in --format and one of them in --precision"
        )


def sam_folder(artifacts: Path) -> Path:
    """Where the files in SAM's layout go, beside the artifacts that they are made of."""
    return artifacts.with_name(f"{artifacts.name}-sam")


def write_sam_layout(artifacts: Path, precisions: tuple[str, ...]) -> Path:
    """Writes `encoder.P.onnx`, `decoder.P.onnx` and `anylabeling.P.yaml` for every precision P that ONNX files have.

    Returns:
        Their folder.

    Raises:
        ArtifactError: the artifacts are damaged or lack a precision.
        ExportError: the output cannot be written.
        ParityError: a mask differs from that of our runtime; nothing was published.
    """
    manifest, destination = read_manifest(artifacts), sam_folder(artifacts)
    with workspace(destination) as folder:
        for precision in (name for name in precisions if name in ONNX.precisions):
            write_precision(artifacts, manifest, precision, folder)
            check_masks(artifacts, precision, folder)
        publish(folder, destination)
    return destination


def write_precision(artifacts: Path, manifest: Manifest, precision: str, folder: Path) -> None:
    """The three files of one precision."""
    for part in PARTS:
        file = manifest.find(part, ONNX.name, precision)
        core = onnx.load(verify_file(artifacts, file))
        wrap: Callable[[onnx.ModelProto], onnx.ModelProto] = partial(sam_decoder, manifest=manifest)
        if part == "encoder":
            wrap = partial(sam_encoder, manifest=manifest, kind=file.input or "normalized")
        onnx.save(wrap(core), folder / ONNX.file_name(part, precision))
    name = f"{manifest.variant}-{manifest.image_size}"
    text = MODEL_FILE.format(name=name, precision=precision, frame=FRAME)
    (folder / f"anylabeling.{precision}.yaml").write_text(text, encoding="utf-8")


def check_masks(artifacts: Path, precision: str, folder: Path) -> None:
    """Compares masks of a bundled photograph, as SAM's programs hand it over, with our runtime's."""
    photograph = next(path for path in bundled_photographs() if path.stem == "astronaut")
    picture = Image.open(photograph).convert("RGB").resize((FRAME, FRAME * 3 // 4))
    pixels = np.asarray(picture)
    segmenter = Segmenter(artifacts, ONNX.name, precision)
    segmenter.set_image(pixels)
    client = SamClient(folder, precision)
    client.set_image(pixels)
    for points, labels in PROMPTS:
        coords = np.array(points, np.float64) * picture.size
        box = coords.ravel() if labels == [2, 3] else None
        clicks = (None, None) if box is not None else (coords, labels)
        ours = segmenter.predict(*clicks, box=box, multimask_output=None).masks[0]
        theirs = client.predict(coords, labels)
        iou = (ours & theirs).sum() / max(1, (ours | theirs).sum())
        if not iou >= LEAST_IOU:
            raise ParityError(
                f"SAM layout, {precision}, labels {labels}: IoU {iou:.4f} with our own mask, expected {LEAST_IOU}; "
                "nothing was published"
            )


class SamClient:
    """What a program that was written for SAM does with the two files."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.encoder, self.decoder = (
            open_session(folder / ONNX.file_name(part, precision), usable_cores()) for part in PARTS
        )

    def set_image(self, pixels: NDArray[np.uint8]) -> None:
        """Runs the encoder on uint8 (height, width, 3) RGB."""
        height, width, _ = pixels.shape
        self.frame = Frame((height, width), FRAME)
        picture = Image.fromarray(pixels).resize(self.frame.input_size[::-1], Image.Resampling.BILINEAR)
        (self.embedding,) = self.encoder.run(None, {"input_image": np.asarray(picture, np.float32)})

    def predict(self, coords: NDArray[np.float64], labels: list[int]) -> NDArray[np.bool_]:
        """(height, width) mask of (N, 2) points in pixels of the photograph."""
        masks, _, _ = self.decoder.run(
            None,
            {
                "image_embeddings": self.embedding,
                "point_coords": self.frame.to_model(np.concatenate([coords, np.zeros((1, 2))]))[None],
                "point_labels": np.array([[*labels, -1]], np.float32),
                "mask_input": np.zeros((1, 1, FRAME // 4, FRAME // 4), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array(self.frame.original_size, np.float32),
            },
        )
        mask: NDArray[np.bool_] = masks[0, 0] > 0
        return mask
