"""Reports of `tinysam-bench`: tables for people, comparisons of two reports."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from tinysam.runtime.bench.measure import Case

SCHEMA = 1
_VECTOR_FLAGS = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimdhp", "asimddp", "i8mm", "sve")
_PACKAGES = ("numpy", "pillow", "onnxruntime", "ai-edge-litert", "tinysam-edge")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "board": _board(),
        "processor": _processor(),
        "architecture": platform.machine() + vector_flags(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def table(case: Case, figures: dict[str, Any]) -> str:
    """The figures of one case."""
    width, height = figures["image_size"]
    threads = f"{case.threads} thread{'' if case.threads == 1 else 's'}"
    lines = [
        "",
        f"{Path(case.model).name} {case.backend} {case.precision}, {threads}, picture {width} x {height}",
        f"  {'stage':<16}{'median ms':>12}{'p95 ms':>12}{'GMAC':>8}{'GMAC/s':>9}{'of product':>12}",
    ]
    gmac, product = figures.get("gmac", {}), figures.get("product_gmac_s", 0.0)
    for stage, times in figures["stages_ms"].items():
        line = f"  {stage:<16}{times['median']:>12.1f}{times['p95']:>12.1f}"
        if stage in gmac:
            rate = gmac[stage] / times["median"] * 1e3
            line += f"{gmac[stage]:>8.2f}{rate:>9.1f}" + (f"{rate / product:>12.0%}" if product else "")
        lines.append(line)
    for part, duration in figures["load_ms"].items():
        lines.append(f"  {'load ' + part:<16}{duration:>12.1f}")
    lines.append(f"  {'first result':<16}{figures['first_result_ms']:>12.1f}")
    if "everything" in figures:
        found = figures["everything"]
        lines.append(f"  {'everything':<16}{found['ms']:>12.1f}  {found['prompts']} prompts, {found['masks']} masks")
    if product:
        lines.append(f"  a large {figures['product']} matrix product: {product:.1f} GMAC/s")
    memory = ", ".join(f"{what} {megabytes:.0f}" for what, megabytes in figures["rss_mb"].items())
    lines.append(f"  peak memory in MB: {memory}")
    return "\n".join(lines)


def comparison(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Both reports' medians side by side, with the ratio after / before."""
    others = {_key(case): case for case in after["cases"]}
    lines = [f"before: {_where(before)}", f"after:  {_where(after)}"]
    for case in before["cases"]:
        other = others.pop(_key(case), None)
        if other is None:
            continue
        lines += ["", " ".join(_key(case)), f"  {'':<16}{'before':>12}{'after':>12}{'ratio':>9}"]
        rows = [(name, times["median"], "ms") for name, times in case["stages_ms"].items()]
        values = {name: times["median"] for name, times in other["stages_ms"].items()}
        if "everything" in case and "everything" in other:
            rows.append(("everything", case["everything"]["ms"], "ms"))
            values["everything"] = other["everything"]["ms"]
        rows.append(("peak memory", max(case["rss_mb"].values()), "MB"))
        values["peak memory"] = max(other["rss_mb"].values())
        for name, old, unit in rows:
            if name in values:
                new = values[name]
                lines.append(f"  {name:<16}{old:>9.1f} {unit}{new:>9.1f} {unit}{new / old if old else 0:>9.2f}")
    if len(lines) == 2:
        lines.append("the two reports have no model, engine, precision and number of threads in common")
    return "\n".join(lines)


def read_report(path: Path) -> dict[str, Any]:
    """A report that `--json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a report of tinysam-bench --json")
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        if report["schema"] != SCHEMA:
            raise ValueError(f"schema {report['schema']}, expected {SCHEMA}")
        comparison(report, report)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a report of tinysam-bench --json ({error})") from error
    return report


def _key(case: dict[str, Any]) -> tuple[str, ...]:
    return (Path(case["model"]).name, case["backend"], case["precision"], f"{case['threads']} threads")


def _where(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return f"{machine['board'] or machine['processor']}, {machine['architecture']}, picture {report['image']}"


def vector_flags() -> str:
    """The vector extensions that the speed of INT8 and fp32 depends on, as Linux names them; empty elsewhere."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return ""
    return "".join(f" {flag}" for flag in _VECTOR_FLAGS if flag in words)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _board() -> str:
    """Such as `Raspberry Pi 5 Model B Rev 1.0`; empty where no device tree says."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor()
