"""Moving a finished folder into place, and everything that may go wrong on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinysam.export import publish
from tinysam.export.errors import ExportError


def put(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(text)


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    destination = tmp_path / "nano-448"
    put(destination, "old")
    (destination / "left-over").touch()
    with publish.workspace(destination) as folder:
        put(folder, "new")
        publish.publish(folder, destination)
    assert {path.name for path in destination.iterdir()} == {"file"}
    assert (destination / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["nano-448"]


def test_a_failed_export_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "nano-448"
    put(destination, "old")

    def interrupted() -> None:
        with publish.workspace(destination) as folder:
            put(folder, "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (destination / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["nano-448"]


def test_an_export_killed_between_the_two_moves_is_undone_by_the_next(tmp_path: Path) -> None:
    destination = tmp_path / "nano-448"
    put(publish.previous(destination), "old")
    publish.recover(destination)
    assert (destination / "file").read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from tinysam.export import publish
with publish.workspace(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_exports_left_is_removed_but_not_what_others_are_writing(tmp_path: Path) -> None:
    destination = tmp_path / "nano-448"
    assert subprocess.run([sys.executable, "-c", KILLED, str(destination)], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with publish.workspace(destination) as other:
        put(other, "half")
        assert set(tmp_path.iterdir()) == {other, other.with_name(f"{other.name}.lock")}
        with publish.workspace(destination):
            assert (other / "file").read_text() == "half"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["file", "no permission"])
def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, obstacle: str) -> None:
    parent = tmp_path / "artifacts"
    if obstacle == "file":
        parent.write_text("not a folder")
    else:
        parent = Path("/proc/artifacts") if os.geteuid() == 0 else parent
        if os.geteuid() != 0:
            parent.mkdir(mode=0o500)
    with (
        pytest.raises(ExportError, match=f"cannot write to {parent}: .*; choose another --out"),
        publish.workspace(parent / "nano-448"),
    ):
        pass


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def fill() -> None:
        with publish.workspace(tmp_path / "nano-448"), Path("/dev/full").open("w") as disk:
            disk.write("x")

    with pytest.raises(ExportError, match="writing artifacts failed: No space left on device"):
        fill()
    assert list(tmp_path.iterdir()) == []
