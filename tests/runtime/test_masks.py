"""Run lengths against pycocotools, regions against OpenCV, NMS against brute force, outlines by area and by fill."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from tinysam.runtime.masks import rle
from tinysam.runtime.masks.clean import components, remove_small_regions
from tinysam.runtime.masks.nms import mask_groups, nms
from tinysam.runtime.masks.polygons import outlines, polygons, ring_area, simplified
from tinysam.runtime.masks.rle import Rle

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
masks = hnp.arrays(np.bool_, shapes)


@settings(max_examples=300, deadline=None)
@given(masks)
def test_rle_is_that_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = Rle.encode(mask)
    assert ours.to_coco() == theirs["counts"].decode()
    assert ours.area == coco.area(theirs)
    x, y, width, height = coco.toBbox(theirs)
    if mask.any():
        assert ours.box == (x, y, x + width, y + height)
    np.testing.assert_array_equal(ours.decode(), mask)
    np.testing.assert_array_equal(Rle.from_coco(mask.shape, ours.to_coco()).decode(), mask)


@settings(max_examples=200, deadline=None)
@given(masks, st.data())
def test_crops_encode_and_decode_as_part_of_the_whole(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    crop = mask[y0:y1, x0:x1]
    np.testing.assert_array_equal(Rle.encode(mask).decode_crop((x0, y0, x1, y1)), crop)
    only = np.zeros_like(mask)
    only[y0:y1, x0:x1] = crop
    np.testing.assert_array_equal(Rle.encode_crop(crop, (x0, y0), mask.shape).decode(), only)


def test_rle_of_a_large_mask_has_large_counts() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((3000, 4000), np.bool_)
    mask[100:2900, 50:3950] = True
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert Rle.encode(mask).to_coco() == theirs["counts"].decode()


@pytest.mark.parametrize("text", ["", "P", "1", "~~", "o" * 30])
def test_damaged_coco_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="COCO run lengths"):
        Rle.from_coco((5, 5), text)


@settings(max_examples=200, deadline=None)
@given(masks, st.integers(0, 12))
def test_regions_are_those_of_opencv(mask: np.ndarray, min_area: int) -> None:
    cv2 = pytest.importorskip("cv2")
    for connectivity in (4, 8):
        _, areas = components(Rle.encode(mask), corners=connectivity == 8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
        assert sorted(areas) == sorted(stats[1:, -1])
    cleaned, changed = remove_small_regions(Rle.encode(mask), min_area)
    expected = opencv_clean(cv2, opencv_clean(cv2, mask, min_area, holes=True), min_area, holes=False)
    assert cleaned.area == expected.sum()
    if len(set(areas.tolist())) == len(areas):  # else which of two largest islands stays is open
        np.testing.assert_array_equal(cleaned.decode(), expected)
        assert changed == (expected != mask).any()


def opencv_clean(cv2: object, mask: np.ndarray, min_area: int, holes: bool) -> np.ndarray:
    """SAM's `remove_small_regions`."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask ^ holes).astype(np.uint8), 8)  # type: ignore[attr-defined]
    sizes = stats[1:, -1]
    small = [index + 1 for index, size in enumerate(sizes) if size < min_area]
    if not small:
        return mask
    fill = [0, *small] if holes else [index for index in range(count) if index not in [0, *small]]
    if not holes and not fill:
        fill = [int(np.argmax(sizes)) + 1]
    return np.isin(labels, fill) if not holes else mask | np.isin(labels, small)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 30), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_nms_is_that_of_brute_force(count: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1)
    scores = rng.integers(0, 10, count) / 10
    kept: list[int] = []
    for index in sorted(range(count), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[index], boxes[better]) <= threshold for better in kept):
            kept.append(index)
    assert nms(boxes, scores, threshold).tolist() == kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = width * height
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_outlines_enclose_the_mask(mask: np.ndarray) -> None:
    # shoelace: outer outlines count positive, those around holes negative
    area = sum(
        float((r[:, 0] * np.roll(r[:, 1], -1) - r[:, 1] * np.roll(r[:, 0], -1)).sum()) / 2 for r in outlines(mask)
    )
    assert area == mask.sum()


def test_outline_of_one_pixel_is_a_unit_square() -> None:
    mask = np.zeros((4, 5), np.bool_)
    mask[2, 3] = True
    (ring,) = polygons(Rle.encode(mask))
    assert sorted(map(tuple, ring.tolist())) == [(3, 2), (3, 3), (4, 2), (4, 3)]


def test_polygons_of_a_smooth_shape_fill_it_again() -> None:
    y, x = np.mgrid[:120, :160]
    mask = ((x - 70) / 50) ** 2 + ((y - 60) / 40) ** 2 < 1
    mask |= ((x - 140) / 15) ** 2 + ((y - 30) / 12) ** 2 < 1
    rings = polygons(Rle.encode(mask))
    assert len(rings) == 2
    assert sum(map(len, rings)) < 120
    canvas = Image.new("1", (160, 120))
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([(float(a) - 0.5, float(b) - 0.5) for a, b in ring], fill=1)
    drawn = np.asarray(canvas)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95


