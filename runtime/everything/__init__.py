"""Segment everything: a grid of points, filters, non-maximum suppression; plain (SAM) and hierarchical (TinySAM)."""
