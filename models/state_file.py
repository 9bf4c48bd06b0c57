"""The tensors of a checkpoint file, whatever it is called and however they are wrapped. Nothing in it is ever executed.

1. The first bytes tell what the file is; one sentence says so if it is no checkpoint.
2. Tensors are read by safetensors, or by PyTorch's unpickler of tensors alone, in which classes of other libraries
   (arguments, configurations) become inert stand-ins.
3. Dictionaries in dictionaries are flattened to dotted names, and the model is found by the names of its parts:
   `model.module.image_encoder.neck.0.weight` and the same below `state_dict` are one case. A model that was saved whole
   is another: it comes apart into the dictionaries of its modules.
"""

import os
import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
"""What the names of a model's parameters begin with, behind any wrapping."""

_STATE_DICT = "expected a state dict, as torch.save(model.state_dict(), file) or safetensors write it"
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array",
}
"""First bytes -> what the file is."""
_EXECUTING = (
    "builtins",
    "__builtin__",
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "shutil",
    "socket",
    "importlib",
    "runpy",
)
"""Modules that a pickle names to run code when it is loaded."""
_MODULE_PARTS = ("_modules", "_parameters", "_buffers")
_NOT_WEIGHTS = ("optim", "sched", "scaler")
_SECOND_CHOICE = ("ema", "averag", "teacher")
"""Wrappings that are taken if there is no other, the first before the last: copies of the model, and another model."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the variant; the message is one line."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, without wrappings; CheckpointError if it is no checkpoint, damaged or unsafe."""
    foreign = _what_else(path)
    if foreign:
        raise CheckpointError(f"checkpoint {path}: {foreign}; {_STATE_DICT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = load_file(path) if _is_safetensors(path) else _load_pickle(path)
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to load it unsafely.
        raise CheckpointError(
            f"checkpoint {path}: refused, it is damaged or holds Python objects besides tensors; {_STATE_DICT}"
        ) from error
    except Exception as error:  # a damaged file meets the unpickler with every kind of exception
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        reason = "PyTorch does not know it" if "weights_only" in reason else reason
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason}); is it complete?") from error
    return unwrapped(content, path)


def unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    """The model's tensors in what a file holds, under the model's own names."""
    tensors = dict(_flattened(content))
    if not tensors:
        raise CheckpointError(f"checkpoint {path}: expected a dictionary of tensors, found {_described(content)}")
    wrappings = Counter(wrapping for wrapping in map(_wrapping, tensors) if wrapping is not None)
    usable = [one for one in wrappings if not any(word in one.lower() for word in _NOT_WEIGHTS)]
    if not usable:
        return tensors
    best = min(usable, key=lambda one: (_rank(one), -wrappings[one]))
    if not best:
        # Without a wrapping other names are part of the message about what does not fit.
        others = [one for one in wrappings if one]
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(others) or "\0")}
    return {name[len(best) :]: tensor for name, tensor in tensors.items() if _wrapping(name) == best}


def _wrapping(name: str) -> str | None:
    """What stands before the model's own name of a parameter; None if it has none."""
    places = [place for part in PARTS if (place := f".{name}".find(f".{part}")) >= 0]
    return name[: min(places)] if places else None


def _rank(wrapping: str) -> int:
    return max((1 + index for index, word in enumerate(_SECOND_CHOICE) if word in wrapping.lower()), default=0)


def _flattened(content: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        # What `torch.nn.Module` calls its dictionaries is no part of a parameter's name.
        inner = prefix if name in _MODULE_PARTS else f"{prefix}{name}."
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _flattened(value, inner)


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"a dictionary of {', '.join(map(str, list(content)[:5])) or 'nothing'} without tensors"
    return type(content).__name__


def _what_else(path: Path) -> str:
    """What a path is if it is no checkpoint; empty if it may be one."""
    if path.is_dir():
        return "a folder, not a file"
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "not a file"
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        return "an empty file"
    if not any(head):
        return "zeros at its beginning, as of a download that was not finished"
    if zipfile.is_zipfile(path):
        return _what_archive(path)
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    for first, what in _FOREIGN.items():
        if head.startswith(first):
            return what
    if head[4:8] == b"TFL3":
        return "a TFLite model, which is a result and not a source of an export"
    if path.suffix.lower() == ".onnx" or (head[0] == 8 and any(word in head for word in (b"onnx", b"pytorch"))):
        return "an ONNX model, which is a result and not a source of an export"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: download the file that it links to"
    if not any(byte < 9 or 13 < byte < 32 for byte in head) and not head.startswith(b"\x80"):
        return "a text file"
    return ""


def _what_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
    except Exception:  # damaged in its list of files: reading it says so
        return ""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "a TorchScript program, which has no plain state dict"
    if "data.pkl" in names:
        return ""
    return "a NumPy archive" if any(name.endswith(".npy") for name in names) else "a zip archive: unpack it first"


def _is_safetensors(path: Path) -> bool:
    """By the header: its length in 8 bytes, then JSON."""
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as stream:
        head = stream.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path)  # noqa: PTH202


def _load_pickle(path: Path) -> object:
    named: list[str] = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    if any(name.split(".")[0] in _EXECUTING for name in named):
        raise pickle.UnpicklingError(", ".join(named))
    # One class for each name: PyTorch looks them up by the class as well.
    stand_ins = [(type("StandIn", (_StandIn,), {}), name) for name in named]
    with safe_globals(stand_ins):
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


class _StandIn(dict[object, object]):
    """Takes the place of an object of another library; keeps entries, in which tensors may lie, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)
