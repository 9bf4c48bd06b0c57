"""What one inference costs on ARM, in instructions counted exactly under emulation."""
