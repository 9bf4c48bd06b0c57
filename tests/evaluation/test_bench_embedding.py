from pathlib import Path

import pytest

from tests.runtime import disc_model
from tinysam.evaluation.bench_embedding import main


def test_float32_is_exact_and_the_times_are_told(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = disc_model.build(tmp_path)
    assert main([str(artifacts), str(drawn), "--precision", "fp32", "--limit", "2", "--threads", "1"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["fresh", "kept", "kept", "float32", "float16"]
    assert told[3].split("mean")[1] == " IoU 1.0000, lowest 1.000, the same 100.0%"
