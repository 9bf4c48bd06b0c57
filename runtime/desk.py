"""Entry points of the commands for a workstation: without their packages, one line says which extra to install.

A device has numpy, Pillow and an engine, and the same wheel puts every command there.
"""

import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec

from tinysam.runtime.cli import version_line

MODULES = {
    "export": ("torch", "safetensors", "skimage", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
    "train": ("torch", "safetensors", "pycocotools", "scipy", "tensorboard", "matplotlib", "tqdm", "webdataset"),
    "eval": ("pycocotools", "scipy", "tqdm"),
}
"""Extra -> modules that it brings and its commands import."""
EXIT_MISSING = 1


def run(command: str, module: str, extra: str) -> int:
    """Calls `main` of a module; returns its exit code, or 1 after one line on stderr if packages are missing."""
    if sys.argv[1:] == ["--version"]:
        print(version_line(command))
        return 0
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        print(
            f"{command}: not installed: {', '.join(missing)}; this command needs the project with its extra [{extra}], "
            f"as pip install '.[{extra}]' in the source folder installs it",
            file=sys.stderr,
        )
        return EXIT_MISSING
    code: int = import_module(module).main()
    return code


export = partial(run, "tinysam-export", "tinysam.export.cli", "export")
calibrate = partial(run, "tinysam-calibrate", "tinysam.export.calibrate_cli", "export")
distill = partial(run, "tinysam-distill", "tinysam.distillation.cli", "train")
evaluate = partial(run, "tinysam-eval", "tinysam.evaluation.cli", "eval")
