"""The INT8 report: `report.json` for machines and a self-contained `report.html` for people, beside the artifacts."""

import base64
import html
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinysam.calibration.arrays import Floats
from tinysam.calibration.layer_errors import LayerError
from tinysam.runtime.geometry import LOW_RES_STRIDE

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #d8dee4;"
    "text-align:left;font-variant-numeric:tabular-nums}figure{display:inline-block;margin:.5rem}"
    "img{max-width:22rem;display:block}.bar{background:#3b82f6;height:.7rem;display:inline-block}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}}"
)
FULL_BAR_DB = 60.0
WHEN = ("before", "after")


@dataclass(frozen=True)
class MaskPair:
    """One prompt, answered by both models."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    title: str
    expected: npt.NDArray[np.bool_]
    """(H, W) mask of the float model."""
    found: npt.NDArray[np.bool_]
    """(H, W) mask of the INT8 model."""


@dataclass
class Report:
    """Contents of the report of one INT8 export."""

    model: str
    calibration: dict[str, Any]
    """Description of the image set."""
    operations: dict[str, str] = field(default_factory=dict)
    """Kind of operation, or block that stayed float -> what it is in each engine, and why."""
    decisions: dict[str, Any] = field(default_factory=dict)
    """Target, ranges, judgement per engine (points of mean IoU lost, IoU with fp32 masks, same mask), sensitivity."""
    layers: dict[str, list[LayerError]] = field(default_factory=dict)
    """Part -> its layers in order of execution."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """Path, size, and for INT8 files agreement with PyTorch."""
    pairs: list[MaskPair] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures."""
        layers = {part: [asdict(layer) for layer in found] for part, found in self.layers.items()}
        return {
            "model": self.model,
            "calibration": self.calibration,
            "files": self.files,
            "operations": self.operations,
            **self.decisions,
            "layers": layers,
        }


