"""Checkpoints that fit, and every way in which one may not."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinysam.models import VARIANTS, CheckpointError, load
from tinysam.models.checkpoint import embedded_weights, read_state

NANO = VARIANTS["nano"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    path = embedded_weights(NANO)
    assert path is not None
    return load_file(path)


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_pth_with_a_classifier_head_gives_the_same_model(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    extra = {"image_encoder.head.weight": torch.zeros(10, 160), "image_encoder.norm_head.bias": torch.zeros(160)}
    sam = load(NANO, saved(state | extra, tmp_path / "official.pth"))
    reference = load(NANO).state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in sam.state_dict().items())


def test_a_state_dict_may_lie_under_model(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "wrapped.pt")
    assert read_state(tmp_path / "wrapped.pt").keys() == state.keys()


def test_missing_and_unknown_keys_are_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    broken = dict(state)
    broken["image_encoder.extra"] = broken.pop("mask_decoder.iou_token.weight")
    with pytest.raises(
        CheckpointError, match=r"1 missing \(mask_decoder.iou_token.weight\); 1 unknown \(image_encoder"
    ):
        load(NANO, saved(broken, tmp_path / "broken.pth"))


def test_another_architecture_is_named_as_such(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"conv1.bn.bias has shape \(128,\), expected \(256,\)"):
        load(VARIANTS["tinysam"], saved(state, tmp_path / "nano.pth"))


def test_values_that_are_not_finite_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    broken = dict(state)
    broken["image_encoder.neck.1.bias"] = torch.full((256,), float("nan"))
    with pytest.raises(CheckpointError, match="image_encoder.neck.1.bias has values that are not finite"):
        load(NANO, saved(broken, tmp_path / "nan.pth"))


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    torch.save({"x": Payload(proof)}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload(proof)))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match="refused|cannot be read"):
            load(NANO, tmp_path / name)
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_in_one_line(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save(state, whole)
    else:
        save_file(state, whole)
    content = whole.read_bytes()
    for length in (0, 7, len(content) // 2, len(content) - 1):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as raised:
            load(NANO, path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_variant_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load(NANO, tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="tinysam has no embedded weights: give --checkpoint"):
        load(VARIANTS["tinysam"])


def test_a_file_that_holds_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="expected a dictionary of tensors, found list"):
        load(NANO, tmp_path / "list.pth")
