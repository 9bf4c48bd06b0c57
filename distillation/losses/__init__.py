"""The losses, one file each, with equation and source."""
