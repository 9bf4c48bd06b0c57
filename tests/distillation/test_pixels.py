from PIL import Image

from tinysam.distillation.pixels import PixelCache


def test_photographs_are_kept_up_to_the_limit(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10, 10), (number, 0, 0)).save(path)
    cache = PixelCache(limit=2 * 4 * 100)
    assert [cache.read(path).getpixel((0, 0))[0] for path in paths] == [0, 1, 2]
    assert list(cache.images) == paths[:2]
    paths[0].unlink()
    assert cache.read(paths[0]).getpixel((5, 5)) == (0, 0, 0)
