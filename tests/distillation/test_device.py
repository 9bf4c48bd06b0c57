"""Padding of a batch; two processes on one machine, started by torchrun, with gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.datasets.drawing import draw
from tests.distillation.flat import batch_of
from tinysam.distillation.device import images, own_device, share_batch_norm
from tinysam.models import get_variant, normalize
from tinysam.models.checkpoint import read_state, weights_path


def arguments(data: Path, out: Path, steps: int) -> list[str]:
    text = (
        f"--data {data} --out {out} --device cpu --precision fp32 --threads 1 --workers 0 --image-size 224 --batch 2 "
        f"--prompts 1 --steps {steps} --decay-steps 1 --warmup 1 --rounds 0.5 --max-rounds 1 --log-every 1 "
        "--ema 0 --learning-rate 0.0001"
    )
    return ["-m", "tinysam.distillation.cli", *text.split()]


def torchrun(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "drawn"
    draw(folder, 4)
    return folder


@pytest.fixture(scope="module")
def two(pictures: Path, tmp_path_factory) -> dict:
    """The checkpoint of two steps by two processes."""
    folder = tmp_path_factory.mktemp("two")
    run(torchrun(arguments(pictures, folder, 2)))
    return checkpoint(folder)


def test_two_processes_give_the_result_of_one(pictures, two, tmp_path):
    run([sys.executable, *arguments(pictures, tmp_path, 2)])
    one = checkpoint(tmp_path)
    start = read_state(weights_path(get_variant("nano"), None))
    moved, apart = 0.0, 0.0
    for name, value in one["model"].items():
        if value.is_floating_point():
            moved += float((value - start[name].float()).square().sum())
            apart += float((value - two["model"][name]).square().sum())
    assert (one["world"], two["world"]) == (1, 2)
    # AdamW's first steps have the size of the rate whatever the gradient's, so rounding flips the sign of tiny ones.
    assert apart < 0.02 * moved


def test_two_processes_resume_exactly(pictures, two, tmp_path):
    run(torchrun(arguments(pictures, tmp_path, 1)))
    assert checkpoint(tmp_path)["step"] == 1
    run(torchrun([*arguments(pictures, tmp_path, 2), "--resume"]))
    resumed = checkpoint(tmp_path)
    assert resumed["step"] == 2
    for part in ("model", "average"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in two[part].items())
    for number, moments in two["optimizer"]["state"].items():
        assert all(torch.equal(value, resumed["optimizer"]["state"][number][name]) for name, value in moments.items())


def test_every_process_under_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [own_device(name) for name in ("cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:1", "cpu"]


def test_a_killed_process_ends_the_run_and_leaves_the_checkpoint(drawn, tmp_path):
    command = torchrun([*arguments(drawn, tmp_path / "run", 500), "--minutes", "0"])
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "run" / "checkpoint.pt").exists():
            assert time.monotonic() < deadline, "no checkpoint"
            assert run.poll() is None
            time.sleep(0.3)
        children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
        assert len(children) >= 2
        os.kill(int(children[-1]), signal.SIGKILL)
        output, _ = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode != 0
    assert "SIGKILL" in output or "Signal 9" in output
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] >= 1


@pytest.fixture
def lone_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_shared_batch_norm_of_one_process_is_batch_norm(lone_group):
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    share_batch_norm(shared)
    x = torch.randn(3, 5, 7, 7) * 3 + 1
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [layer(i) for layer, i in zip((plain, shared), inputs, strict=True)]
    assert torch.allclose(*outputs, atol=1e-5)
    for output in outputs:
        (output**3).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-2, rtol=1e-3)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value.float(), shared.state_dict()[name].float(), atol=1e-5), name


def test_the_padding_is_zero_after_normalization():
    batch = batch_of(1)
    batch.pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    batch.shown = torch.tensor([[8, 5], [3, 8]])
    x = images(batch)
    expected = normalize(batch.pixels.float())
    assert torch.equal(x[0, :, :, :5], expected[0, :, :, :5])
    assert torch.equal(x[1, :, :3], expected[1, :, :3])
    assert not x[0, :, :, 5:].any()
    assert not x[1, :, 3:].any()
