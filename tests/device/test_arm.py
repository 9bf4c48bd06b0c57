"""The bundle on emulated boards: real aarch64 wheels, masks compared with those of this machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.device.conftest import MATRIX_PAGE, emulator_or_skip, unpack
from tinysam.device.arm.root import BOOKWORM, PI4, PI5, TRIXIE, Board, Release
from tinysam.device.arm.trial import Trial, compare, try_bundle, write_page
from tinysam.device.arm.wheels import install
from tinysam.device.bundle.archive import Choice, build_bundle

MIN_IOU = {"int8": 0.9, "fp32": 0.999}
"""Why INT8 is not nearer to 1: docs/raspberry-pi.md."""
MATRIX = [(TRIXIE, PI5), (BOOKWORM, PI4), (BOOKWORM, PI5), (TRIXIE, PI4)]


def test_the_int8_self_test_passes_on_an_emulated_raspberry_pi_5(bundle: Path, tmp_path: Path) -> None:
    emulator = emulator_or_skip(BOOKWORM, PI5)
    folder = unpack(bundle, tmp_path)
    install(folder / "wheels", tmp_path / "site")
    path = {"PYTHONPATH": f"{tmp_path / 'site'}:{emulator.site}"}
    done = emulator.python([str(folder / "selftest.py"), "tflite"], environment=path, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "tflite int8: encoder" in done.stdout


@pytest.mark.parametrize("board", [PI4, PI5], ids=lambda board: board.cpu)
def test_a_convolution_of_the_most_negative_int8_is_right(board: Board, tmp_path: Path) -> None:
    """Where onnxruntime 1.22 to 1.26 was wrong: an s8s8 convolution whose input is all -128."""
    emulator = emulator_or_skip(BOOKWORM, board)
    model, channels = tmp_path / "conv.onnx", 64
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (32, channels, 3, 3), dtype=np.int8)
    _save_convolution(model, weights)
    script = (
        "import numpy as np, onnxruntime as ort, sys\n"
        f"x = np.full((1, {channels}, 8, 8), -128, np.int8)\n"
        f"print(ort.InferenceSession({str(model)!r}).run(None, {{'x': x}})[0][0, :, 0, 0].astype(int).tolist())"
    )
    done = emulator.python(["-c", script], timeout_s=120)
    assert done.returncode == 0, done.stderr
    exact = weights.astype(np.int64).sum(axis=(1, 2, 3)) * -128
    expected = np.clip(np.rint(exact * (0.02 * 0.01 / 2.0)), -128, 127).astype(int).tolist()
    assert done.stdout.strip() == str(expected)


def _save_convolution(path: Path, weights: np.ndarray) -> None:
    constants = {"w": weights, "sx": np.float32(0.02), "sw": np.float32(0.01), "sy": np.float32(2.0), "z": np.int8(0)}
    node = helper.make_node("QLinearConv", ["x", "sx", "z", "w", "sw", "z", "sy", "z"], ["y"])
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.INT8, (1, weights.shape[1], 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.INT8, (1, weights.shape[0], 6, 6))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="session")
def offline_bundle(artifacts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT8, both engines, with the wheelhouse."""
    return build_bundle(Choice("raspberrypi", artifacts_dir, with_wheels=True), tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def trials() -> Iterator[list[Trial]]:
    """Collects the matrix; its table goes to the page named in the environment once every board has been tried."""
    done: list[Trial] = []
    yield done
    if MATRIX_PAGE and len(done) == len(MATRIX):
        write_page(Path(MATRIX_PAGE), done)


@pytest.mark.skipif(not MATRIX_PAGE, reason="the whole matrix takes long: make test-arm")
@pytest.mark.parametrize(("release", "board"), MATRIX, ids=lambda value: getattr(value, "suite", None) or value.cpu)
def test_installs_offline_and_runs(
    release: Release, board: Board, offline_bundle: Path, artifacts_dir: Path, tmp_path: Path, trials: list[Trial]
) -> None:
    emulator = emulator_or_skip(release, board, engines=False)
    trial = try_bundle(emulator, unpack(offline_bundle, tmp_path), artifacts_dir)
    assert trial.installer.count("mask") == 2
    for (precision, backend), agreement in trial.masks.items():
        print(f"{release.suite} {board.cpu} {backend} {precision}: {agreement}", flush=True)
        assert agreement.iou >= MIN_IOU[precision]
    trials.append(trial)


def test_masks_are_compared() -> None:
    a, b = np.array([[True, True, False]]), np.array([[True, False, False]])
    assert str(compare(a, b)) == "0.5000"
    assert str(compare(a, a)) == "identical"
    assert str(compare(a & ~a, a)) == "0.0000"
