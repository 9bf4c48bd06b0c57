"""One way to segment everything, in a process of its own: for `bench_hierarchical`.

That may start it with the packages of another version of this project, so it uses what every version has.

Reads the path of a picture a line from standard input; writes a line of JSON for each.
"""

import json
import sys
import time
from typing import Any

from PIL import Image

from tinysam.runtime import Segmenter
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings


def main() -> None:
    """The only argument is a job as JSON: artifacts, backend, precision, threads, settings."""
    job = json.loads(sys.argv[1])
    segmenter = Segmenter(job["artifacts"], job["backend"], job["precision"], job["threads"])
    settings = EverythingSettings.of_model(segmenter.manifest.everything, **job["settings"])
    segmenter.graphs.load("encoder")
    segmenter.graphs.load("decoder")
    for line in sys.stdin:
        with Image.open(line.rstrip("\n")) as opened:
            picture = opened.convert("RGB")
        print(json.dumps(_measure(segmenter, picture, settings)), flush=True)


def _measure(segmenter: Segmenter, picture: Image.Image, settings: EverythingSettings) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = segment_everything(segmenter, picture, settings)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "prompts": found.points,
        "drawn": found.drawn,
        "relaxed": bool(found.notes),
        "masks": [{"size": list(mask.rle.size), "counts": mask.rle.to_coco()} for mask in found.masks],
    }


if __name__ == "__main__":
    main()
