"""Embeddings on disk: exact, without the encoder, and refused where they do not belong."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tests.runtime.test_engines import replace_file
from tinysam.runtime import ArtifactError, ImageError, OrderError, Segmenter, cli
from tinysam.runtime.embeddings import read_embedding

POINT = ([[20, 20]], [1])


@pytest.fixture
def kept(segmenter: Segmenter, tmp_path: Path) -> Path:
    segmenter.set_image(picture())
    return segmenter.save_embedding(tmp_path / "photo.npz")


def test_a_kept_embedding_answers_in_another_process_without_the_encoder(
    segmenter: Segmenter, kept: Path, disc_artifacts: Path, tmp_path: Path
) -> None:
    expected = segmenter.predict(*POINT)
    np.save(tmp_path / "expected.npy", expected.low_res_masks)
    code = f"""
import numpy as np
from tinysam.runtime import Segmenter
segmenter = Segmenter({str(disc_artifacts)!r}, precision="fp32")
segmenter.graphs.encode = None
segmenter.load_embedding({str(kept)!r})
assert "encoder" not in segmenter.graphs._loaded
expected = np.load({str(tmp_path / "expected.npy")!r})
np.testing.assert_array_equal(segmenter.predict([[20, 20]], [1]).low_res_masks, expected)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_half_precision_is_half_the_size_and_nearly_the_same(segmenter: Segmenter, kept: Path, tmp_path: Path) -> None:
    expected = segmenter.get_image_embedding()
    half = segmenter.save_embedding(tmp_path / "half.npz", "float16")
    assert half.stat().st_size < 0.6 * kept.stat().st_size
    segmenter.load_embedding(half)
    np.testing.assert_allclose(segmenter.get_image_embedding(), expected, rtol=1e-3)
    assert not np.array_equal(segmenter.get_image_embedding(), expected)
    with pytest.raises(ValueError, match="'float64', expected one of float32, float16"):
        segmenter.save_embedding(tmp_path / "other.npz", "float64")


def test_another_model_and_another_photograph_are_refused(segmenter: Segmenter, kept: Path, tmp_path: Path) -> None:
    segmenter.load_embedding(kept, picture())
    with pytest.raises(ImageError, match=r"photo\.npz is the embedding of another photograph"):
        segmenter.load_embedding(kept, picture(seed=1))
    with pytest.raises(ImageError, match="another photograph"):
        segmenter.load_embedding(kept, picture(61, 40))
    segmenter.predict(*POINT)  # a refused file leaves the image that is set
    folder = disc_model.build(tmp_path)
    data = (folder / "encoder.fp32.onnx").read_bytes()
    replace_file(folder, "encoder.fp32.onnx", data.replace(b"disc", b"disk"))
    with pytest.raises(ArtifactError, match="made by another encoder"):
        Segmenter(folder, precision="fp32").load_embedding(kept)


def test_what_is_no_embedding_is_refused_and_nothing_in_it_runs(
    segmenter: Segmenter, kept: Path, tmp_path: Path
) -> None:
    content = kept.read_bytes()
    fields = dict(np.load(kept))
    damaged = {
        "empty": b"",
        "text": b"not an archive",
        "cut off": content[: len(content) // 2],
        "flipped": content[:300] + bytes([content[300] ^ 255]) + content[301:],
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
    np.savez(tmp_path / "pickle.npz", **{**fields, "embedding": np.array([{"a": 1}], object)})
    np.savez(tmp_path / "shape.npz", **{**fields, "embedding": fields["embedding"][:, :, 1:]})
    np.savez(tmp_path / "nan.npz", **{**fields, "embedding": fields["embedding"] * np.nan})
    np.savez(tmp_path / "size.npz", **{**fields, "original_size": np.array([0, 5])})
    np.savez(tmp_path / "fields.npz", embedding=fields["embedding"])
    (tmp_path / "plain.npz").write_bytes(pickle.dumps({"embedding": 1}))
    for path in sorted(set(tmp_path.glob("*.npz")) - {kept}):
        with pytest.raises(ArtifactError, match=r"is not an embedding .*encode the photograph again"):
            segmenter.load_embedding(path)
    with pytest.raises(FileNotFoundError, match="save_embedding"):
        segmenter.load_embedding(tmp_path / "none.npz")
    assert read_embedding(kept).original_size == (40, 60)


def test_saving_needs_an_image(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(OrderError, match="set_image"):
        segmenter.save_embedding(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_the_command_encodes_once(
    disc_artifacts: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs: list[int] = []
    encode = Segmenter.set_image
    monkeypatch.setattr(Segmenter, "set_image", lambda self, *a, **k: (runs.append(1), encode(self, *a, **k))[1])
    folder = tmp_path / "kept"

    def run(path: Path) -> bytes:
        options = ["--model", str(disc_artifacts), "--embeddings", str(folder), "--out", str(tmp_path / "out")]
        assert cli.main([str(path), "--point", "20,20", "--format", "mask", *options]) == 0
        (found,) = (tmp_path / "out").glob(f"{path.stem}*.png")
        return found.read_bytes()

    first = run(photo)
    assert run(photo) == first
    assert len(runs) == 1
    picture(seed=3).save(photo)
    run(photo)
    run(photo)
    assert len(runs) == 2, "another photograph under the same name is encoded again, once"
    assert len(list(folder.iterdir())) == 1
