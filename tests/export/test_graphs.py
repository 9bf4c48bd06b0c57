"""The edge graphs compute what the models compute: other operations, same mathematics."""

import pytest
import torch

from tests.models.golden import relative_error
from tinysam.export.decoder_graph import AttendStage, PrepareStage, SelectiveDecoder, UpscaleStage, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.windows import cut, join, regions
from tinysam.models import VARIANTS, Sam, build, load
from tinysam.runtime.labels import ABSENT

EXACT = 1e-5


def randomized(name: str, size: int) -> Sam:
    """A variant with parameters far from their initial values, so that no bias or norm is trivial."""
    torch.manual_seed(0)
    sam = build(VARIANTS[name], size)
    for key, value in sam.state_dict().items():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) if "running_var" in key else 0.05 * torch.randn_like(value))
    return sam


@pytest.mark.parametrize(
    ("name", "size"),
    [("nano", 224), ("nano", 256), ("nano", 96), ("edgesam", 64), ("repvitsam", 64)],
    ids=["nano", "nano with cut windows", "nano with maps smaller than a window", "edgesam", "repvitsam"],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_encoder_graph(name: str, size: int, channels_last: bool) -> None:
    sam = randomized(name, 224)
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = sam.image_encoder(image)
        found = encoder_graph(sam.image_encoder, size, channels_last)(image)
    assert relative_error(found, expected.permute(0, 2, 3, 1) if channels_last else expected) < EXACT


def test_windows_at_the_border_are_cut() -> None:
    # 64 cells in windows of 14: 4 x 4 whole ones, 4 of 14 x 8, 4 of 8 x 14, one of 8 x 8; cut ones with a cell more.
    found = [(part.windows, part.cells) for part in regions(64, 14)]
    assert found == [(16, 196), (4, 113), (4, 113), (1, 65)]
    assert [(part.windows, part.cells) for part in regions(56, 14)] == [(16, 196)]


def test_cells_come_back_to_where_they_were() -> None:
    rows = torch.arange(10 * 10 * 3.0).reshape(100, 3)
    for window in (3, 4, 5, 10, 12):
        parts = regions(10, window)
        assert torch.equal(join(cut(rows, parts, 10), parts, 10), rows)


def test_one_key_weighs_as_much_as_all_padded_ones() -> None:
    *_, corner = regions(8, 5)  # 3 x 3 cells of a window of 25
    full = torch.randn(2, 25, 25, generator=torch.Generator().manual_seed(0))
    real = [0, 1, 2, 5, 6, 7, 10, 11, 12]
    padded = [cell for cell in range(25) if cell not in real]
    expected = full[:, real][:, :, padded].exp().sum(2)
    assert torch.allclose(corner.bias(full)[0, :, :9, 9].exp(), expected)
    assert torch.equal(corner.bias(full)[0, :, :9, :9], full[:, real][:, :, real])


def test_a_teacher_has_no_edge_graph() -> None:
    with torch.device("meta"):
        teacher = build(VARIANTS["sam_vit_b"]).image_encoder
    with pytest.raises(ValueError, match="ViT has no edge graph"):
        encoder_graph(teacher, 1024)


def prompts(count: int, labels: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    coords = torch.rand(count, len(labels), 2, generator=torch.Generator().manual_seed(count)) * 448
    return coords, torch.tensor([labels]).repeat(count, 1)


@pytest.fixture(scope="module")
def nano() -> tuple[Sam, torch.Tensor]:
    sam = load(VARIANTS["nano"])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return sam, sam.encode(torch.randn(1, 3, 448, 448, generator=generator))


@pytest.mark.parametrize(
    "labels",
    [[1, -1], [1, 0, 1, -1], [2, 3], [1, 0, 2, 3]],
    ids=["click", "three clicks", "box", "box with clicks"],
)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("with_mask", [False, True])
def test_decoder_graph(nano: tuple[Sam, torch.Tensor], labels: list[float], count: int, with_mask: bool) -> None:
    sam, embedding = nano
    coords, label = prompts(count, labels)
    mask = 5 * torch.randn(1, 1, 112, 112, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = sam.decode(embedding, coords, label, mask if with_mask else None)
        has_mask = torch.tensor([float(with_mask)])
        masks, iou = decoder_graph(sam, (1, 2, 3))(embedding, coords, label, mask, has_mask)
    assert relative_error(masks, expected.low_res_masks[:, 1:]) < EXACT
    assert relative_error(iou, expected.iou[:, 1:]) < EXACT


def test_decoder_graph_offers_the_mask_tokens_it_is_asked_for(nano: tuple[Sam, torch.Tensor]) -> None:
    sam, embedding = nano
    coords, label = prompts(2, [1, -1])
    with torch.no_grad():
        expected = sam.decode(embedding, coords, label)
        masks, iou = decoder_graph(sam, (2, 0), channels_last=True)(
            embedding.permute(0, 2, 3, 1), coords, label, torch.zeros(1, 1, 112, 112), torch.zeros(1)
        )
    assert relative_error(masks, expected.low_res_masks[:, [2, 0]]) < EXACT
    assert relative_error(iou, expected.iou[:, [2, 0]]) < EXACT


@pytest.mark.parametrize("mask_tokens", [(1, 2, 3), (0, 1, 2, 3), (0,)])
def test_the_selective_decoder_draws_masks_above_the_threshold_only(
    nano: tuple[Sam, torch.Tensor], mask_tokens: tuple[int, ...]
) -> None:
    sam, embedding = nano
    coords, label = prompts(6, [1, -1])
    graph = decoder_graph(sam, mask_tokens)
    rest = torch.zeros(1, 1, 112, 112), torch.zeros(1)
    with torch.no_grad():
        masks, iou = graph(embedding, coords, label, *rest)
        judged = iou if mask_tokens == (0,) else iou[:, [i for i, token in enumerate(mask_tokens) if token]]
        best = judged.max(1).values
        for threshold, count in ((best.sort().values[2], 3), (torch.tensor(9.0), 0), (torch.tensor(-torch.inf), 6)):
            drawn, same = SelectiveDecoder(graph)(embedding, coords, label, *rest, threshold[None])
            torch.testing.assert_close(same, iou)
            assert len(drawn) == count
            torch.testing.assert_close(drawn, masks[best > threshold], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labels", [[1, -1], [2, 3], [1, -1, -2]], ids=["click", "box", "absent point"])
def test_the_decoder_in_steps_equals_the_plain_model(nano: tuple[Sam, torch.Tensor], labels: list[float]) -> None:
    sam, embedding = nano
    graph = decoder_graph(sam, (1, 2, 3), channels_last=True)
    coords, label = prompts(2, labels)
    present = [i for i, one in enumerate(labels) if one != ABSENT]
    with torch.no_grad():
        expected = sam.decode(embedding, coords[:, present], label[:, present])
        image = PrepareStage(graph)(embedding.permute(0, 2, 3, 1))
        cells, weights, iou = AttendStage(graph)(*image, coords, label)
        (masks,) = UpscaleStage(graph)(cells[1:], weights[1:])
    assert [list(one.shape) for one in image] == [[1, 784, 256], [1, 8, 16, 784], [1, 8, 784, 16], [1, 8, 16, 784]]
    assert relative_error(iou, expected.iou[:, 1:]) < EXACT
    assert relative_error(masks, expected.low_res_masks[1:, 1:]) < EXACT


def test_absent_slots_change_nothing(nano: tuple[Sam, torch.Tensor]) -> None:
    sam, embedding = nano
    graph = decoder_graph(sam, (1, 2, 3))
    rest = torch.zeros(1, 1, 112, 112), torch.zeros(1)
    coords, label = prompts(3, [1, -1])
    more = torch.cat([coords, torch.full((3, 6, 2), 99.0)], dim=1)
    with torch.no_grad():
        masks, _ = graph(embedding, coords, label, *rest)
        padded, _ = graph(embedding, more, torch.cat([label, torch.full((3, 6), -2.0)], dim=1), *rest)
    assert relative_error(padded, masks) < EXACT
