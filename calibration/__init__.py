"""Static INT8 from a representative image set, for ONNX Runtime and LiteRT."""
