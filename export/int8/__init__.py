"""The INT8 half of an export."""
