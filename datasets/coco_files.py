"""COCO sets as tools write them: where the annotation file is, how it is encoded and numbered, where its pictures are.

Layouts: `annotations.json` or LabelStudio's `result.json` beside `images/`; FiftyOne's `labels.json` beside `data/`;
Roboflow's `_annotations.coco.json` among the pictures; `annotations/instances_val2017.json` beside `val2017/`, as COCO
and CVAT have it.
"""

import json
import re
from collections import Counter
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Files of a folder that are taken for photographs."""
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is missing, damaged, or no picture."""

_NAMES = ("annotations.json", "_annotations.coco.json", "result.json", "labels.json", "coco.json")
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_SPLIT = re.compile(r"^(instances_|lvis_v\d_)?(?P<split>.+)$")


class DataError(ValueError):
    """A data set that cannot be used; the message is one line."""


def annotation_file(data: Path) -> Path:
    """The annotation file of a set, given by its folder or by that file itself.

    Raises:
        DataError: the folder has several, and none of them is the usual one.
    """
    if not data.is_dir():
        return data
    for name in _NAMES:
        if (data / name).is_file():
            return data / name
    found = sorted(data.glob("annotations/*.json")) or sorted(data.glob("*/_annotations.coco.json"))
    found = [path for path in found or sorted(data.glob("*.json")) if not path.name.startswith(_OTHER_TASKS)]
    complete = [path for path in found if any((data / folder / _split(path)).is_dir() for folder in ("", "images"))]
    if len(found) > 1 and len(complete) != 1:
        names = ", ".join(str(path.relative_to(data)) for path in found[:5])
        raise DataError(f"{data}: several annotation files ({names}); give one of them in place of the folder")
    return (complete or found or [data / _NAMES[0]])[0]


def read_json(path: Path) -> dict[str, Any]:
    """The content of an annotation file with whole numbers as ids.

    It may be UTF-8, UTF-16 or UTF-32, with a byte order mark or without, or in the code page of Windows. Ids that are
    text, as some tools write them, are replaced by numbers in the file's order.

    Raises:
        DataError: the file is missing, no JSON, or not COCO's.
    """
    try:
        data = path.read_bytes()
        try:
            content = json.loads(data)
        except UnicodeDecodeError:
            content = json.loads(data.decode("cp1252", "replace"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected COCO annotations") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected COCO annotations") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: no list of images; expected COCO annotations")
    try:
        _number(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not COCO annotations ({error!r})") from error
    return content


def _number(content: dict[str, Any]) -> None:
    """Makes ids and references to them whole numbers, in place."""
    images, annotations = content["images"], content.get("annotations") or []
    categories = content.get("categories") or []
    content["annotations"] = annotations
    for items, reference in ((images, "image_id"), (categories, "category_id"), (annotations, None)):
        numbers = _numbers([str(item.get("id", position)) for position, item in enumerate(items)])
        for position, item in enumerate(items):
            item["id"] = numbers[str(item.get("id", position))]
        for annotation in annotations if reference else []:
            if reference in annotation:
                annotation[reference] = numbers.get(str(annotation[reference]), annotation[reference])


def _numbers(ids: list[str]) -> dict[str, int]:
    """Number of each id: itself, if all are whole numbers; else its place, from 1."""
    if all(re.fullmatch(r"-?\d{1,18}", one) for one in ids):
        return {one: int(one) for one in ids}
    return {one: place for place, one in enumerate(dict.fromkeys(ids), start=1)}


class Pictures:
    """Finds the photographs of an annotation file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        """`path` and `content` of the annotation file."""
        base = path.parent.parent if path.parent.name.lower() in ("annotations", "labels") else path.parent
        split = _split(path)
        folders = ("images", f"images/{split}", split, "data", "")
        self._base, self._roots = base, list(dict.fromkeys([*(base / one for one in folders), path.parent]))
        last = Counter(names[0][-1] for image in content["images"] if (names := _names(image)))
        self._unique = {name for name, count in last.items() if count == 1}

    def find(self, image: dict[str, Any]) -> Path:
        """File of an entry of `images`; where it would be, if it is not there.

        Of a path from another machine leading folders are left out until the rest is found, if no other photograph of
        the set has the same name.

        Raises:
            KeyError: the entry names no file.
        """
        given = Path(str(image.get("file_name", "")))
        if given.is_absolute() and given.is_file():
            return given
        names = _names(image)
        for name in names:
            shortest = len(name) - 1 if name[-1] in self._unique else 0
            for left_out in range(shortest + 1):
                for root in self._roots:
                    path = root.joinpath(*name[left_out:])
                    if path.is_file():
                        return path
        matches = self._by_name.get(names[0][-1].casefold(), []) if names[0][-1] in self._unique else []
        return matches[0] if len(matches) == 1 else self._roots[0].joinpath(*names[0])

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """All pictures of the set's folder by their name in lower case."""
        found: dict[str, list[Path]] = {}
        for path in self._base.rglob("*"):
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.name.casefold(), []).append(path)
        return found


def size_of(image: dict[str, Any], pictures: Pictures) -> tuple[int, int]:
    """Width and height of an entry of `images`; from the picture itself if the entry does not say.

    Raises:
        KeyError, ValueError: neither does.
    """
    width, height = image.get("width"), image.get("height")
    if width and height:
        return round(float(width)), round(float(height))
    path = pictures.find(image)
    size = picture_size(path)
    if size is None:
        raise ValueError(f"{path}: no size in the annotations, and the picture cannot be read")
    return size


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height from a picture's header; None if it is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE:
        return None


def _split(path: Path) -> str:
    match = _SPLIT.match(path.stem)
    return match["split"] if match else path.stem


def _names(image: dict[str, Any]) -> list[list[str]]:
    """Ways to read an entry's file name, as parts of a path below the pictures' folder.

    Raises:
        KeyError: it has none.
    """
    if "file_name" in image:
        text = str(image["file_name"])
        plain = _parts(urlsplit(text).path if re.match(r"\w{2,}://", text) else text)
        decoded = [unquote(part) for part in plain]
        names = [plain] if decoded == plain else [plain, decoded]
    else:
        # LVIS gives an address only, whose end is COCO's folder and file.
        names = [_parts(urlsplit(str(image["coco_url"])).path)[-2:]]
    if not all(names):
        raise KeyError("file_name")
    return names


def _parts(text: str) -> list[str]:
    """Parts of a path with either kind of slash, without drive, root and steps upwards."""
    path = PureWindowsPath(text)
    return [part for part in path.parts if part not in (path.anchor, "..", ".")]
