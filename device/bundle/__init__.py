"""Archives that carry the artifacts, a torch-free runtime and an installer to a device."""
