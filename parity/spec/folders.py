"""Image folders: one folder per class, read from the disk as they are needed."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity.spec import datasets, images
from parity.spec.errors import UsageError
from parity.spec.images import ImageFiles

# The folders of Animals-10 are named in Italian.
ANIMALS10 = {
    "cane": "dog",
    "cavallo": "horse",
    "elefante": "elephant",
    "farfalla": "butterfly",
    "gallina": "chicken",
    "gatto": "cat",
    "mucca": "cow",
    "pecora": "sheep",
    "ragno": "spider",
    "scoiattolo": "squirrel",
}
LAYOUT = "one folder per class, or train/ and test/ that hold these"
NAMED = 5


def read_label_names(source: Path | str | None) -> dict[str, str]:
    """Returns folder name to class name.

    Args:
        source: "animals10", or a file with a JSON object, or None for no names.

    Raises:
        UsageError: there is no such file or it holds no object of strings.
    """
    if source is None:
        return {}
    if str(source) == "animals10":
        return ANIMALS10
    try:
        names = json.loads(Path(source).read_text("utf-8"))
        if not isinstance(names, dict):
            raise ValueError(f"it holds {names!r:.40}")
        for folder, name in names.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"{folder!r} becomes {name!r:.40}")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"cannot take label names from {source} ({error}); it would be a JSON "
            'object of strings such as {"cane": "dog"}, or animals10'
        ) from None
    return names


def read_folder(
    data_dir: Path,
    height: int,
    width: int,
    *,
    label_names: Path | str | None = None,
    strict: bool = False,
    only_labels: Sequence[int] | None = None,
) -> datasets.Dataset:
    """Returns the images of a folder, found and checked in one pass over the files.

    Classes are sorted by name; hidden files are left out. Without train/ and test/ a
    fifth of each class is the test part, always the same one. Images have 1 channel
    where all are 8-bit grey, else 3. Skipped files and conversions are said on stderr.

    Args:
        data_dir: holds one folder per class, or train/ and test/ that hold these.
        height: of the images wanted, in pixels.
        width: likewise.
        label_names: see read_label_names.
        strict: a file that is not a whole image is an error.
        only_labels: see datasets.keep_labels; None keeps all.

    Raises:
        UsageError: folders, files or names that are not there or do not fit.
    """
    folders = _find_parts(Path(data_dir), read_label_names(label_names))
    classes = list(folders[0])
    classes = [classes[i] for i in datasets.keep_labels(classes, only_labels)]
    parts = [
        [
            (path, label)
            for label, name in enumerate(classes)
            for path in _list_files(part[name])
        ]
        for part in folders
    ]
    found = _inspect([path for part in parts for path, _ in part], height, width)
    _report(data_dir, found, strict)
    parts = [[pair for pair in part if found[pair[0]]] for part in parts]
    for part, folder in zip(parts, folders, strict=True):
        for label in {*range(len(classes))} - {label for _, label in part}:
            raise UsageError(f"no images in {folder[classes[label]]}")
    if len(parts) == 1:
        parts = _split(parts[0], data_dir)
    grey = all(image.kind.grey for image in found.values() if image)
    arrays = []
    for part in parts:
        chosen = [found[path] for path, _ in part]
        files = ImageFiles(
            tuple(path for path, _ in part),
            np.array([image.size for image in chosen], np.int64),
            np.array([image.kind.native for image in chosen], bool),
            (height, width, 1 if grey else 3),
        )
        arrays += [files, np.array([label for _, label in part], np.int64)]
    moments = np.array([found[path].moments for path in arrays[0].paths])
    moments = moments[..., : arrays[0].shape[3]]
    batches = [moments[i : i + 256].mean(axis=0) for i in range(0, len(moments), 256)]
    statistics = datasets.mean_std(*zip(*batches, strict=True))
    return datasets.Dataset("folder", tuple(classes), *arrays, *statistics)


def _find_parts(data_dir: Path, names: dict[str, str]) -> list[dict[str, Path]]:
    if not data_dir.is_dir():
        raise UsageError(
            f"no such folder: {data_dir}; it would hold {LAYOUT}; "
            "--dataset digits needs no files"
        )
    parts = [data_dir / "train", data_dir / "test"]
    split = [
        part.is_dir() and any(x.is_dir() for x in part.iterdir()) for part in parts
    ]
    if any(split) and not all(split):
        raise UsageError(
            f"{data_dir} has no {parts[split.index(False)].name}/ with a folder per "
            f"class beside {parts[split.index(True)].name}/; it would hold {LAYOUT}"
        )
    if not any(split):
        parts = [data_dir]
    found = [_find_classes(part, names) for part in parts]
    for part, classes in zip(parts, found, strict=True):
        if len(classes) < 2:
            only = f"only the class {next(iter(classes))!r}" if classes else "no class"
            raise UsageError(f"{only} in {part}; it would hold {LAYOUT}")
    if len(found) == 2 and (different := found[0].keys() ^ found[1].keys()):
        raise UsageError(
            f"the classes of {parts[0]} and {parts[1]} differ: only one of the two has "
            f"{', '.join(sorted(different))}"
        )
    return found


def _find_classes(part: Path, names: dict[str, str]) -> dict[str, Path]:
    classes = {}
    for folder in sorted(part.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            name = names.get(folder.name, folder.name)
            if name in classes:
                raise UsageError(
                    f"{classes[name].name!r} and {folder.name!r} in {part} would both "
                    f"be the class {name!r}; rename one of them otherwise"
                )
            classes[name] = folder
    return dict(sorted(classes.items()))


def _list_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


class _Found(NamedTuple):
    kind: images.Kind
    size: tuple[int, int]
    moments: np.ndarray  # (2, 3), mean and mean square of each channel


def _inspect(paths: list[Path], height: int, width: int) -> dict[Path, _Found | None]:
    from tqdm import tqdm

    def inspect(path: Path) -> _Found | None:
        try:
            kind, pixels = images.inspect(path)
        except UsageError:
            return None
        scaled = images.resize(pixels[np.newaxis], height, width)[0] / 255
        moments = np.array([scaled.mean((0, 1)), np.square(scaled).mean((0, 1))])
        return _Found(kind, pixels.shape[:2], moments)

    hidden = not sys.stderr.isatty()
    with ThreadPoolExecutor() as pool:
        found = pool.map(inspect, paths)
        found = tqdm(found, "reading", len(paths), leave=False, disable=hidden)
        return dict(zip(paths, found, strict=True))


def _report(data_dir: Path, found: dict[Path, _Found | None], strict: bool) -> None:
    broken = [str(path.relative_to(data_dir)) for path in found if not found[path]]
    if broken:
        line = (
            f"{len(broken)} of {len(found)} files in {data_dir} are not whole images: "
            f"{', '.join(broken[:NAMED] + ['...'] * (len(broken) > NAMED))}"
        )
        if strict:
            raise UsageError(f"{line}; delete them, or leave out --strict-data")
        print(f"skipped: {line}", file=sys.stderr)
    kinds = Counter(image.kind.conversion for image in found.values() if image)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds) if kind)
    if counts:
        print(f"converted to 8-bit grey or RGB: {counts}", file=sys.stderr)


def _split(pairs: list[tuple[Path, int]], data_dir: Path) -> list[list]:
    from sklearn.model_selection import train_test_split

    labels = [label for _, label in pairs]
    try:
        parts = train_test_split(pairs, test_size=0.2, stratify=labels, random_state=42)
    except ValueError as error:
        raise UsageError(
            f"cannot split the {len(pairs)} images of {data_dir} in train and test "
            f"({error}); five or more images per class would do"
        ) from None
    for label in range(max(labels) + 1):
        if not all(label in (y for _, y in part) for part in parts):
            folder = next(path for path, y in pairs if y == label).parent
            raise UsageError(
                f"{folder} has too few images ({labels.count(label)}) to be split in "
                "train and test; five or more images per class would do"
            )
    return [sorted(part, key=lambda pair: (pair[1], pair[0])) for part in parts]
