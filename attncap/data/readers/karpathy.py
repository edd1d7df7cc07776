"""Reader of the JSON files in which Karpathy and Fei-Fei published splits of Flickr8k, Flickr30k and COCO."""

from __future__ import annotations

from pathlib import Path

from attncap._messages import quoted
from attncap.data.readers.base import SPLIT_NAMES, Collector, Parts, image_folder
from attncap.data.readers.files import items, json_files, member, read_json
from attncap.data.readers.registry import Spec, register_reader


def guess(folder: Path) -> list[str]:
    """Return each Karpathy JSON of a folder."""
    return [f"{file}:{image_folder(folder)}" for file in json_files(folder, "sentences", "filename")]


@register_reader("karpathy", "karpathy:JSON:IMAGES", guess, order=20)
def load_karpathy(spec: Spec) -> Parts:
    """Karpathy's splits of Flickr8k, Flickr30k or COCO (dataset_flickr8k.json)."""
    return read_karpathy(*spec.file_and_images())


def read_karpathy(path: Path, images: Path) -> Parts:
    """Read a split file of Karpathy and Fei-Fei (`dataset_flickr8k.json`, `dataset_coco.json`).

    `restval` is for training. The id is `cocoid` where there is one, else the file name.
    """
    collected = Collector(images)
    integers: list[bool] = []
    for where, item in items(path, read_json(path), "", "images"):
        name = member(path, item, where, "filename", str)
        split = member(path, item, where, "split", str)
        if split not in SPLIT_NAMES:
            raise ValueError(f"{path}, {where}.split: train, restval, val or test expected, {quoted(split)} found")
        below = member(path, item, where, "filepath", str) if "filepath" in item else ""
        coco_id = member(path, item, where, "cocoid", int) if "cocoid" in item else None
        image_id = name if coco_id is None else str(coco_id)
        integers.append(coco_id is not None)
        repeated = image_id in collected.paths
        names = [f"{below}/{name}", name] if below else [name]
        collected.add_image(image_id, names, SPLIT_NAMES[split], path, None, f"{where}: ")
        for place, sentence in items(path, item, where, "sentences"):
            caption = member(path, sentence, place, "raw", str)
            if repeated:
                collected.reject("duplicate image", f"{place}: of a repeated image", path, None, image_id)
            else:
                collected.add_caption(image_id, caption, path, None, f"{place}: ", key=str(sentence.get("sentid")))
    return collected.parts(path.stem, integer_ids=bool(integers) and all(integers))
