"""Reader of Flickr8k, and of Flickr30k in the same form: a token file or captions.txt, and lists of the splits."""

from __future__ import annotations

import csv
from pathlib import Path

from attncap._messages import quoted
from attncap.data.readers.base import Collector, Parts, image_folder
from attncap.data.readers.files import foreign_byte, read_lines
from attncap.data.readers.registry import Spec, register_reader
from attncap.images import IMAGE_ENDINGS

TEXT_FOLDERS = (".", "Flickr8k_text", "Flickr_8k_text", "text")
TOKEN_FILES = ("Flickr8k.token.txt", "results_20130124.token")


def guess(folder: Path) -> list[str]:
    """Return the folder where it holds a caption file of Flickr8k."""
    return [] if find_flickr8k(folder) is None else [str(folder)]


@register_reader("flickr8k", "flickr8k:FOLDER", guess, order=10)
def load_flickr8k(spec: Spec) -> Parts:
    """Flickr8k or Flickr30k: token file or captions.txt, images and split lists in one folder."""
    return read_flickr8k(spec.directory())


def find_flickr8k(folder: Path) -> Path | None:
    """Find the caption file of a Flickr8k (or Flickr30k) folder: the token file, or `captions.txt` with its header."""
    for name in TOKEN_FILES:
        for text_folder in TEXT_FOLDERS:
            if (folder / text_folder / name).is_file():
                return folder / text_folder / name
    path = folder / "captions.txt"
    if path.is_file():
        with open(path, "rb") as file:
            head = file.readline(200).removeprefix(b"\xef\xbb\xbf").strip().lower().replace(b" ", b"")
        if head == b"image,caption":
            return path
    return None


def read_flickr8k(folder: Path) -> Parts:
    """Read `Flickr8k.token.txt` (`name.jpg#0<TAB>caption`) or `captions.txt` (`image,caption`), with split lists.

    `Flickr_8k.trainImages.txt`, `devImages` and `testImages` give the splits; any may be missing. Where there is a
    train list, an image that no list names is rejected. Without a train list such an image is for training, and
    without any list the split is left open.
    """
    caption_file = find_flickr8k(folder)
    if caption_file is None:
        raise FileNotFoundError(f"{folder}: neither {TOKEN_FILES[0]} nor a captions.txt that begins with image,caption")
    collected = Collector(image_folder(folder))
    listed, list_files = _split_lists(collected, folder)
    with_token = caption_file.name in TOKEN_FILES
    for line, text in enumerate(read_lines(caption_file), start=1):
        if not text.strip() or (line == 1 and not with_token):
            continue
        name, key, caption, problem = _token_row(text) if with_token else _comma_row(text)
        kind = "not UTF-8" if foreign_byte(text) else "malformed row"
        problem = foreign_byte(text) or problem
        if problem:
            collected.reject(kind, problem, caption_file, line, name)
            continue
        if name not in collected.paths and name not in collected.refused:
            split = listed.get(name, "train" if listed and "train" not in list_files else None)
            if not name.lower().endswith(IMAGE_ENDINGS):
                ending = f"{quoted(name)} does not end like an image file ({', '.join(IMAGE_ENDINGS[:3])}, ...)"
                collected.refuse_image(name, "malformed row", ending, caption_file, line)
            elif list_files and split is None:
                lists = ", ".join(sorted(path.name for path in list_files.values()))
                collected.refuse_image(
                    name, "in no split list", f"{quoted(name)} is not in {lists}", caption_file, line
                )
            else:
                collected.add_image(name, [name], split, caption_file, line)
        collected.add_caption(name, caption, caption_file, line, key=key)
    for name, split in listed.items():
        if name not in collected.paths and name not in collected.refused:
            collected.add_image(name, [name], split, list_files[split], None)
    return collected.parts(folder.resolve().name)


def _split_lists(collected: Collector, folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    listed: dict[str, str] = {}
    list_files: dict[str, Path] = {}
    # Test first: an image in two lists stays out of training.
    for split, word in (("test", "test"), ("val", "dev"), ("train", "train")):
        places = (folder / text_folder / f"Flickr_8k.{word}Images.txt" for text_folder in TEXT_FOLDERS)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            continue
        list_files[split] = path
        for line, text in enumerate(read_lines(path), start=1):
            name, problem = text.strip(), foreign_byte(text)
            if problem:
                collected.reject("not UTF-8", problem, path, line, name, "pictures")
            elif name in listed:
                where = f"{quoted(name)} is in the {listed[name]} list already"
                collected.reject("duplicate image", where, path, line, name, "pictures")
            elif name:
                listed[name] = split
    return listed, list_files


def _token_row(text: str) -> tuple[str, object, str, str | None]:
    label, tab, caption = text.partition("\t")
    name, _, number = label.strip().partition("#")
    problem = None if tab and name else "name.jpg#0, a tab and the caption expected: put one tab between them"
    return name, number, caption, problem


def _comma_row(text: str) -> tuple[str, object, str, str | None]:
    """Read `name,caption`; everything after the first comma is the caption, because some editions do not quote it."""
    name, comma, caption = text.partition(",")
    problem = (
        None if comma and name.strip() else "file name, a comma and the caption expected: put a comma between them"
    )
    if len(caption) > 1 and caption.startswith('"') and caption.endswith('"'):
        try:
            fields = next(csv.reader([caption], strict=True), [])
        except csv.Error:
            fields = []
        caption = fields[0] if len(fields) == 1 else caption
    return name.strip().strip('"'), None, caption, problem
