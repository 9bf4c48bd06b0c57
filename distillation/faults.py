"""What of a training set cannot be used: passed over and counted, up to a limit."""

import logging
from pathlib import Path

from tinysam.datasets.coco import DataError

log = logging.getLogger(__name__)


class Damaged(ValueError):
    """A shard or photograph that cannot be used; the message is one line."""

    def __init__(self, where: Path | str, why: object) -> None:
        super().__init__(f"{where}: {why}".splitlines()[0])
        self.where = str(where)


class Faults:
    """Counts damaged shards and photographs, each of them once however often it is met.

    Args:
        limit: how many are passed over.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: set[str] = set()

    def __call__(self, error: Damaged) -> None:
        """Counts one; DataError above the limit."""
        if error.where in self.seen:
            return
        self.seen.add(error.where)
        log.warning("skipped (%d so far): %s", len(self.seen), error)
        if len(self.seen) > self.limit:
            raise DataError(f"more than {self.limit} damaged shards or photographs, the last: {error}")
