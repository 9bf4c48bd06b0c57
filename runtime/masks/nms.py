"""Non-maximum suppression of boxes."""

import numpy as np
from numpy.typing import NDArray


def nms(boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes to keep, best score first.

    A box goes if its IoU with a better one that stays is above `threshold`; of equal scores the earlier is the better.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        threshold: IoU in 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(boxes), np.bool_)
    kept = []
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        kept.append(index)
        rest = index + 1 + np.flatnonzero(alive[index + 1 :])
        low = np.maximum(boxes[index, :2], boxes[rest, :2])
        high = np.minimum(boxes[index, 2:], boxes[rest, 2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[index] + areas[rest] - overlap
        alive[rest[overlap > threshold * union]] = False
    return order[kept]
