"""Files, folders and patterns as file systems allow them: what is taken or passed over, what results are called."""

import os
from pathlib import Path

import pytest

from tinysam.runtime.errors import ImageError
from tinysam.runtime.image import can_read_heic
from tinysam.runtime.sources import find_sources
from tinysam.runtime.terminal import printable


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def stems(*paths: object, out: str = "") -> list[str]:
    return [source.stem for source in find_sources([str(path) for path in paths], out=out).pictures]


def test_files_of_a_folder_that_are_not_taken_are_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    touch(
        folder,
        "a.jpg",
        "b.PNG",
        "c.jfif",
        "clip.mp4",
        "e.heic",
        "notes.txt",
        ".hidden",
        *(f"{i}.psd" for i in range(6)),
    )
    (folder / "below").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere")
    found = find_sources([str(folder)])
    heic = ["e"] if can_read_heic() else []
    assert [source.stem for source in found.pictures] == ["a", "b", "c", *heic]
    (passed_over,) = found.passed_over
    said = str(passed_over)
    assert "videos, which have to be named one by one (1): clip.mp4" in said
    assert heic or "need pillow-heif (pip install pillow-heif) (1): e.heic" in said
    assert "other files (7): 0.psd, 1.psd, 2.psd, 3.psd, 4.psd and 2 more" in said
    assert "below" in said
    assert "gone.jpg" in said
    assert "hidden" not in said


def test_folder_of_pictures_alone_has_nothing_to_say(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "out").mkdir()
    assert find_sources([str(tmp_path / "in")], out=str(tmp_path / "in" / "out")).passed_over == []


def test_folder_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    touch(tmp_path / "in", "clip.mp4")
    with pytest.raises(ImageError, match=r"no pictures in this folder \(passed over: videos, which"):
        find_sources([str(tmp_path / "in")])


def test_results_beside_the_photographs_are_no_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.overlay.jpg", "a.labels.png", "a.mask-001.png", "b.mask-7.png", "a.coco.json")
    assert stems(tmp_path, out=str(tmp_path)) == ["a"]
    assert "a.overlay" in stems(tmp_path, out=str(tmp_path / "elsewhere"))


def test_results_never_share_a_name(tmp_path: Path) -> None:
    touch(tmp_path / "one", "a.jpg", "a.png", "A.gif", "a_jpg-2.jpg", "e\u0301.jpg", "\u00e9.png")
    touch(tmp_path / "two", "a.jpg")
    names = stems(tmp_path / "one", tmp_path / "two")
    assert len({name.casefold() for name in names}) == len(names) == 7
    assert {"a_jpg", "a_png", "A_gif", "a_jpg-2", "a_jpg-3"} <= set(names)


def test_every_file_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    assert stems("in", "./in/a.jpg", "in/../in/b.jpg", "in/*.jpg", "-", "-") == ["a", "b", "stdin"]


def test_pattern_reaches_down_and_does_not_follow_loops_of_links(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "deep").mkdir()
    touch(tmp_path / "in" / "deep", "b.jpg", ".c.jpg")
    for name in ("again", "once-more"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
    assert stems(tmp_path / "in" / "**" / "*.jpg") == ["a", "b"]
    (tmp_path / "loop").symlink_to("loop")
    assert stems(tmp_path / "loop") == ["loop"]  # reading it fails in its turn


@pytest.mark.parametrize(
    "name",
    [
        "[x].jpg",
        "a b.jpg",
        "line\nbreak.jpg",
        "-dash.jpg",
        "%d{number}.jpg",
        "\u6f22\u5b57 \U0001f431.jpg",
        "." + "x" * 9,
    ],
)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert stems(tmp_path / name) == [Path(name).stem]


def test_names_that_are_not_unicode_or_very_long(tmp_path: Path) -> None:
    undecodable = os.fsdecode(b"caf\xe9.jpg")
    long = "\u00e9" * 120 + ".jpg"
    for name in (undecodable, long, "\u00e9" * 119 + "e.jpg"):
        touch(tmp_path, name)
    first, *others = stems(tmp_path)
    assert first == os.fsdecode(b"caf\xe9")
    assert len(set(others)) == 2
    assert all(len(os.fsencode(stem)) < 170 for stem in others)
    assert printable(f"{undecodable}\n\x1b[31m") == "caf\\udce9.jpg\\n\\x1b[31m"
    assert stems("y" * 5000 + ".jpg")[0].startswith("yyy")


def test_pattern_without_files_and_folder_that_cannot_be_read(tmp_path: Path) -> None:
    for pattern in ("*.jpg", "**/x", "[", "*/../*"):
        if pattern != "[":
            with pytest.raises(ImageError, match="no file matches"):
                find_sources([str(tmp_path / pattern)])
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0)
        with pytest.raises(ImageError, match="cannot be read"):
            find_sources([str(tmp_path / "closed")])