def filled(mask: np.ndarray, tolerance_px: float) -> np.ndarray:
    """The polygons of a mask, filled by pycocotools."""
    coco = pytest.importorskip("pycocotools.mask")
    height, width = mask.shape
    rings = polygons(Rle.encode(mask), tolerance_px)
    decoded = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in rings], height, width)))
    return np.asarray(decoded, np.bool_)


@settings(max_examples=300, deadline=None)
@given(masks.filter(np.any))
def test_polygons_with_bridges_are_the_mask(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(mask, 0.0), mask)
    assert sum(map(ring_area, polygons(Rle.encode(mask), 0.0))) == mask.sum()


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:120, :160]
    return np.asarray(np.hypot(columns - x, rows - y) < radius)


HOLED = {
    "ring": disc(80, 60, 50) & ~disc(80, 60, 30),
    "target": (disc(80, 60, 55) & ~disc(80, 60, 45)) | (disc(80, 60, 35) & ~disc(80, 60, 25)) | disc(80, 60, 10),
    "button": disc(80, 60, 55) & ~disc(60, 60, 8) & ~disc(100, 60, 8) & ~disc(80, 40, 8) & ~disc(80, 80, 8),
    "hole in each of two parts": (disc(40, 60, 35) & ~disc(40, 60, 15)) | (disc(120, 60, 35) & ~disc(120, 60, 15)),
    "hole that touches the border": disc(80, 60, 50) & ~disc(80, 12, 20),
}


@pytest.mark.parametrize("name", HOLED)
def test_holes_stay_holes_in_simplified_polygons(name: str) -> None:
    mask = HOLED[name]
    drawn = filled(mask, 1.0)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.94
    canvas = Image.new("1", (160, 120))
    for ring in polygons(Rle.encode(mask)):
        ImageDraw.Draw(canvas).polygon([(float(a) - 0.5, float(b) - 0.5) for a, b in ring], fill=1)
    inner = np.asarray(canvas) & ~mask  # Pillow also draws the edges themselves
    assert inner.sum() < 0.12 * mask.sum()


def test_simplified_outline_stays_near() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.rint(np.stack([100 + 90 * np.cos(angle), 100 + 60 * np.sin(angle)], axis=1)).astype(np.int64)
    short = simplified(ring, 1.0)
    assert len(short) < len(ring) / 4
    start, end = short, np.roll(short, -1, axis=0)
    along = end - start
    for point in ring:
        part = np.clip(((point - start) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.hypot(*(point - start - part[:, None] * along).T).min() <= 1.0 + 1e-9


def test_rle_does_not_depend_on_the_blocks_it_is_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((50, 70)) < 0.5
    whole = Rle.encode(mask)
    monkeypatch.setattr(rle, "_BLOCK_PIXELS", 120)
    np.testing.assert_array_equal(Rle.encode(mask).counts, whole.counts)


def test_groups_of_masks_are_those_of_a_textbook() -> None:
    """Random rectangles with random pixels, as parts of a picture of 40 x 50 pixels."""
    random = np.random.default_rng(0)
    pieces, origins, whole = [], [], []
    for _ in range(60):
        height, width = random.integers(3, 20, 2)
        top, left = random.integers(0, [40 - height, 50 - width])
        piece = random.random((height, width)) < 0.8
        pieces.append(piece)
        origins.append((int(top), int(left)))
        full = np.zeros((40, 50), np.bool_)
        full[top : top + height, left : left + width] = piece
        whole.append(full)
    scores = random.random(60).round(1)  # some are equal: the earlier is the better
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        ious = [(whole[index] & whole[other]).sum() / (whole[index] | whole[other]).sum() for other in expected]
        if all(iou <= 0.3 for iou in ious):
            expected.append(index)
    groups = mask_groups(pieces, origins, scores, 0.3)
    assert [group[0] for group in groups] == expected
    assert 10 < len(expected) < 60
    assert sorted(np.concatenate(groups)) == list(range(60))
    for first, *others in groups:
        assert all((whole[first] & whole[k]).sum() > 0.3 * (whole[first] | whole[k]).sum() for k in others)
    assert not mask_groups([], [], np.empty(0), 0.5)


def test_masks_of_one_box_are_not_one_object() -> None:
    arch = np.ones((10, 10), np.bool_)
    arch[3:, 2:8] = False
    both = [arch, np.ones((10, 10), np.bool_)]
    boxes = np.tile([0.0, 0, 10, 10], (2, 1))
    assert len(nms(boxes, np.array([1.0, 0.5]), 0.7)) == 1
    assert len(mask_groups(both, [(0, 0)] * 2, np.array([1.0, 0.5]), 0.7)) == 2
