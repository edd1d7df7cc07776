"""Flickr30k Entities: sentences whose phrases are linked to boxes, from the folder or the zip as published.

`Sentences/ID.txt` has a sentence a line, phrases marked `[/EN#id/type words]`; `Annotations/ID.xml` has the image's
size and the boxes of each id in pixels. The photographs include all of Flickr8k. Nothing is extracted to disk.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from attncap._messages import quoted
from attncap.captions import Caption
from attncap.grounding.phrases import Phrase

_PHRASE = re.compile(r"\[/EN#(?P<id>\d+)/(?P<types>[a-z]+(?:/[a-z]+)*)\s+(?P<words>[^\[\]]*[^\[\]\s])\s*\]")
_LARGEST_FILE = 1_000_000  # bytes; the longest of the published files has under 20,000


@dataclass(frozen=True, eq=False)
class Sentence:
    """A person's sentence on an image, with the phrases that name regions.

    Args:
        image_id: the image.
        words: as written, split at blanks.
        phrases: in order; `phrase.start` and `phrase.end` count `words`.
    """

    image_id: str
    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]

    @property
    def text(self) -> str:
        """The words joined by blanks."""
        return " ".join(self.words)

    def split_again(self, split: Callable[[str], list[str]]) -> Sentence:
        """Return the sentence in a captioner's own words, its phrases moved along.

        Args:
            split: one written word -> the captioner's words for it, none where it is punctuation, such as
                `attncap.words.split_words`.

        Returns:
            sentence: whose words match a `Caption` of the same sentence fed in; a phrase that keeps no word is gone.

        Example:
            >>> sentence = Sentence("1.jpg", ("A", "Dog", "."), ())
            >>> sentence.split_again(lambda word: [word.lower()] if word.isalpha() else []).text
            'a dog'
        """
        words: list[str] = []
        starts = []
        for word in self.words:
            starts.append(len(words))
            words.extend(split(word))
        starts.append(len(words))
        moved = [
            replace(phrase, start=starts[phrase.start], end=starts[phrase.end])
            for phrase in self.phrases
            if starts[phrase.start] < starts[phrase.end]
        ]
        return Sentence(self.image_id, tuple(words), tuple(moved))


def read_entities(
    source: str | Path, image_ids: Iterable[str] | None = None, missing: Literal["error", "skip"] = "error"
) -> dict[str, list[Sentence]]:
    """Read sentences, phrases and boxes of images.

    A box in pixels counts from 1 and includes its last pixel, so its left edge is (xmin - 1) / width and its right
    edge xmax / width: fractions hold for any resized copy of the image. An object may carry several ids, and an id
    several boxes; an id with none (`nobndbox`, `scene`, or not listed) gives a phrase without boxes.

    Args:
        source: folder or zip that holds `Annotations/` and `Sentences/`, at its top or in one folder.
        image_ids: images to read; the annotation's ID is what stands before the first `_` or `.`, so that
            "1000268201_693b08cb0e.jpg" and "1000268201.jpg" are both 1000268201. None reads all, named by ID.
        missing: what to do with an image that is not annotated: "error", or "skip" it.

    Returns:
        sentences: image_id -> its sentences (five in the published set) in order.

    Raises:
        FileNotFoundError: no such source, or an image has no annotation.
        ValueError: a file is damaged or malformed (named with its line, where it has one), an XML file declares a
            document type or an entity, the zip holds a name that leaves its folder, an image_id is no file name.

    Example:
        >>> sentences = read_entities("flickr30k_entities.zip", ["1000268201_693b08cb0e.jpg"])  # doctest: +SKIP
        >>> sentences["1000268201_693b08cb0e.jpg"][0].text  # doctest: +SKIP
        'A child in a pink dress is climbing up a set of stairs in an entry way .'

    Reference: Plummer et al. 2015, "Flickr30k Entities".
    """
    source = Path(source)
    if source.is_dir():
        return _read_all(_FolderFiles(source), image_ids, missing)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or zip; it should hold Annotations/ and Sentences/")
    try:
        with zipfile.ZipFile(source) as archive:
            return _read_all(_ZipFiles(source, archive), image_ids, missing)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source}: not a whole zip file ({error}); download it again") from error


def match_head_nouns(captions: Sequence[Caption], sentences: dict[str, list[Sentence]]) -> list[list[Phrase]]:
    """Make phrases of the words in generated captions that people used as head nouns for the same image.

    The head noun of a phrase is its last word ("dress" of "a pink dress"). A word of the caption that is the head noun
    of several phrases is linked to all their boxes, since nothing says which of two dogs "dog" means.

    Args:
        captions: N generated captions with an `image_id`.
        sentences: image_id -> sentences in the captioner's words (`Sentence.split_again`).

    Returns:
        phrases: N lists; of one word each, typed as the first phrase with boxes (else the first) is.
    """
    nouns: dict[tuple[str, str], list[Phrase]] = defaultdict(list)
    for image_id, own in sentences.items():
        for sentence in own:
            for phrase in sentence.phrases:
                nouns[image_id, sentence.words[phrase.end - 1]].append(phrase)
    matched: list[list[Phrase]] = []
    for caption in captions:
        image_id = str(caption.image_id)
        matched.append([])
        for position, word in enumerate(caption.words):
            named = sorted(nouns.get((image_id, word), []), key=lambda phrase: not len(phrase.boxes))
            if named:
                boxes = np.unique(np.concatenate([phrase.boxes for phrase in named]), axis=0)
                matched[-1].append(Phrase(image_id, position, position + 1, named[0].type, boxes))
    return matched


# ------------------------------------------------------------------ files


class _FolderFiles:
    def __init__(self, folder: Path):
        self.source = folder
        inner = [path.parent for path in [*folder.glob("Sentences"), *folder.glob("*/Sentences")]]
        self.folder = inner[0] if inner else folder

    def ids(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "Sentences").glob("*.txt"))

    def read(self, kind: str, name: str) -> bytes | None:
        path = self.folder / kind / name
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"{path}: {path.stat().st_size:,} bytes, expected at most {_LARGEST_FILE:,}")
        return path.read_bytes()


class _ZipFiles:
    def __init__(self, source: Path, archive: zipfile.ZipFile):
        self.source, self.archive = source, archive
        self.members: dict[tuple[str, ...], zipfile.ZipInfo] = {}
        for info in archive.infolist():
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            if parts[:1] == ("/",) or ".." in parts or any(":" in part for part in parts):
                raise ValueError(
                    f"{source}: holds {quoted(info.filename)}, a name that leaves its folder; do not trust it"
                )
            # By the last two parts, wherever the two folders lie; the first one found counts, as in a folder.
            self.members.setdefault(parts[-2:], info)

    def ids(self) -> list[str]:
        return sorted(parts[1][:-4] for parts in self.members if parts[0] == "Sentences" and parts[-1].endswith(".txt"))

    def read(self, kind: str, name: str) -> bytes | None:
        info = self.members.get((kind, name))
        if info is None:
            return None
        if info.file_size > _LARGEST_FILE:
            raise ValueError(
                f"{self.source}: {info.filename} unpacks to {info.file_size:,} bytes, "
                f"expected at most {_LARGEST_FILE:,}"
            )
        try:
            return self.archive.read(info)
        except (RuntimeError, NotImplementedError, zlib.error, EOFError) as error:  # encrypted, odd or damaged
            raise ValueError(f"{self.source}: {info.filename} cannot be read ({error})") from error


def _read_all(
    files: _FolderFiles | _ZipFiles, image_ids: Iterable[str] | None, missing: str
) -> dict[str, list[Sentence]]:
    wanted = files.ids() if image_ids is None else list(image_ids)
    sentences: dict[str, list[Sentence]] = {}
    absent = []
    for image_id in wanted:
        entry = re.split(r"[_.]", image_id)[0]
        if not re.fullmatch(r"[A-Za-z0-9-]+", entry):
            raise ValueError(f"image_id {quoted(image_id)}: expected a file name such as '1000268201_693b08cb0e.jpg'")
        marked = files.read("Sentences", f"{entry}.txt")
        drawn = files.read("Annotations", f"{entry}.xml")
        if marked is None or drawn is None:
            absent.append(image_id)
            continue
        boxes = _parse_boxes(drawn, f"{files.source}: Annotations/{entry}.xml")
        sentences[image_id] = _parse_sentences(marked, boxes, image_id, f"{files.source}: Sentences/{entry}.txt")
    if absent and (missing == "error" or not sentences):
        raise FileNotFoundError(
            f"{files.source}: no Sentences/ID.txt with Annotations/ID.xml for {len(absent)} of {len(wanted)} images, "
            f"such as {quoted(absent[0])} (ID is what stands before the first '_' or '.')"
        )
    if not wanted:
        raise FileNotFoundError(f"{files.source}: no Sentences/*.txt in it; expected Flickr30k Entities as published")
    return sentences


# ----------------------------------------------------------------- formats


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{where}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8") from error


def _parse_sentences(content: bytes, boxes: dict[str, list[list[float]]], image_id: str, where: str) -> list[Sentence]:
    sentences = []
    for number, line in enumerate(_decode(content, where).splitlines(), start=1):
        if not line.strip():
            continue
        words: list[str] = []
        phrases = []
        position = 0
        for match in (*_PHRASE.finditer(line), None):
            plain = line[position : match.start() if match else len(line)]
            bracket = re.search(r"[\[\]]", plain)
            if bracket:
                part = line[position + bracket.start() :][:40]
                raise ValueError(f"{where}, line {number}: expected '[/EN#id/type words]', got {quoted(part)}")
            words.extend(plain.split())
            if match:
                start = len(words)
                words.extend(match["words"].split())
                corners = np.array(boxes.get(match["id"], []), np.float64).reshape(-1, 4)
                # Some phrases have two types, "vehicles/scene": the first one counts.
                phrases.append(Phrase(image_id, start, len(words), match["types"].split("/")[0], corners))
                position = match.end()
        sentences.append(Sentence(image_id, tuple(words), tuple(phrases)))
    return sentences


def _parse_boxes(content: bytes, where: str) -> dict[str, list[list[float]]]:
    """id -> its boxes as fractions (left, top, right, bottom)."""
    text = _decode(content, where)
    declared = re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE)
    if declared:  # the parser would expand entities within entities, until memory ends
        line = text[: declared.start()].count("\n") + 1
        raise ValueError(f"{where}, line {line}: holds <!{declared[1]}, which no annotation has; do not trust it")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"{where}, line {error.position[0]}: not well-formed XML ({error})") from error
    width, height = (_whole_number(root, f"size/{side}", where) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise ValueError(f"{where}: expected the image's width and height in pixels, got {width} x {height}")
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    for thing in root.iter("object"):
        names = [name.text.strip() for name in thing.findall("name") if name.text]
        for corners in thing.findall("bndbox"):
            at = f"{where}, object {' '.join(names)}"
            left, top, right, bottom = (_whole_number(corners, edge, at) for edge in ("xmin", "ymin", "xmax", "ymax"))
            # Published boxes count pixels from 1; some tools write 0. Neither may leave the image.
            left, top, right, bottom = max(left - 1, 0), max(top - 1, 0), min(right, width), min(bottom, height)
            if not (left < right and top < bottom):
                raise ValueError(f"{at}: box without area in an image of {width} x {height} pixels")
            for name in names:
                boxes[name].append([left / width, top / height, right / width, bottom / height])
    return boxes


def _whole_number(element: ET.Element, path: str, where: str) -> int:
    text = (element.findtext(path) or "").strip()
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise ValueError(f"{where}: expected a whole number in <{path}>, got {quoted(text)}")
    return int(text)
