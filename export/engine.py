"""Model files in their engines, quietly."""

from pathlib import Path

import numpy as np

from tinysam.runtime import engines
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import ModelFile
from tinysam.runtime.quiet import quiet_native


def load_engine(folder: Path, file: ModelFile, threads: int | None = None) -> engines.Engine:
    """One file of an artifact folder, ready to run; without `threads` on every core.

    LiteRT announces its delegate on standard error at the first run of a process, in the middle of a line of progress;
    this run is therefore made here.
    """
    with quiet_native():
        engine = engines.load(folder / file.path, file, threads or engines.usable_cores())
        if FORMATS[file.engine].announces:
            name, signature = next(iter(file.signatures.items()))
            engine.run(
                name,
                {key: np.zeros([int(n) for n in spec.shape], spec.dtype) for key, spec in signature.inputs.items()},
            )
    return engine
