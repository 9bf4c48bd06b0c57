"""Photographs with masks, as training and evaluation read them, and where a user would click in them."""
