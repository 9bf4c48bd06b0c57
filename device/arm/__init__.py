"""An arm64 Debian without a board: packages unpacked into a folder and run under QEMU's user-mode emulation."""
