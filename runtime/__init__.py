"""The thin runtime: numpy, Pillow and one inference engine.

>>> from tinysam.runtime import Segmenter
>>> segmenter = Segmenter()
>>> segmenter.set_image(image)
>>> masks, iou_predictions, low_res_masks = segmenter.predict(box=[40, 60, 300, 280])

Names are imported when they are first used: `tinysam-run --help` should not wait for numpy.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Manifest": "manifest",
    "read_manifest": "manifest",
    "Prediction": "segmenter",
    "Segmenter": "segmenter",
    "segment_everything": "everything.generator",
    "ArtifactError": "errors",
    "EngineMissingError": "errors",
    "ImageError": "errors",
    "OrderError": "errors",
    "PromptError": "errors",
    "TinySamError": "errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
