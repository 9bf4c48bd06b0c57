"""The COCO reader under its former name; it is `tinysam.datasets.coco`, for training as for evaluation."""

from tinysam.datasets.coco import DataError, Mask, Photo, read_coco, read_folder, read_json, try_mask

__all__ = ["DataError", "Mask", "Photo", "read_coco", "read_folder", "read_json", "try_mask"]
