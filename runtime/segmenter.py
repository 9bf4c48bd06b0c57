"""Segment an image by prompts: the costly step is `set_image`, the cheap one `predict`."""

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysam.runtime import embeddings, preprocess
from tinysam.runtime.errors import ImageError, OrderError
from tinysam.runtime.geometry import Frame
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import Manifest
from tinysam.runtime.mask_choice import ambiguous_masks, choose_mask, select_masks, take_masks
from tinysam.runtime.masks.clean import clean_masks
from tinysam.runtime.model import Decoded, Model
from tinysam.runtime.prompts import Prompts, assemble

Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """What `predict` returns; unpacks as SAM's three values. `predict_batch` puts an axis P in front of each."""

    masks: NDArray[Any]
    """(C, height, width) bool in the original frame; float32 logits with `return_logits`."""
    iou_predictions: Floats
    """(C,) the model's own estimate of each mask's IoU with the true one."""
    low_res_masks: Floats
    """(C, 4 * grid, 4 * grid) logits, to be handed back as `mask_input`."""


class Segmenter:
    """One model on one engine, with at most one image set.

    An object holds the image between `set_image` and `predict`, so each thread needs its own: `clone()` gives another
    one that shares the loaded model.
    """

    def __init__(
        self,
        model_dir: Path | str | None = None,
        backend: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Reads the model's manifest; the graphs are loaded when first needed.

        Args:
            model_dir: artifact folder; None searches for one, see `tinysam.runtime.locate`.
            backend: `onnx` or `tflite`; None takes the first that is installed of those that the model has files of
                this precision for.
            precision: `int8`, `fp16` (TFLite: half precision), `fp32`, or `mixed` (INT8 encoder, fp32 decoder); None
                takes `int8` if the model has it.
            threads: of the engine; None takes every core this process may use.

        Raises:
            ValueError: unknown backend or precision, or `threads` below 1.
            FileNotFoundError: no artifacts there.
            ArtifactError: damaged artifacts, or none for this backend and precision.
        """
        self.graphs: Model = Graphs(find_artifacts(model_dir), backend, precision, threads)
        """The loaded model, shared with clones."""
        self.timing_ms: dict[str, float] = {}
        """How long the stages of the last `set_image` took."""
        self._frame: Frame | None = None
        self._embedding: Floats | None = None
        self._pixels: NDArray[Any] | None = None
        self._image_sha256: str | None = None

    @property
    def manifest(self) -> Manifest:
        """Manifest of the model's artifact folder."""
        return self.graphs.manifest

    def clone(self) -> "Segmenter":
        """Another segmenter with the same loaded model and no image: one for each thread."""
        other = copy.copy(self)
        other.reset_image()
        return other

    def set_image(self, image: Any, image_format: str = "RGB") -> None:
        """Runs the encoder on an image, to be segmented by any number of `predict` calls.

        Args:
            image: uint8 (height, width, 3), or a PIL picture of any mode (its EXIF orientation is not applied, its ICC
                profile is). Other numbers, depths and bands are brought to that, with a warning.
            image_format: channel order of an array, `RGB` or `BGR`.

        Raises:
            ImageError: no numbers, or another shape.
            EngineMissingError: the engine is not installed.
            ArtifactError: a graph is missing, damaged or contradicts the manifest.
        """
        self.reset_image()
        picture = preprocess.to_pil(image, image_format)
        frame = Frame((picture.height, picture.width), self.manifest.image_size)
        start = time.perf_counter()
        pixels = preprocess.resize(picture, frame)
        resize_ms = 1e3 * (time.perf_counter() - start)
        self.set_resized(pixels, frame.original_size)
        self.timing_ms["resize"] += resize_ms

    def set_resized(self, pixels: NDArray[Any], original_size: tuple[int, int]) -> None:
        """As `set_image`, for an image that has been resized already.

        Args:
            pixels: RGB in 0 to 255, (height, width, 3) with the long side equal to the model's `image_size`.
            original_size: (height, width) of the photograph, the frame of prompts and masks.

        Raises:
            ImageError: another size than the photograph has in the model.
        """
        self.reset_image()
        frame = Frame(original_size, self.manifest.image_size)
        if pixels.shape != (*frame.input_size, 3):
            raise ImageError(f"image has shape {pixels.shape}, expected {(*frame.input_size, 3)}")
        loaded_ms = self.graphs.load("encoder")
        start = time.perf_counter()
        inputs = self.graphs.encoder_input(pixels)
        normalized = time.perf_counter()
        embedding = self.graphs.encode(inputs)
        self.timing_ms = {
            "load encoder": loaded_ms,
            "resize": 1e3 * (normalized - start),
            "encoder": 1e3 * (time.perf_counter() - normalized),
        }
        self._frame, self._embedding = frame, embedding
        self._pixels = pixels

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool | None = True,
        return_logits: bool = False,
        clean: bool = False,
    ) -> Prediction:
        """Masks of one object of the image, as SAM's `SamPredictor.predict`.

        Args:
            point_coords: (N, 2) x and y in pixels of the original image, None for no points.
            point_labels: (N,) 1 for a point on the object, 0 for one off it.
            box: (4,) x0, y0, x1, y1 in pixels of the original image. It is cut off at the image's border.
            mask_input: (1, 4 * grid, 4 * grid) logits, from `low_res_masks` of an earlier call.
            multimask_output: True: three masks for an ambiguous prompt. False: one; of a model without a
                single-mask output it is the one of the three with the highest predicted IoU. None: the one that
                a user gets, see `tinysam.runtime.mask_choice`.
            return_logits: True: float32 logits in place of bool masks.
            clean: True: without small islands and holes, by the manifest's `cleaning`; False: SAM's exact answer.

        Raises:
            OrderError: `set_image` was not called.
            PromptError: a prompt outside the image, empty, not finite, or of a wrong shape.
        """
        batch = self.predict_batch(
            None if point_coords is None else _one(point_coords),
            None if point_labels is None else _one(point_labels),
            None if box is None else np.asarray(box).reshape(1, -1) if np.size(box) else [],
            None if mask_input is None else _one(mask_input),
            multimask_output=multimask_output,
            return_logits=return_logits,
            clean=clean,
        )
        return Prediction(*(part[0] for part in batch))

    def predict_batch(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool | None = True,
        return_logits: bool = False,
        clean: bool = False,
    ) -> Prediction:
        """Masks of P objects at once.

        Args:
            point_coords: (P, N, 2) x and y in pixels of the original image.
            point_labels: (P, N).
            boxes: (P, 4).
            mask_input: (P, 1, 4 * grid, 4 * grid), or (1, 1, ...) for all prompts.
            multimask_output: see `predict`.
            return_logits: see `predict`.
            clean: see `predict`.

        Returns:
            `Prediction` with masks (P, C, height, width), iou_predictions (P, C), low_res_masks (P, C, ...).

        Raises:
            OrderError, PromptError: see `predict`.
        """
        frame = self.frame
        low_res, iou = self.decode(
            self.prompts(point_coords, point_labels, boxes, mask_input), multimask_output=multimask_output
        )
        if clean:
            low_res = clean_masks(low_res, self.manifest.cleaning, frame.low_res_size)
        upscale = frame.upscaler.logits if return_logits else frame.upscaler.masks
        return Prediction(upscale(low_res), iou, low_res)

    def prompts(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        in_model_frame: bool = False,
    ) -> Prompts:
        """Prompts as the decoder takes them; arguments as `predict_batch`, frames and errors as `prompts.assemble`."""
        return assemble(
            self.frame,
            self.graphs.low_res_side,
            point_coords,
            point_labels,
            boxes,
            mask_input,
            self.manifest.box_masks,
            in_model_frame,
        )

    def decode(self, prompts: Prompts, multimask_output: bool | None = True) -> tuple[Floats, Floats]:
        """Low-res logits (P, C, 4 * grid, 4 * grid) and predicted IoU (P, C) of prompts in the model frame."""
        masks, iou = self.graphs.decode(self.features, prompts)
        if multimask_output is None:
            rule, tokens = self.manifest.mask_choice, self.manifest.mask_tokens
            return take_masks(masks, iou, choose_mask(rule, tokens, iou, prompts.ambiguous, masks))
        return select_masks(self.manifest.mask_tokens, masks, iou, multimask_output)

    def decode_above(self, prompts: Prompts, iou_threshold: float, single_mask: bool = False) -> Decoded:
        """The ambiguous three masks of those prompts (a point each) of which one has a higher predicted IoU.

        The others are never drawn, which spares two fifths of the decoder's work for each. With `single_mask` the mask
        of the single-mask output comes as well, before the three, if the model has one.
        """
        found = self.graphs.decode_above(self.features, prompts, iou_threshold)
        if single_mask:
            return found
        masks, _ = select_masks(self.manifest.mask_tokens, found.masks, found.iou[found.kept], True)
        return Decoded(masks, found.iou[:, ambiguous_masks(self.manifest.mask_tokens)], found.kept)

    def save_embedding(self, path: Path | str, dtype: str = "float32") -> Path:
        """Writes the image's embedding to an npz file, for `load_embedding` in another process.

        Args:
            path: of the file.
            dtype: `float32`, exact; or `float16`, half the size: fine for fp32 files, not for INT8 (docs/runtime.md).

        Raises:
            OrderError: no image is set.
            ValueError: another dtype.
            OutputError: the file cannot be written.
        """
        frame, embedding = self.frame, self.get_image_embedding()
        if self._image_sha256 is None and self._pixels is not None:
            self._image_sha256 = embeddings.image_sha256(self._pixels, frame.original_size)
        kept = embeddings.KeptEmbedding(
            embedding, frame.original_size, frame.image_size, self.graphs.encoder_sha256, self._image_sha256 or ""
        )
        embeddings.write_embedding(kept, Path(path), dtype)
        return Path(path)

    def load_embedding(self, path: Path | str, image: Any = None, image_format: str = "RGB") -> None:
        """Sets the image whose embedding is in a file; the encoder is neither run nor loaded.

        Args:
            path: of a file that `save_embedding` wrote with this model, engine and precision.
            image: the photograph, to make sure that the embedding is its; None trusts the caller.
            image_format: see `set_image`.

        Raises:
            FileNotFoundError: there is no such file.
            ArtifactError: it is damaged, or another encoder made it.
            ImageError: it is the embedding of another photograph than `image`.
        """
        start = time.perf_counter()
        kept = embeddings.read_embedding(Path(path))
        photograph = None
        if image is not None:
            picture = preprocess.to_pil(image, image_format)
            frame = Frame((picture.height, picture.width), self.manifest.image_size)
            photograph = embeddings.image_sha256(preprocess.resize(picture, frame), frame.original_size)
        embeddings.check_owner(kept, Path(path), self.graphs.encoder_sha256, photograph)
        self.reset_image()
        self._frame = Frame(kept.original_size, kept.image_size)
        self._embedding = self.graphs.embedding_from_nchw(kept.embedding)
        self._image_sha256 = kept.image_sha256
        self.timing_ms = {"load embedding": 1e3 * (time.perf_counter() - start)}

    @property
    def frame(self) -> Frame:
        """Geometry of the image; OrderError if there is none."""
        if self._frame is None:
            raise OrderError("no image is set: call set_image(image) first")
        return self._frame

    @property
    def features(self) -> Floats:
        """The embedding in the engine's own layout; OrderError if no image is set."""
        if self._embedding is None:
            raise OrderError("no image is set: call set_image(image) first")
        return self._embedding

    @property
    def is_image_set(self) -> bool:
        """Whether `predict` can be called."""
        return self._embedding is not None

    def get_image_embedding(self) -> Floats:
        """The image's embedding, float32 (1, 256, grid, grid); OrderError if no image is set."""
        return self.graphs.embedding_nchw(self.features)

    def reset_image(self) -> None:
        """Forgets the image."""
        self._frame = self._embedding = self._pixels = self._image_sha256 = None
        self.timing_ms = {}


def _one(values: ArrayLike) -> Any:
    """The values of one prompt as those of a batch; nothing stays nothing."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different length: the check of the prompts says so
        return [values]
    return array[None] if array.size else []
