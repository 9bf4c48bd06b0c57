"""Checkpoints that fit, and every way in which one may not."""

import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
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


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_pth_with_a_classifier_head_gives_the_same_model(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    extra = {"image_encoder.head.weight": torch.zeros(10, 160), "image_encoder.norm_head.bias": torch.zeros(160)}
    sam = load(NANO, saved(state | extra, tmp_path / "official.pth"))
    reference = load(NANO).state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in sam.state_dict().items())


class Args:
    """Stands for the arguments, configurations and paths that training scripts save beside the weights."""

    def __init__(self) -> None:
        self.lr, self.out = 1e-3, Path("runs")


class Small(torch.nn.Module):
    """Parts under a model's names, to be saved whole."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.prompt_encoder = torch.nn.Embedding(5, 4)
        self.mask_decoder = torch.nn.Linear(4, 4)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def wrappings(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The same weights as training scripts save them."""
    junk = {name: torch.zeros_like(value) for name, value in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = value
    return {
        "plain": state,
        "model": {"model": state},
        "state_dict in model": {"model": {"state_dict": state}},
        "training": {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": optimizer, "best": 0.7},
        "optimizer by name": {"net": state, "optimizer": {"state": prefixed(junk, ""), "lr": [1e-3]}},
        "DataParallel": prefixed(state, "module."),
        "compiled": {"weights": prefixed(state, "module._orig_mod.")},
        "Lightning": {
            "state_dict": prefixed(state, "model.sam.") | {"loss.weight": torch.ones(1)},
            "pytorch-lightning_version": "2.4.0",
            "hyper_parameters": Args(),
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        },
        "AveragedModel": {"n_averaged": torch.tensor(8)} | prefixed(state, "module."),
        "ema beside model": {"model": state, "model_ema": junk},
        "only ema": {"ema": {"module": state, "updates": 100}},
        "student and teacher": {"state_dict": prefixed(state, "student.") | prefixed(junk, "teacher.")},
        "only teacher": {"teacher": prefixed(state, "module."), "epoch": 1},
        "parts": parts,
        "with arguments": {"model": state, "args": Args(), "out": Path("runs"), "scores": np.float64(0.5)},
        "parameters": {
            name: torch.nn.Parameter(value, requires_grad=value.is_floating_point()) for name, value in state.items()
        },
        "whole model": small(),
        "whole model in training": {"epoch": 1, "ema": small()},
        "ordered": OrderedDict(state),
        "half": {name: value.half() for name, value in state.items()},
        "bfloat16": {name: value.bfloat16() for name, value in state.items()},
        "double": {name: value.double() for name, value in state.items()},
    }


NAMES = [
    *(
        "plain",
        "model",
        "state_dict in model",
        "training",
        "optimizer by name",
        "DataParallel",
        "compiled",
        "Lightning",
    ),
    *(
        "AveragedModel",
        "ema beside model",
        "only ema",
        "student and teacher",
        "only teacher",
        "parts",
        "with arguments",
    ),
    *("parameters", "whole model", "whole model in training", "ordered", "half", "bfloat16", "double"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_usual_wrapping_gives_the_same_weights(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    expected = small().state_dict()
    wrapped = wrappings(expected)
    assert set(wrapped) == set(NAMES)
    state = read_state(saved(wrapped[name], tmp_path / "wrapped.ckpt"))
    assert state.keys() == expected.keys()
    tolerance = {"half": 2e-3, "bfloat16": 2e-2}.get(name, 0.0)
    for key, value in state.items():
        torch.testing.assert_close(value.to(expected[key].dtype), expected[key], rtol=tolerance, atol=tolerance)
    assert not recwarn.list


def test_a_wrapped_half_precision_file_loads_as_the_plain_one(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = prefixed({name: value.half() for name, value in state.items()}, "model.module.")
    sam = load(NANO, saved({"epoch": 3, "state_dict": half, "args": Args()}, tmp_path / "last.ckpt"))
    for key, value in sam.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(value.float(), state[key].float(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights", "weights.bin"])
def test_safetensors_under_another_name_are_read(state: dict[str, torch.Tensor], tmp_path: Path, name: str) -> None:
    save_file(prefixed(state, "module."), tmp_path / name)
    assert read_state(tmp_path / name).keys() == state.keys()


def test_a_legacy_file_without_an_archive_is_read(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_state(tmp_path / "old.pth").keys() == state.keys()


def foreign(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no checkpoints, and what is said of them."""

    def file(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(folder / "script.pt"))
    np.savez(folder / "arrays.npz", a=np.zeros(3))
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("sam.pth", b"x")
    (folder / "folder.pth").mkdir()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    return {
        "TorchScript": (folder / "script.pt", "a TorchScript program"),
        "folder": (folder / "folder.pth", "a folder, not a file"),
        "nothing": (folder / "absent.pth", "no such file"),
        "empty": (file("empty.pth", b""), "an empty file"),
        "text": (file("notes.pth", b"weights are elsewhere\n"), "a text file"),
        "pointer": (file("pointer.safetensors", pointer), "a Git LFS pointer"),
        "page": (file("page.pth", b"\n<!DOCTYPE html><html><title>404</title>"), "a web page"),
        "ONNX": (file("model.pth", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(80)), "an ONNX model"),
        "TFLite": (file("model.pt", b"\x1c\0\0\0TFL3" + bytes(80)), "a TFLite model"),
        "HDF5": (file("keras.h5", b"\x89HDF\r\n\x1a\n" + bytes(80)), "an HDF5 file"),
        "gzip": (file("sam.pth.gz", b"\x1f\x8b\x08" + bytes(80)), "a gzip archive"),
        "NumPy": (folder / "arrays.npz", "a NumPy archive"),
        "zip": (folder / "packed.zip", "a zip archive"),
        "zeros": (file("zeros.pth", bytes(5000)), "zeros at its beginning"),
        "short safetensors": (file("short.safetensors", b"\xff\0\0\0\0\0\0\0{"), "cannot be read"),
        "numbers": (saved({"epoch": 3, "loss": [1.0]}, folder / "numbers.pth"), "without tensors"),
        "tar": (file("sam.tar", b"sam.pth" + bytes(250) + b"ustar" + bytes(250)), "a tar archive"),
    }


FOREIGN = [
    *(
        "TorchScript",
        "folder",
        "nothing",
        "empty",
        "text",
        "pointer",
        "page",
        "ONNX",
        "TFLite",
        "HDF5",
        "gzip",
        "NumPy",
    ),
    *("zip", "zeros", "short safetensors", "numbers", "tar"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_checkpoint_gets_one_sentence(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    files = foreign(tmp_path)
    assert set(files) == set(FOREIGN)
    path, what = files[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError, match=what) as raised:
            load(NANO, path)
    message = str(raised.value)
    assert message.startswith(f"checkpoint {path}: ")
    assert "\n" not in message
    assert "weights_only" not in message
    assert not caught
    assert capfd.readouterr() == ("", "")


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


def outcome(path: Path) -> str:
    """What is said of a file; empty if it holds tensors."""
    try:
        assert all(isinstance(value, torch.Tensor) for value in read_state(path).values())
    except CheckpointError as error:
        return str(error)
    return ""


def test_damaged_files_are_weights_or_one_sentence(tmp_path: Path) -> None:
    rng = random.Random(0)
    state = small().state_dict()
    path = tmp_path / "damaged.pth"
    save_file(state, path)
    originals = [path.read_bytes()]
    for name, legacy in (("training", False), ("Lightning", False), ("whole model", False), ("model", True)):
        torch.save(wrappings(state)[name], path, _use_new_zipfile_serialization=not legacy)
        originals.append(path.read_bytes())
    refused = 0
    for index in range(150):
        data = bytearray(originals[index % len(originals)])
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + 7]
            case 2:
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at : at + 30] = rng.randbytes(30)
        path.write_bytes(data)
        sentence = outcome(path)
        assert "\n" not in sentence
        assert "weights_only" not in sentence
        refused += bool(sentence)
    assert 30 < refused < 150
