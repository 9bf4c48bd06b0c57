"""`tinysam-eval`: accuracy of a model on COCO-format images with masks."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from tinysam.evaluation.coco import DataError, Mask, Photo, read_coco
from tinysam.evaluation.engines import ENGINES, ModelChoice
from tinysam.evaluation.prompted import CLICKS, Protocol, evaluate
from tinysam.evaluation.reading import ahead, read_photo
from tinysam.evaluation.records import Records, RecordsError
from tinysam.evaluation.report import band, group_means, table

Item = TypeVar("Item")


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(prog="tinysam-eval", description=__doc__)
    p.add_argument("--data", type=Path, required=True, help="folder with annotations.json and images/")
    p.add_argument("--engine", choices=ENGINES, default="onnx")
    p.add_argument("--artifacts", type=Path, help="artifact folder (onnx, tflite)")
    p.add_argument("--precision", choices=("int8", "fp32"), default="int8")
    p.add_argument("--variant", default="nano", help="(torch)")
    p.add_argument("--checkpoint", type=Path, help="weights (torch; default: the embedded ones)")
    p.add_argument("--image-size", type=int, help="side of the input (torch)")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    p.add_argument("--no-box", action="store_true", help="leave out box prompts")
    p.add_argument("--clicks", type=int, nargs="*", default=list(CLICKS), help="numbers of clicks to report")
    p.add_argument("--max-masks", type=int, default=0, help="of a photograph, evenly spread over its list (0: all)")
    p.add_argument("--limit", type=int, default=0, help="photographs, evenly spread over the set (0: all)")
    p.add_argument("--out", type=Path, help="folder for records and summary; a stopped run continues there")
    p.add_argument("--by", choices=("source", "size", "category"), default="source")
    return p


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced in the list; all if `most` is 0."""
    if not most or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def rows_of(photo: Photo, masks: Sequence[Mask], found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """The scores with what they are grouped by."""
    pixels = photo.width * photo.height
    return [
        {"id": mask.id, "source": photo.source, "size": band(mask.area / pixels), **values}
        for mask, values in zip(masks, found, strict=True)
    ]


def run(args: argparse.Namespace) -> None:
    """Evaluates and prints."""
    choice = ModelChoice(
        args.engine, args.artifacts, args.precision, args.variant, args.checkpoint, args.image_size, args.threads
    )
    protocol = Protocol(not args.no_box, tuple(args.clicks))
    photos = spread(read_coco(args.data), args.limit)
    settings = {"model": choice.identity(), "protocol": str(protocol), "masks": args.max_masks, "data": str(args.data)}
    out = args.out or Path(f"runs/eval-{time.strftime('%Y%m%d-%H%M%S')}")
    records = Records(out / "records.jsonl", settings)
    segmenter = choice.open()
    left = [photo for photo in photos if str(photo.id) not in records]
    start, unreadable = time.monotonic(), []
    for photo, image in tqdm(ahead(read_photo, left), total=len(left), unit="image", disable=None):
        if image is None:
            unreadable.append(photo.path.name)
            continue
        masks = spread(photo.masks, args.max_masks)
        records.add(str(photo.id), rows_of(photo, masks, evaluate(segmenter, image, masks, protocol)))
    seconds = time.monotonic() - start
    if unreadable:
        print(f"tinysam-eval: {len(unreadable)} pictures cannot be read: {', '.join(unreadable[:5])}", file=sys.stderr)
    rows = [row for found in records.lines.values() for row in found]
    columns = [c for n in protocol.names() for c in (n, f"{n}_best", f"{n}_single") if rows and c in rows[0]]
    groups = group_means(rows, args.by, columns)
    summary = {
        **settings,
        "images": len(records.lines),
        "seconds": seconds,
        "evaluated_now": len(left),
        "mean_iou": groups,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(groups, columns))
    print(f"{len(left)} images in {seconds:.1f} s; records in {out}")


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        run(parser().parse_args())
    except (DataError, RecordsError, OSError, ValueError, RuntimeError) as error:
        print(f"tinysam-eval: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
