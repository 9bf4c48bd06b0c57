"""What the exporter does for each file format of `tinysam.runtime.engines.formats`; docs/add-an-engine.md adds one.

A `Writer` writes the float files and makes quantizers. `OBSERVED` is the format on whose float files ranges are found
and blocks are judged, for the smaller files of every format.
"""

from tinysam.export.formats.onnx import OnnxWriter
from tinysam.export.formats.tflite import TfliteWriter
from tinysam.export.formats.writer import Quantizer, Writer

__all__ = ["OBSERVED", "WRITERS", "Quantizer", "Writer"]

OBSERVED = OnnxWriter.form
WRITERS: dict[str, Writer] = {writer.form.name: writer for writer in (OnnxWriter(), TfliteWriter())}
"""By the format's name."""
