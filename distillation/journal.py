"""The record of a run: a csv file, TensorBoard, and a picture of the curves at the end."""

import csv
import io
from pathlib import Path

from tinysam.distillation.checkpoints import write_atomically

FIELDS = ("step", "seconds", "learning_rate", "loss", "iou_box", "iou_click", "iou_further", "norm", "loading_share")


class Journal:
    """Appends a row per interval; rows of steps that a resumed run does again are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        kept = [row for row in read_rows(self.path) if int(row["step"]) <= step]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, FIELDS)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.path, buffer.getvalue().encode())

    def add(self, row: dict[str, float]) -> None:
        """Writes one row at once, so that a killed run keeps it."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a log; none if there is no log. A last line cut short is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.get(name) for name in FIELDS)]
