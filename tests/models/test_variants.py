"""Registry, input sizes and building blocks, without any stored outputs."""

import re
from pathlib import Path

import pytest
import torch

from tinysam.export.torch_model import manifest_of
from tinysam.models import VARIANTS, build, get_variant, load
from tinysam.models.tinyvit import WindowAttention, bias_indexes
from tinysam.models.variants import check_image_size, exported_variants


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown variant 'sam2': expected one of nano, tinysam"):
        get_variant("sam2")


@pytest.mark.parametrize("size", [224, 448, 672, 896, 1024])
def test_tinyvit_takes_multiples_of_224_and_1024(size: int) -> None:
    check_image_size(VARIANTS["tinysam"], size)


@pytest.mark.parametrize("size", [0, -224, 512, 1000])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="expected 1024 or a multiple of 224"):
        check_image_size(VARIANTS["nano"], size)


def test_teachers_take_1024_only() -> None:
    with pytest.raises(ValueError, match="sam_vit_b: image size 448: a ViT encoder takes 1024 pixels only"):
        build(VARIANTS["sam_vit_b"], 448)


def test_embedded_nano_loads_and_gives_finite_masks() -> None:
    sam = load(VARIANTS["nano"])
    with torch.no_grad():
        embedding = sam.encode(torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(0)))
        decoded = sam.decode(embedding, torch.tensor([[[100.0, 200.0], [0, 0]]]), torch.tensor([[1.0, -1.0]]))
    assert embedding.shape == (1, 256, 28, 28)
    assert decoded.low_res_masks.shape == (1, 4, 112, 112)
    assert bool(torch.isfinite(decoded.low_res_masks).all())


def test_bias_index_of_a_2x2_window_by_hand() -> None:
    # cells (0,0) (0,1) (1,0) (1,1); index = |dy| * 2 + |dx|
    assert bias_indexes(2).tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]


def test_window_attention_equals_the_textbook_formula() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(dim=12, heads=3, window=2).eval()
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(5, 4, 12)
    heads = []
    qkv = attention.qkv(attention.norm(x)).view(5, 4, 3, 12)  # per head: 4 of q, 4 of k, 4 of v
    for head in range(3):
        q, k, v = qkv[:, :, head].split(4, dim=2)
        scores = q @ k.transpose(1, 2) / 2.0 + attention.attention_biases[head, attention.bias_indexes]
        heads.append(scores.softmax(-1) @ v)
    expected = attention.proj(torch.cat(heads, dim=2))
    torch.testing.assert_close(attention(x), expected)


def test_sizes_with_and_without_window_padding_differ_only_in_shape() -> None:
    encoder = build(VARIANTS["nano"], 224).image_encoder
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 14, 14)
        assert encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 256, 16, 16)  # 32, 16: no multiples of 7 and 14


def test_the_page_lists_the_thresholds_of_every_variant() -> None:
    page = Path(__file__).parents[2] / "docs" / "checkpoints.md"
    section = page.read_text(encoding="utf-8").split("## Thresholds of segment everything")[1].split("\n## ")[0]
    listed = {}
    for names, iou, stability in re.findall(r"^\| (`.*?`) \| ([\d.]+).*? \| ([\d.]+) \|", section, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", names), (float(iou), float(stability)))
    own = {name: manifest_of(VARIANTS[name], VARIANTS[name].image_size).everything for name in exported_variants()}
    assert listed == {name: (one.pred_iou_thresh, one.stability_score_thresh) for name, one in own.items()}