def overlay(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> str:
    """The picture with a tinted mask, as the text of a data URL."""
    tinted = image.astype(np.float32)
    tinted[mask] = 0.5 * tinted[mask] + 0.5 * np.array([0, 110, 255], np.float32)
    buffer = io.BytesIO()
    Image.fromarray(tinted.astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def table(header: list[str], rows: list[list[str]]) -> str:
    """An HTML table of escaped cells; a cell that starts with `<` is markup of ours."""
    cells = [[cell if cell.startswith("<") else html.escape(cell) for cell in row] for row in rows]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def file_rows(files: list[dict[str, Any]]) -> list[list[str]]:
    """One row per model file."""
    rows = []
    for file in files:
        agreement = file.get("mask_iou")
        rows.append(
            [
                file["path"],
                f"{file['size_bytes'] / 1e6:.2f} MB",
                "" if agreement is None else f"{agreement:.3f}",
                "" if agreement is None else f"{100 * file['same_mask']:.0f} %",
            ]
        )
    return rows


def layer_rows(layers: list[LayerError]) -> list[list[str]]:
    """One row per layer, with a bar for its ratio."""
    rows = []
    for layer in layers:
        share = max(0.0, min(1.0, layer.snr_db / FULL_BAR_DB))
        bar = f'<span class="bar" style="width:{12 * share:.1f}rem"></span>'
        rows.append([layer.name, layer.operation, f"{layer.snr_db:.1f} dB", bar])
    return rows


def with_interval(value: float, half: float | None, digits: int) -> str:
    """A figure with half of its interval, which a single photograph does not have."""
    return f"{value:.{digits}f} +-{half:.{digits}f}" if half is not None else f"{value:.{digits}f}"


def decision_parts(decisions: dict[str, Any]) -> list[str]:
    """How the whole model and each of its blocks alone do, against the float model."""
    if not decisions:
        return []
    whole = [
        [
            engine,
            with_interval(j["drop"], j["drop_error"], 2),
            with_interval(j["agreement"], j["agreement_error"], 3),
            f"{100 * j['same']:.1f} %",
        ]
        for engine, j in decisions["judgements"].items()
    ]
    blocks = [
        [
            row["part"],
            row["block"],
            f"{row['drop']:.2f}",
            f"{row['agreement']:.3f}",
            f"{100 * row['same']:.1f} %",
            f"{row['saved_million_instructions']:.1f} M",
        ]
        for row in decisions["sensitivity"]
    ]
    judged = ["points of mean IoU lost", "IoU with fp32 masks", "same mask chosen"]
    target = html.escape(str(decisions["target"]))
    return [
        f"<p>The INT8 ONNX files are for {target}. Those for arm have signed activations, which x86 hardly runs faster "
        "than float.</p>",
        "<h2>Accuracy against the float model</h2>",
        f"<p>Ranges: {html.escape(str(decisions['ranges']))}. Objects are the float model's own masks of clicks, asked "
        "for again with a jittered box and another click; intervals of 95 % over photographs.</p>",
        table(["engine", *judged], whole),
        *half_parts(decisions.get("fp16")),
        *equalization_parts(decisions.get("equalization", {})),
        "<h2>Every block alone as INT8 (ONNX)</h2>",
        table(["part", "block", *judged, "instructions saved on a Cortex-A76"], blocks),
    ]


def half_parts(trial: dict[str, Any] | None) -> list[str]:
    """Whether what is float may compute in fp16, and if not, why."""
    if trial is None:
        return []
    reason = trial["reason"]
    verdict = f"it computes in fp32 everywhere. {reason}" if reason else "it may compute in fp16 where a processor can."
    return ["<h2>Half precision</h2>", f"<p>What is float in these files: {html.escape(verdict)}</p>"]


def equalization_parts(equalized: dict[str, Any]) -> list[str]:
    """Ranges of the channels of every pair before and after equalization."""
    rows = [
        [row["pair"], str(row["channels"])] + [" ".join(f"{x:g}" for x in row[f"ranges_{when}"]) for when in WHEN]
        for rows in equalized.values()
        for row in rows
    ]
    header = ["makes -> reads", "channels", *(f"{when}: least, median, largest range" for when in WHEN)]
    return ["<h2>Equalized channels</h2>", table(header, rows)] if rows else []


def to_html(report: Report) -> str:
    """The page."""
    images = report.calibration
    parts = [
        f"<h1>INT8 report: {html.escape(report.model)}</h1>",
        f"<p>Calibrated on {len(images['images'])} images from {html.escape(str(images['source']))} "
        f"(SHA-256 {html.escape(str(images['sha256']))[:12]}).</p>",
        "<h2>Files</h2>",
        table(["file", "size", "mask IoU with PyTorch", "same mask chosen"], file_rows(report.files)),
        *decision_parts(report.decisions),
        "<h2>What is integer, what stayed float, and why</h2>",
        table(["operation", "reason"], [list(item) for item in report.operations.items()]),
        "<h2>Masks: PyTorch left, INT8 right</h2>",
    ]
    for pair in report.pairs:
        left, right = overlay(pair.image, pair.expected), overlay(pair.image, pair.found)
        title = html.escape(pair.title)
        parts.append(f'<figure><img src="{left}" alt="float"></figure><figure><img src="{right}" alt="INT8"></figure>')
        parts.append(f"<p>{title}</p>")
    for part, layers in report.layers.items():
        parts += [
            f"<h2>Layers of the {html.escape(part)} (ONNX)</h2>",
            "<p>Ratio of signal to noise against the float graph, with all errors of earlier layers in it.</p>",
            table(["layer", "operation", "ratio", ""], layer_rows(layers)),
        ]
    head = f'<meta charset="utf-8"><title>INT8 report: {html.escape(report.model)}</title><style>{STYLE}</style>'
    return f"<!doctype html>{head}{''.join(parts)}\n"


def write_report(report: Report, folder: Path) -> None:
    """Writes `report.json` and `report.html` to `folder`."""
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False)  # JSON knows no infinity
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(to_html(report), encoding="utf-8")


def low_res_to_picture(mask: Floats, size: tuple[int, int], picture: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A low-res mask as a mask of the picture: (h, w) logits, (height, width) inside the model, of the picture."""
    height, width = (max(1, -(-side // LOW_RES_STRIDE)) for side in size)
    low = Image.fromarray(mask[:height, :width])
    enlarged = low.resize((picture[1], picture[0]), Image.Resampling.BILINEAR)
    found: npt.NDArray[np.bool_] = np.asarray(enlarged) > 0
    return found
