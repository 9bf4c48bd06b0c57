"""What takes the artifacts to a device: bundles, an emulated ARM machine, and the cost of a model on ARM."""
