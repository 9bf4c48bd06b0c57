"""Programs for SAM load the files of `tinysam-export --layout sam` and give our masks: run by `make test-clients`.

    python prove.py artifacts/nano-448 artifacts/nano-448-sam

Each program comes from its package, in an environment of its own. Prints the IoU of its mask and ours for a click, a
box and two clicks, in fp32 and INT8; exits 1 if one in fp32 is too low.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
import yaml
from PIL import Image

from tinysam.runtime import Segmenter

PICTURE = Path(__file__).resolve().parents[2] / "device/bundle/picture.jpg"
SIZE = (1024, 684)
"""What X-AnyLabeling makes of every photograph; the other programs make its long side 1024."""
LEAST_IOU = 0.999
PROMPTS = {
    "click": ([(450, 200)], [1]),
    "box": ([(300, 20), (680, 420)], [2, 3]),
    "two clicks": ([(450, 200), (560, 600)], [1, 0]),
}
Predict = Callable[[list[tuple[int, int]], list[int]], Any]


def marks(points: list[tuple[int, int]], labels: list[int]) -> list[dict[str, Any]]:
    """A prompt as samexporter and X-AnyLabeling write it."""
    if labels == [2, 3]:
        return [{"type": "rectangle", "data": [*points[0], *points[1]]}]
    return [{"type": "point", "data": point, "label": label} for point, label in zip(points, labels, strict=True)]


def import_torchvision() -> None:
    """Its compiled operators do not load beside PyTorch's CPU build; none is needed here, but two must have a name."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def samexporter(encoder: str, decoder: str, pixels: Any, low_res: bool = True) -> Predict:
    """Its inference class. It enlarges low-res masks by itself, as if they were made at 1024 pixels; `low_res` False:
    the class's other way, for decoders without that output."""
    from samexporter.sam_onnx import SegmentAnythingONNX

    model = SegmentAnythingONNX(encoder, decoder)
    if not low_res:
        model.decoder_output_names.remove("low_res_masks")
    embedding = model.encode(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return lambda points, labels: model.predict_masks(embedding, marks(points, labels))[0][0]


def x_anylabeling(encoder: str, decoder: str, pixels: Any) -> Predict:
    """Its inference class, loaded through the model file beside the ONNX files."""
    from anylabeling.services.auto_labeling.sam_onnx import SegmentAnythingONNX

    described = yaml.safe_load(Path(encoder).with_name(f"anylabeling.{encoder.split('.')[-2]}.yaml").read_text())
    files = [Path(encoder).with_name(described[f"{part}_model_path"]) for part in ("encoder", "decoder")]
    assert files == [Path(encoder), Path(decoder)] and described["type"] == "segment_anything"
    model = SegmentAnythingONNX(*map(str, files))
    embedding = model.encode(pixels)
    return lambda points, labels: model.predict_masks(embedding, marks(points, labels))[0][0]


def segment_anything(encoder: str, decoder: str, pixels: Any) -> Predict:
    """The notebook of the package: its transform, and the decoder in ONNX Runtime."""
    import_torchvision()
    from segment_anything.utils.transforms import ResizeLongestSide

    transform = ResizeLongestSide(1024)
    sessions = [onnxruntime.InferenceSession(path) for path in (encoder, decoder)]
    (embedding,) = sessions[0].run(None, {"input_image": transform.apply_image(pixels).astype(np.float32)})

    def predict(points: list[tuple[int, int]], labels: list[int]) -> Any:
        box = labels == [2, 3]
        coords = np.array([*points, *([] if box else [(0, 0)])], float)[None]
        given = [*labels, *([] if box else [-1])]
        return sessions[1].run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": transform.apply_coords(coords, pixels.shape[:2]).astype(np.float32),
                "point_labels": np.array([given], np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array(pixels.shape[:2], np.float32),
            },
        )[0][0, 0]

    return predict


def osam(encoder: str, decoder: str, pixels: Any) -> Predict:
    """Its SAM model class with our encoder's input, which takes pixels in place of a padded square."""
    from osam import types
    from osam._models.sam import _models

    class TinySam(_models.Sam):
        name = "tinysam-edge"
        _blobs = {}  # noqa: RUF012

        def __init__(self) -> None:
            paths = {"encoder": encoder, "decoder": decoder}
            self._inference_sessions = {part: onnxruntime.InferenceSession(path) for part, path in paths.items()}

        def _encode_image(self, image: Any) -> types.ImageEmbedding:
            height, width = image.shape[:2]
            (embedding,) = self._inference_sessions["encoder"].run(None, {"input_image": image.astype(np.float32)})
            return types.ImageEmbedding(original_height=height, original_width=width, embedding=embedding[0])

    _models.get_input_size = lambda encoder_session: 1024
    model = TinySam()
    embedding = model.encode_image(pixels)
    return lambda points, labels: model._generate_mask_from_image_embedding(
        embedding, types.Prompt(points=np.array(points, np.float32), point_labels=np.array(labels, np.int32))
    )


CLIENTS = {
    "segment-anything": (segment_anything, LEAST_IOU),
    "x-anylabeling-cvhub": (x_anylabeling, LEAST_IOU),
    "osam": (osam, LEAST_IOU),
    "samexporter": (partial(samexporter, low_res=False), LEAST_IOU),
    "samexporter (low-res masks)": (samexporter, 0.99),
}
"""Package -> how to load it, and the least IoU in fp32."""


def main(artifacts: str, layout: str) -> int:
    """Prints the table."""
    pixels = np.asarray(Image.open(PICTURE).convert("RGB").resize(SIZE))
    failures = 0
    print(f"| program | {' | '.join(f'{name}, {p}' for p in ('fp32', 'INT8') for name in PROMPTS)} |")
    print(f"| --- |{' --- |' * 2 * len(PROMPTS)}")
    for client, (load, least) in CLIENTS.items():
        cells = []
        for precision in ("fp32", "int8"):
            segmenter = Segmenter(artifacts, "onnx", precision)
            segmenter.set_image(pixels)
            files = [str(Path(layout) / f"{part}.{precision}.onnx") for part in ("encoder", "decoder")]
            predict = load(*files, pixels)
            for name, (points, labels) in PROMPTS.items():
                theirs = np.asarray(predict(points, labels)) > 0
                prompt = (
                    {"box": np.ravel(points)} if name == "box" else {"point_coords": points, "point_labels": labels}
                )
                ours = segmenter.predict(**prompt, multimask_output=None).masks[0]
                iou = (ours & theirs).sum() / (ours | theirs).sum()
                failures += precision == "fp32" and iou < least
                cells.append(f"{iou:.4f}")
        version = importlib.metadata.version(client.split()[0])
        print(f"| {client}, {version} | {' | '.join(cells)} |", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
