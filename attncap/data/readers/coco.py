"""Reader of COCO captions."""

from __future__ import annotations

import re
from pathlib import Path

from attncap.data.readers.base import SPLIT_NAMES, Collector, Parts, image_folder
from attncap.data.readers.files import items, json_files, member, read_json
from attncap.data.readers.registry import Spec, register_reader

# A split as a whole word of a file's name: "latest" is no "test". "trainval" names no single split.
_WORDS = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
SPLIT_AND_YEAR = re.compile(rf"(?<![a-z])({_WORDS})(\d{{4}})?(?![a-z0-9])")


def guess(folder: Path) -> list[str]:
    """Return all COCO caption files of a folder as one data set."""
    files = json_files(folder, "images", "image_id", "caption")
    return [f"{'+'.join(map(str, files))}:{image_folder(folder)}"] if files else []


@register_reader("coco", "coco:JSON[+JSON]:IMAGES", guess, order=30)
def load_coco(spec: Spec) -> Parts:
    """COCO captions; of several files, the words train and val in their names give the splits."""
    return read_coco(*spec.files_and_images())


def read_coco(paths: list[Path], images: Path) -> Parts:
    """Read COCO captions: `images[].id`, `.file_name`; `annotations[].image_id`, `.caption`. Ids become text.

    Several files (train and val) give the splits by whole words of their names ("captions_train2014.json"). A single
    file, and one whose name has none or several of these words, leaves the split open. Images are looked for in
    `images` and in its subfolder of the file's year (`train2014`).
    """
    collected = Collector(images)
    integers: list[bool] = []
    for path in paths:
        contents = read_json(path)
        years = list(re.finditer(SPLIT_AND_YEAR, path.stem.lower()))
        words = {SPLIT_NAMES[year.group(1)] for year in years}
        year = years[0] if len(words) == 1 else None
        split = words.pop() if year and len(paths) > 1 else None
        for where, item in items(path, contents, "", "images"):
            image_id = member(path, item, where, "id", int, str)
            name = member(path, item, where, "file_name", str)
            names = [name] if year is None else [name, f"{year.group()}/{name}"]
            integers.append(isinstance(image_id, int))
            collected.add_image(str(image_id), names, split, path, None, f"{where}: ")
        for where, item in items(path, contents, "", "annotations"):
            image_id = str(member(path, item, where, "image_id", int, str))
            caption = member(path, item, where, "caption", str)
            collected.add_caption(image_id, caption, path, None, f"{where}: ", key=str(item.get("id")))
    name = "+".join(path.stem for path in paths)
    return collected.parts(name, integer_ids=bool(integers) and all(integers))
