"""The two graphs of one artifact folder, behind calls that do not depend on the engine."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime import engines
from tinysam.runtime.contract import ATTEND, PREPARE, UPSCALE, check_contract, fixed_batches
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError, PromptError
from tinysam.runtime.labels import BOX_TOP_LEFT, NEGATIVE, POSITIVE
from tinysam.runtime.manifest import PARTS, PRECISIONS, Manifest, read_manifest, verify_file
from tinysam.runtime.model import Decoded, Model, passed
from tinysam.runtime.preprocess import encoder_input
from tinysam.runtime.process import trim
from tinysam.runtime.prompts import Prompts, pad_prompts

Floats = NDArray[np.float32]

MIXED = "mixed"
"""INT8 encoder, fp32 decoder: most of the speed, and masks and predicted IoU as the decoder was trained."""
CHOICES = (*PRECISIONS, MIXED)


def file_precision(precision: str, part: str) -> str:
    """Which file of a part a choice of precision means."""
    if precision == MIXED:
        return "int8" if part == "encoder" else "fp32"
    return precision


class Graphs(Model):
    """Encoder and decoder of one model, each loaded when it is first used. May be shared between threads."""

    def __init__(
        self,
        folder: Path | str,
        backend: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        """Reads the manifest; loads nothing yet. Arguments are those of `Segmenter`.

        `manifest`: of files that are not published yet, in place of the folder's.

        Raises:
            ValueError: unknown backend or precision, or `threads` below 1.
            FileNotFoundError: there are no artifacts in `folder`.
            ArtifactError: the manifest is damaged or has no such files.
        """
        _check_choice("backend", backend, tuple(FORMATS))
        _check_choice("precision", precision, CHOICES)
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, expected 1 or more")
        self.folder, self.manifest = Path(folder), manifest or read_manifest(folder)
        having = self.manifest.engines_with
        needed = {file_precision(precision, part) for part in PARTS} if precision else ()
        self.backend = backend or engines.default_engine(having(needed) or having(()))
        preferred = (one for one in reversed(PRECISIONS) if self.backend in having({one}))
        self.precision = precision or next(preferred, PRECISIONS[-1])
        self.threads = threads or engines.usable_cores()
        self._files = {
            part: self.manifest.find(part, self.backend, file_precision(self.precision, part)) for part in PARTS
        }
        for file in self._files.values():
            check_contract(self.manifest, file)
        self._batches = fixed_batches(self._files["decoder"])
        self._lock = threading.Lock()
        self._loaded: dict[str, engines.Engine] = {}
        self._prepared = threading.local()

    def __reduce__(self) -> tuple[type["Graphs"], tuple[Path, str, str, int]]:
        """A copy in another process reads the folder again; no loaded engine travels."""
        return type(self), (self.folder.resolve(), self.backend, self.precision, self.threads)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Graphs":
        """Loaded graphs do not change: copies in one process share them."""
        return self

    def with_engine(self, part: str, engine: engines.Engine) -> "Graphs":
        """The same model, but `encoder` or `decoder` run by another engine that takes and gives the same tensors."""
        other = Graphs.__new__(Graphs)
        other.__dict__ = {**self.__dict__, "_loaded": {**self._loaded, part: engine}, "_prepared": threading.local()}
        return other

    def with_quiet_start(self) -> "Graphs":
        """The same model with its encoder loaded by `engines.load_quietly`: for commands that show their progress."""
        file = self._files["encoder"]
        engine = engines.load_quietly(verify_file(self.folder, file), file, self.threads)
        return self.with_engine("encoder", engine)

    def warnings(self) -> list[str]:
        """What the manifest warns of in the files that are used, each once."""
        found = (file.quantization.get("warning") for file in self._files.values() if file.quantization)
        return list(dict.fromkeys(warning for warning in found if warning))

    def encoder_input(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the encoder file takes of a resized photograph, (h, w, 3) RGB in 0 to 255."""
        file = self._files["encoder"]
        (signature,) = file.signatures.values()
        dtype = signature.inputs["image"].dtype
        return encoder_input(pixels, self.manifest, file.input or "normalized", file.layout, dtype)

    def encode(self, image: NDArray[Any]) -> Floats:
        """`encoder_input` -> the photograph's embedding in the file's layout, to be handed to `decode` as it is."""
        (name,) = self._files["encoder"].signatures
        return self._engine("encoder").run(name, {"image": image})["image_embeddings"]

    @property
    def encoder_sha256(self) -> str:
        """Hash of the encoder's file, which embeddings are kept with."""
        return self._files["encoder"].sha256

    def embedding_nchw(self, embedding: Floats) -> Floats:
        """The embedding that `encode` gave, as (1, 256, grid, grid)."""
        return embedding.transpose(0, 3, 1, 2) if self._files["encoder"].layout == "NHWC" else embedding

    def embedding_from_nchw(self, embedding: Floats) -> Floats:
        """The way back: (1, 256, grid, grid) -> what `decode` takes."""
        native = embedding.transpose(0, 2, 3, 1) if self._files["encoder"].layout == "NHWC" else embedding
        return np.ascontiguousarray(native)

    def decode(self, embedding: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """Decodes P prompts: low-res mask logits (P, masks, 4 * grid, 4 * grid) and predicted IoU (P, masks)."""
        if not len(prompts):
            return self._nothing()
        if prompts.mask_input is not None and len(prompts.mask_input) > 1:
            return _join([self.decode(embedding, _slice(prompts, i, i + 1)) for i in range(len(prompts))])
        if self._batches:
            parts = [self._decode_fixed(embedding, chunk) for chunk in self._chunks(prompts)]
            return _join(parts)
        masks, iou = self._decode_free(embedding, prompts, -np.inf)
        if len(masks) < len(prompts):
            raise ArtifactError(f"{self._files['decoder'].path}: predicted IoU is not a number; export the model again")
        return masks, iou

    def decode_above(self, embedding: Floats, prompts: Prompts, iou_threshold: float) -> Decoded:
        """Decodes P prompts of one point, and draws masks only where a predicted IoU is above the threshold.

        The single-mask output is excluded from the threshold test, unless it is the only one.
        """
        if self._batches:
            return self._decode_in_two(embedding, prompts, iou_threshold)
        masks, iou = self._decode_free(embedding, prompts, iou_threshold)
        return Decoded(masks, iou, passed(self.manifest.mask_tokens, iou, iou_threshold))

    def _nothing(self) -> tuple[Floats, Floats]:
        """Masks and predicted IoU of zero prompts."""
        masks, side = len(self.manifest.mask_tokens), self.low_res_side
        return np.empty((0, masks, side, side), np.float32), np.empty((0, masks), np.float32)

    def load(self, part: str) -> float:
        """Loads `encoder` or `decoder` now rather than at its first use; returns the milliseconds that it took."""
        start = time.perf_counter()
        self._engine(part)
        return 1e3 * (time.perf_counter() - start)

    def release(self, part: str) -> bool:
        """Gives the memory of `encoder` or `decoder` back to the system; its next use loads it again.

        False if it is not loaded.
        """
        with self._lock:
            self._prepared = threading.local()
            was_loaded = self._loaded.pop(part, None) is not None
        if was_loaded:
            trim()
        return was_loaded

    def _engine(self, part: str) -> engines.Engine:
        with self._lock:
            if part not in self._loaded:
                file = self._files[part]
                self._loaded[part] = engines.load(verify_file(self.folder, file), file, self.threads)
            return self._loaded[part]

    def _chunks(self, prompts: Prompts) -> list[Prompts]:
        """Cuts prompts into pieces that fit one signature each."""
        points = prompts.coords.shape[1]
        fitting = [size for size, slots, _ in self._batches if slots >= points]
        if not fitting:
            raise PromptError(self._too_many(prompts))
        pieces, start = [], 0
        while start < len(prompts):
            left = len(prompts) - start
            size = max((fit for fit in fitting if fit <= left), default=min(fitting))
            pieces.append(_slice(prompts, start, min(start + size, len(prompts))))
            start += size
        return pieces

    def _too_many(self, prompts: Prompts) -> str:
        """What to say of a prompt with more points than the decoder has slots."""
        slots = max(slots for _, slots, _ in self._batches)
        clicks = int(np.isin(prompts.labels, (POSITIVE, NEGATIVE)).sum(axis=1).max())
        given = f"{clicks} points and a box" if (prompts.labels == BOX_TOP_LEFT).any() else f"{clicks} points"
        return (
            f"{given} in one prompt: this {self.backend} decoder takes {slots - 1} points, or {slots - 2} and a box; "
            "give fewer points, or use the onnx backend"
        )

    def _decode_fixed(self, embedding: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        count, points = prompts.labels.shape
        size, slots, name = next(b for b in self._batches if b[0] >= count and b[1] >= points)
        masks, iou = self._run_decoder(name, embedding, _pad(prompts, size, slots))
        return masks[:count], iou[:count]

    def _decode_free(self, embedding: Floats, prompts: Prompts, iou_threshold: float) -> tuple[Floats, Floats]:
        """Masks of the K prompts that pass, predicted IoU of all, from a decoder with free axes."""
        threshold = np.full(1, iou_threshold, np.float32)
        return self._run_decoder("", embedding, prompts, {"iou_threshold": threshold})

    def _decode_in_two(self, embedding: Floats, prompts: Prompts, iou_threshold: float) -> Decoded:
        """Predicted IoU prompt by prompt, from a decoder with fixed axes, and its second half where one passes."""
        decoder, image, masks, iou = self._engine("decoder"), self._prepare(embedding), [], []
        for coords, labels in zip(prompts.coords, prompts.labels, strict=True):
            found = decoder.run(ATTEND, {**image, "point_coords": coords[None], "point_labels": labels[None]})
            iou.append(found.pop("iou_predictions"))
            if len(passed(self.manifest.mask_tokens, iou[-1], iou_threshold)):
                masks.append(decoder.run(UPSCALE, found)["low_res_masks"])
        all_iou, side = np.concatenate(iou), self.low_res_side
        drawn = np.concatenate(masks) if masks else np.empty((0, all_iou.shape[1], side, side), np.float32)
        return Decoded(drawn, all_iou, passed(self.manifest.mask_tokens, all_iou, iou_threshold))

    def _prepare(self, embedding: Floats) -> dict[str, Floats]:
        """What points on one photograph share, computed for the first of them; each thread keeps its last one."""
        kept: tuple[Floats, dict[str, Floats]] | None = getattr(self._prepared, "of", None)
        if kept is None or kept[0] is not embedding:
            made = self._engine("decoder").run(PREPARE, {"image_embeddings": embedding})
            kept = self._prepared.of = embedding, made
        return kept[1]

    def _run_decoder(
        self, name: str, embedding: Floats, prompts: Prompts, more: Mapping[str, Floats] = MappingProxyType({})
    ) -> tuple[Floats, Floats]:
        file, side = self._files["decoder"], self.low_res_side
        mask = prompts.mask_input
        has_mask = np.full(1, 0 if mask is None else 1, np.float32)
        mask = np.zeros((1, 1, side, side), np.float32) if mask is None else mask
        if file.layout == "NHWC":
            mask = mask.transpose(0, 2, 3, 1)
        outputs = self._engine("decoder").run(
            name,
            {
                "image_embeddings": embedding,
                "point_coords": prompts.coords,
                "point_labels": prompts.labels,
                "mask_input": np.ascontiguousarray(mask),
                "has_mask_input": has_mask,
                **more,
            },
        )
        return outputs["low_res_masks"], outputs["iou_predictions"]


def _join(parts: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    masks, iou = zip(*parts, strict=True)
    return (masks[0], iou[0]) if len(parts) == 1 else (np.concatenate(masks), np.concatenate(iou))


def _slice(prompts: Prompts, start: int, stop: int) -> Prompts:
    mask = prompts.mask_input
    mask = mask if mask is None or len(mask) == 1 else mask[start:stop]
    return Prompts(prompts.coords[start:stop], prompts.labels[start:stop], mask)


def _pad(prompts: Prompts, size: int, slots: int) -> Prompts:
    """Fills up a signature of fixed shape; the mask is one for all prompts."""
    return Prompts(*pad_prompts(prompts.coords, prompts.labels, size, slots), prompts.mask_input)


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
