"""Draws figures/ from a finished demo: `make figures`. Nothing is drawn that the demo did not measure.

The face of the heatmap strip is the first held-out one, in order of names, whose caption has ten words or more and is
true in all that it states: it shows what the maps look like when the model is right. `predictions.png` shows the worst
as well.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from attncap.captioners import load_captioner
from attncap.charts import plot_grounding
from attncap.data import load
from attncap.demo import BEAM_WIDTH, PICTURES, ground_faces
from attncap.faces import true_share
from attncap.plotting import plot_attention
from attncap.predict import caption_pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="folder of the demo")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the figures")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="faces that the demo drew")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    faces = load(f"faces:{options.pictures}", folder=options.demo / "faces").split("test")
    paths = dict(zip(faces.pictures["image_id"], faces.pictures["path"], strict=True))
    captioner = load_captioner(options.demo / "run")
    captions, _ = caption_pictures(captioner, list(paths.values()), list(paths), beam_width=BEAM_WIDTH)
    assert faces.attributes is not None
    for caption in captions:
        share, _ = true_share({caption.image_id: caption.text}, faces.attributes)
        if share == 1 and len(caption.words) >= 10:
            plot_attention(paths[caption.image_id], caption).savefig(options.out / "heatmap.png")
            break
    plot_grounding(ground_faces(captions, faces)).figure.savefig(options.out / "grounding.png")
    for name in ("training.png", "predictions.png"):
        shutil.copy(options.demo / name, options.out / name)


if __name__ == "__main__":
    main()
