import time
from threading import Lock

import pytest
from PIL import Image

from tinysam.datasets.reading import PixelCache, prefetch


def test_values_come_in_order_and_no_more_than_asked_are_made_in_advance():
    started, lock = [], Lock()

    def read(item: int) -> int:
        with lock:
            started.append(item)
        time.sleep(0.01 * (item % 3))
        return item * item

    found = []
    for value in prefetch(read, range(20), threads=2, depth=4):
        found.append(value)
        assert len(started) <= len(found) + 4
    assert found == [item * item for item in range(20)]


def test_an_error_is_raised_where_its_value_would_come():
    values = prefetch(lambda item: 1 // item, [1, 1, 0, 1])
    assert [next(values), next(values)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_photographs_are_kept_up_to_the_limit(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10, 10), (number, 0, 0)).save(path)
    cache = PixelCache(limit=2 * 4 * 100)
    assert [cache.read(path).getpixel((0, 0))[0] for path in paths] == [0, 1, 2]
    assert list(cache.images) == paths[:2]
    paths[0].unlink()
    assert cache.read(paths[0]).getpixel((5, 5)) == (0, 0, 0)
