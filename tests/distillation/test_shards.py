import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.datasets.drawing import draw
from tinysam.datasets.coco import DataError
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.shards import JPEG_END, ShardBatches, find_shards, shard_loader


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six drawn pictures in SA-1B's layout, two a shard."""
    drawn = tmp_path / "drawn"
    draw(drawn, 6)
    content = json.loads((drawn / "annotations.json").read_text())
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        with tarfile.open(folder / f"sa_{number:06}.tar", "w") as tar:
            for image in content["images"][2 * number : 2 * number + 2]:
                found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
                buffer = io.BytesIO()
                Image.open(drawn / "images" / image["file_name"]).save(buffer, "JPEG")
                add(tar, f"./sa_{image['id']}.jpg", buffer.getvalue())
                add(tar, f"./sa_{image['id']}.json", json.dumps({"image": image, "annotations": found}).encode())
    return folder


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(image_size=224, batch=2, prompts=2, steps=7, decay_steps=0, paste_share=0.5)


def read(shards: Path, recipe: Recipe, start: int = 0, workers: int = 0, **options) -> list[torch.Tensor]:
    batches = ShardBatches(find_shards(shards), recipe, start, **options)
    return [batch.pixels for batch in shard_loader(batches, workers)]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_resume_exactly(shards, recipe, workers):
    through = read(shards, recipe, workers=workers)
    resumed = read(shards, recipe, start=3, workers=workers)
    assert len(through) == 7
    assert all(torch.equal(a, b) for a, b in zip(through[3:], resumed, strict=True))


def test_processes_read_different_shards(shards, recipe):
    first, second = (read(shards, recipe, rank=rank, world=2) for rank in (0, 1))
    assert [b.shape for b in first] == [b.shape for b in second] == [(1, 3, 224, 224)] * 7
    assert not any(torch.equal(a, b) for a in first for b in second)


def test_a_truncated_shard_is_passed_over(shards, recipe, caplog):
    damaged = shards / "sa_000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert len(read(shards, recipe)) == 7
    assert "skipped (1 so far)" in caplog.text
    assert f"{damaged}: unexpected end of data" in caplog.text


def test_a_shard_that_is_damaged_in_every_epoch_is_counted_once(shards, recipe):
    damaged = shards / "sa_000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert len(read(shards, recipe, limit=1)) == 7


def test_a_damaged_picture_is_replaced_by_the_one_before_it(shards, recipe, caplog):
    annotations = json.loads((shards.parent / "drawn/annotations.json").read_text())
    with tarfile.open(shards / "sa_000001.tar", "w") as tar:
        found = [a for a in annotations["annotations"] if a["image_id"] == 2]
        add(tar, "sa_2.jpg", b"no picture, but it ends like one" + JPEG_END)
        add(tar, "sa_2.json", json.dumps({"image": annotations["images"][2], "annotations": found}).encode())
    plain = replace(recipe, augmented=False)
    through = read(shards, plain, limit=1)
    assert len(through) == 7
    assert caplog.text.count("cannot be read") == 1
    assert all(torch.equal(a, b) for a, b in zip(through[3:], read(shards, plain, start=3), strict=True))


def test_nothing_to_put_in_the_place_of_a_damaged_picture_stops_the_run(shards, recipe):
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            files = {name: tar.extractfile(name).read() for name in tar.getnames()}
        with tarfile.open(path, "w") as tar:
            for name, content in files.items():
                add(tar, name, JPEG_END if name.endswith(".jpg") else content)
    with pytest.raises(DataError, match="cannot be used, and none of 0 before it"):
        read(shards, recipe)


def test_too_many_damaged_shards_stop_the_run(shards, recipe):
    damaged = shards / "sa_000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(DataError, match="more than 0 damaged shards or photographs"):
        read(shards, recipe, limit=0)


def test_shards_without_usable_masks_are_refused(shards, recipe):
    for path in shards.glob("*.tar"):
        with tarfile.open(path, "w") as tar:
            add(tar, "a.jpg", b"\xff\xd9")
            add(tar, "a.json", json.dumps({"image": {"width": 9, "height": 9}, "annotations": []}).encode())
    with pytest.raises(DataError, match="no usable photograph in 3 shards"):
        read(shards, recipe)


def test_more_readers_than_shards_are_refused(shards, recipe):
    with pytest.raises(DataError, match="3 shards for 4 readers"):
        read(shards, Recipe(batch=4), world=4)


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(DataError, match="no .tar shards"):
        find_shards(tmp_path)
