"""Files appear under their name complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path, suffix: str = "") -> Iterator[Path]:
    """A hidden path beside `path`, whose file becomes `path` when the block ends without an error, else goes.

    Other processes and threads may do the same. `suffix`: of the hidden name, for programs that go by it.

    Raises:
        OSError: the folder cannot be made, or the file not be moved.
    """
    partial = path.with_name(f".{path.name}.{os.urandom(3).hex()}.partial{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replaces `path` by `content` at once and on the disk; on failure (a full disk) the old file stays.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with replaced(path) as partial, partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
