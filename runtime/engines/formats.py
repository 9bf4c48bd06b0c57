"""One object per file format: what its files look like and which engine runs them.

All that the runtime, the exporter and the docs know of a format starts here; docs/add-an-engine.md adds one. Only the
standard library is imported: the engine itself is imported by `tinysam.runtime.engines.load`.
"""

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from tinysam.runtime.errors import EngineMissingError


@dataclass(frozen=True)
class Package:
    """A Python package that brings an engine."""

    module: str
    """What is imported."""
    distribution: str
    """What pip installs."""
    least: tuple[int, int]
    """First version that is known to run our files; older ones are refused before they are imported."""
    least_on_device: tuple[int, int] | None = None
    """First version that is right on every ARM processor, if that is another one; see `known_bugs`."""

    @property
    def requirement(self) -> str:
        """For pip."""
        return self._requirement(self.least)

    @property
    def device_requirement(self) -> str:
        """For pip, on a device."""
        return self._requirement(self.least_on_device or self.least)

    def _requirement(self, version: tuple[int, int]) -> str:
        return f"{self.distribution}>={'.'.join(map(str, version))}"

    def installed_version(self) -> str | None:
        """Version of the installed distribution; None if there is none of that name.

        The name of its folder of metadata tells. Importing importlib.metadata takes longer than loading a TFLite model.
        """
        spec, name = find_spec(self.module), self.distribution.replace("-", "_")
        if spec and spec.origin:
            for folder in Path(spec.origin).parents[1].glob(f"{name}-*.dist-info"):
                return folder.name.removeprefix(f"{name}-").removesuffix(".dist-info")
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True)
class FileFormat:
    """One kind of model file and the engine that runs it."""

    name: str
    """In file names, in the manifest and on the command line."""
    title: str
    """The engine's name for people."""
    packages: tuple[Package, ...]
    """Packages that bring the engine; the first one that is installed is used."""
    driver: str
    """Module with the class `ENGINE`, see `tinysam.runtime.engines.Engine`; beside it `<driver>_bench`, which may be
    missing, see `bench_tools`."""
    layout: str
    """Of image, embedding and mask input: `NCHW` or `NHWC`."""
    encode: str
    """Name of the encoder's signature."""
    precisions: tuple[str, ...] = ("fp32", "int8")
    """Which of the manifest's precisions its files have."""
    batches: tuple[tuple[int, int], ...] = ()
    """(prompts, points) of the decoder's signatures; empty: one unnamed signature with free axes."""
    announces: bool = False
    """Whether the engine prints to standard error at its first run in a process, see `load_quietly`; such
    a format has no free axes."""

    @property
    def suffix(self) -> str:
        """Of file names."""
        return f".{self.name}"

    def file_name(self, part: str, precision: str) -> str:
        """Of an encoder or decoder in an artifact folder."""
        return f"{part}.{precision}{self.suffix}"

    @property
    def package(self) -> Package | None:
        """The installed package that brings the engine, None if there is none; imports nothing."""
        return next((package for package in self.packages if find_spec(package.module)), None)

    def bench_tools(self) -> ModuleType | None:
        """The module beside the driver with `product_job(precision, threads, side)` for
        `tinysam.runtime.bench.limit` and `count_macs` for `tinysam.runtime.bench.macs`; None if there is none.
        """
        name = f"{self.driver}_bench"
        return import_module(name) if find_spec(name) else None

    def missing(self, reason: str = "not found") -> EngineMissingError:
        """What to raise when the engine does not import; names the extra that brings it."""
        return EngineMissingError(
            f"backend {self.name} needs the package {self.packages[0].module} ({reason}): "
            f"pip install tinysam-edge[{self.name}]"
        )

    def check_installed(self) -> Package:
        """The package that brings the engine.

        Raises:
            EngineMissingError: it is not installed, or too old: such versions may end the process.
        """
        package = self.package
        if package is None:
            raise self.missing()
        found = package.installed_version()
        if found is not None and _numbers(found) < package.least:
            raise EngineMissingError(
                f"{package.distribution} {found} is too old for these models: pip install '{package.requirement}'"
            )
        return package


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


ONNX = FileFormat(
    name="onnx",
    title="ONNX Runtime",
    packages=(Package("onnxruntime", "onnxruntime", (1, 23), least_on_device=(1, 31)),),
    driver="tinysam.runtime.engines.onnx",
    layout="NCHW",
    encode="",
)
TFLITE = FileFormat(
    name="tflite",
    title="LiteRT",
    # tflite-runtime is what 32-bit ARM has wheels of.
    packages=(
        Package("ai_edge_litert", "ai-edge-litert", (2, 1)),
        Package("tflite_runtime", "tflite-runtime", (2, 14)),
    ),
    driver="tinysam.runtime.engines.tflite",
    layout="NHWC",
    encode="encode",
    precisions=("fp32", "fp16", "int8"),
    # A click or a box; several clicks; 30 clicks and a box. 16 prompts at once were no faster for each of them.
    batches=((1, 2), (1, 8), (1, 32)),
    announces=True,
)
FORMATS = {form.name: form for form in (ONNX, TFLITE)}
"""By name, the default first."""
DEFAULT = next(iter(FORMATS))
