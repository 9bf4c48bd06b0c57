"""PyTorch to ONNX and TFLite: edge graphs, converters, parity checks, publishing."""
