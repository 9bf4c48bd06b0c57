"""Child process of `tinysam-bench`: reads a job as JSON from standard input, writes its figures to standard output."""

import json
import sys

from tinysam.runtime.process import quiet_native, use_one_blas_thread


def main() -> int:
    """Measures; returns the exit code."""
    job = json.load(sys.stdin)
    use_one_blas_thread()  # as tinysam-run does
    from tinysam.runtime.bench.measure import Case, measure

    image, repeats, everything = job.pop("image"), job.pop("repeats"), job.pop("everything")
    try:
        with quiet_native():
            figures = measure(Case(**job), image, repeats, everything)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"tinysam-bench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
