import time
from threading import Lock

import pytest

from tinysam.datasets.reading import ahead


def test_values_come_in_order_and_no_more_than_asked_are_made_in_advance():
    started, lock = [], Lock()

    def read(item: int) -> int:
        with lock:
            started.append(item)
        time.sleep(0.01 * (item % 3))
        return item * item

    found = []
    for value in ahead(read, range(20), threads=2, depth=4):
        found.append(value)
        assert len(started) <= len(found) + 4
    assert found == [item * item for item in range(20)]


def test_an_error_is_raised_where_its_value_would_come():
    values = ahead(lambda item: 1 // item, [1, 1, 0, 1])
    assert [next(values), next(values)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)
