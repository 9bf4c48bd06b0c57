"""Files in SAM's layout, run as programs for SAM run them: ONNX Runtime and nothing of ours but the expected values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch.nn import functional as F

from tests.runtime.conftest import picture
from tinysam.export.sam_graphs import FRAME, Wrapping, choice, sam_encoder
from tinysam.export.sam_layout import write_sam_layout
from tinysam.runtime import Manifest, Segmenter, read_manifest
from tinysam.runtime.geometry import Frame
from tinysam.runtime.mask_choice import choose_mask, is_ambiguous
from tinysam.runtime.preprocess import encoder_input, resize

CLICK, BOX = ([[70, 60]], [1]), ([[30, 20], [120, 110]], [2, 3])


@pytest.fixture(scope="module")
def layout(artifacts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("sam") / artifacts_dir.name
    copy.symlink_to(artifacts_dir, target_is_directory=True)
    return write_sam_layout(copy, ("fp32", "int8"))


def session(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(model) if isinstance(model, Path) else model.SerializeToString())


def feed(size: tuple[int, int], embedding: Any, points: Any, labels: Any, **more: Any) -> dict[str, Any]:
    """What `SamOnnxModel`'s notebook hands over; `points` in pixels of a picture of `size` (height, width)."""
    height, width = size
    scale = FRAME / max(size)
    frame = np.array([int(width * scale + 0.5) / width, int(height * scale + 0.5) / height])
    return {
        "image_embeddings": embedding,
        "point_coords": (np.array(points, np.float64)[None] * frame).astype(np.float32),
        "point_labels": np.array([labels], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array(size, np.float32),
        **more,
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_masks_are_those_of_the_runtime(layout: Path, artifacts_dir: Path, precision: str) -> None:
    encoder, decoder = (session(layout / f"{part}.{precision}.onnx") for part in ("encoder", "decoder"))
    assert [(i.name, i.type) for i in encoder.get_inputs()] == [("input_image", "tensor(float)")]
    assert [i.name for i in decoder.get_inputs()] == list(feed((2, 2), 0, [[0, 0]], [1]))
    assert [o.name for o in decoder.get_outputs()] == ["masks", "iou_predictions", "low_res_masks"]
    pixels = np.asarray(picture(150, 200))
    segmenter = Segmenter(artifacts_dir, "onnx", precision)
    segmenter.set_image(pixels)
    (embedding,) = encoder.run(None, {"input_image": pixels.astype(np.float32)})
    np.testing.assert_allclose(embedding, segmenter.get_image_embedding(), atol=1e-3)

    masks, iou, low_res = decoder.run(None, feed((200, 150), embedding, [*CLICK[0], [0, 0]], [1, -1]))
    ours = segmenter.predict(*CLICK, multimask_output=None)
    assert masks.shape == (1, 1, 200, 150)
    assert iou_of(masks[0, 0] > 0, ours.masks[0]) > 0.999
    assert iou[0, 0] == pytest.approx(ours.iou_predictions[0], abs=1e-3)

    again = feed(
        (200, 150), embedding, [*CLICK[0], [0, 0]], [1, -1], mask_input=low_res, has_mask_input=np.ones(1, "f4")
    )
    refined = segmenter.predict(*CLICK, mask_input=ours.low_res_masks, multimask_output=None)
    assert iou_of(decoder.run(None, again)[0][0, 0] > 0, refined.masks[0]) > 0.999

    boxed = segmenter.predict(box=np.ravel(BOX[0]), multimask_output=None).masks[0]
    for points, labels in ((BOX[0], BOX[1]), ([*BOX[0], [0, 0]], [*BOX[1], -1])):  # clients pad or do not
        found = decoder.run(None, feed((200, 150), embedding, points, labels, has_mask_input=np.full(1, -1, "f4")))
        assert iou_of(found[0][0, 0] > 0, boxed) > 0.999


def iou_of(a: Any, b: Any) -> float:
    assert b.any()
    return float((a & b).sum() / (a | b).sum())


def test_masks_of_the_photographs_size_come_from_the_low_res_masks_as_in_sam(layout: Path) -> None:
    decoder = session(layout / "decoder.fp32.onnx")
    size, grid = 448, 28
    embedding = np.random.default_rng(0).normal(size=(1, 256, grid, grid)).astype(np.float32)
    masks, _, low_res = decoder.run(None, feed((300, 451), embedding, [[9, 9], [0, 0]], [1, -1]))
    whole = F.interpolate(torch.from_numpy(low_res), (size, size), mode="bilinear")
    inside = whole[..., : int(300 * size / 451 + 0.5), :]
    expected = F.interpolate(inside, (300, 451), mode="bilinear").numpy()
    np.testing.assert_allclose(masks, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(1024, 683), (97, 61), (448, 300), (1500, 60)])
@pytest.mark.parametrize("kind", ["normalized", "pixels"])
def test_pictures_enter_the_model_as_in_the_runtime(artifacts_dir: Path, kind: str, size: tuple[int, int]) -> None:
    manifest, channels = read_manifest(artifacts_dir), 3 if kind == "normalized" else 4
    shape = [1, channels, manifest.image_size, manifest.image_size]
    core = passing({"image": shape}, {"image_embeddings": [1, 256, manifest.grid, manifest.grid]})
    model = sam_encoder(core, manifest, kind)
    model.graph.output.append(helper.make_tensor_value_info("model/image", TensorProto.FLOAT, shape))
    image = picture(*size)
    found = session(model).run(["model/image"], {"input_image": np.asarray(image, np.float32)})[0]
    frame = Frame((image.height, image.width), manifest.image_size)
    expected = encoder_input(resize(image, frame), manifest, kind)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def passing(inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
    """A model that hands its one input on as every output, whatever the shape."""
    ((source, _),) = inputs.items()
    nodes = [
        node
        for name, shape in outputs.items()
        for node in (
            helper.make_node("Constant", [], [f"{name}_shape"], value_ints=shape),
            helper.make_node("ReduceMean", [source], [f"{name}_mean"], keepdims=0),
            helper.make_node("Expand", [f"{name}_mean", f"{name}_shape"], [name]),
        )
    ]
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    return helper.make_model(
        helper.make_graph(nodes, "core", *sides), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


@pytest.mark.parametrize("tokens", [(0, 1, 2, 3), (1, 2, 3)])
@pytest.mark.parametrize("rule", ["single", "steady", "best", "stability"])
@pytest.mark.parametrize("labels", [[1, -1], [0, -1], [1, 1, -1], [2, 3], [1, 2, 3], [-1]])
@pytest.mark.parametrize("has_mask", [0, 1])
def test_the_chosen_mask_is_the_runtimes(
    artifacts_dir: Path, rule: str, tokens: tuple[int, ...], labels: list[int], has_mask: int
) -> None:
    manifest: Manifest = replace(read_manifest(artifacts_dir), mask_tokens=tokens, mask_choice=rule)
    count = len(tokens)
    shapes = {"low_res_masks": [1, count, 4, 4], "iou_predictions": [1, count]}
    g = Wrapping(passing({"unused": [1]}, shapes))
    g.add("Cast", choice(g, manifest), out="chosen", to=TensorProto.FLOAT)
    inputs = {"point_labels": [1, len(labels)], "has_mask_input": [1]}
    model = g.model({**{f"model/{name}": shape for name, shape in shapes.items()}, **inputs}, {"chosen": [1]})
    random = np.random.default_rng(sum(labels) + count)
    iou, masks = random.random((1, count), np.float32), random.normal(size=(1, count, 4, 4)).astype(np.float32)
    given = np.array([labels], np.float32)
    known = {i.name for i in model.graph.input}
    values = {
        "model/low_res_masks": masks,
        "model/iou_predictions": iou,
        "point_labels": given,
        "has_mask_input": np.full(1, has_mask, np.float32),
    }
    (chosen,) = session(model).run(None, {name: value for name, value in values.items() if name in known})
    assert chosen == choose_mask(rule, tokens, iou, is_ambiguous(given, bool(has_mask)), masks)


def test_a_picture_for_the_annotation_tools_is_described(layout: Path) -> None:
    text = (layout / "anylabeling.int8.yaml").read_text()
    fields = dict(line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    assert fields["type"] == "segment_anything" and fields["input_size"] == str(FRAME)
    assert (layout / fields["encoder_model_path"]).is_file() and (layout / fields["decoder_model_path"]).is_file()
    assert Image.MAX_IMAGE_PIXELS is None or int(fields["max_width"]) == FRAME
