"""Reader of the drawn faces, the data set that comes with the package."""

from __future__ import annotations

from pathlib import Path

from attncap._files import cache_folder
from attncap._messages import quoted
from attncap.data.readers.base import Parts
from attncap.data.readers.registry import Spec, register_reader

DEFAULT_FACES = 2000
MOST_FACES = 1_000_000  # their file names have six digits


@register_reader("faces", "faces, faces:NUMBER", order=50)
def load_faces(spec: Spec) -> Parts:
    """Drawn faces, five captions each, drawn into the cache folder (default 2000)."""
    from attncap.data.faces.dataset import make_faces

    number = spec.rest
    if number and not (number.isascii() and number.isdigit() and len(number) < 9 and 0 < int(number) <= MOST_FACES):
        raise ValueError(
            f"'faces:{number}': a number of faces from 1 to {MOST_FACES:,} expected, {quoted(number)} found: "
            f"write faces:{DEFAULT_FACES}"
        )
    count = int(number) if number else DEFAULT_FACES
    place = Path(spec.folder) if spec.folder is not None else cache_folder() / f"faces-{count}-{spec.seed}"
    pictures, captions, attributes, boxes = make_faces(count, place, spec.seed)
    return Parts(pictures, captions, name=f"faces-{count}", attributes=attributes, boxes=boxes)
