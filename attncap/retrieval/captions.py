"""Captions by nearest neighbors: that of the nearest image, or the consensus of the k nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from attncap.metrics.cider_d import CiderD
from attncap.metrics.evaluate import References, evaluate
from attncap.metrics.ptb_tokenizer import tokenize
from attncap.retrieval.index import ImageIndex

NEIGHBORS = (1, 5, 10, 20, 40, 80)  # k that `choose_k` tries
AGREE_WITH = 0.28  # share of the candidates that a caption is compared with: Devlin et al.'s 125 of 450


class CaptionNeighbors:
    """Choose captions for images among those of their nearest neighbors in an index.

    With k = 1, return the first caption of the nearest image. With k > 1, return the consensus: the caption of the k
    nearest images that has the highest mean similarity to the others. Only the `agree_with` share of the others with
    the highest similarity counts, so that outliers do not matter. Similarity is CIDEr-D.

    Args:
        index: with captions as labels; entries without captions are skipped.

    Raises:
        ValueError: no entry has a caption.

    Example:
        >>> CaptionNeighbors(index).captions(codes, k=60)[0]
        'a brown dog runs through the grass .'

    Reference: Devlin et al. 2015, "Exploring nearest neighbor approaches for image captioning", sections 3 and 4.
    """

    def __init__(self, index: ImageIndex) -> None:
        self.index = index
        labels = [labels for _, labels in index.entries()]
        self.captions_of = np.concatenate([[0], np.cumsum([len(texts) for texts in labels])])  # row -> first caption
        self.texts = [text for texts in labels for text in texts]
        if not self.texts:
            raise ValueError("captions by neighbors: no image of the index has a label or caption")
        self._cider: CiderD | None = None

    def captions(
        self,
        codes: np.ndarray,
        k: int = 1,
        agree_with: float = AGREE_WITH,
        without: np.ndarray | None = None,
        progress: bool = False,
    ) -> list[str]:
        """Return a caption for each code.

        Args:
            codes: (Q, bytes) or (Q, D), of the index's encoder.
            k: number of neighbors.
            agree_with: share of the candidates, in (0, 1].
            without: for each code one row of the index to leave out (leave-one-out).
            progress: show a bar with captions/s.

        Raises:
            ValueError: an empty index, k below 1, or a share out of range.
        """
        if not 0 < agree_with <= 1:
            raise ValueError(f"agree_with is a share, above 0 and at most 1, got {agree_with}")
        near, _ = self.index.nearest(codes, k + (without is not None))
        with_text = np.diff(self.captions_of) > 0
        if not with_text.all():  # rare: search all entries for the nearest ones with a caption
            near, _ = self.index.nearest(codes, len(self.index))
        left_out = np.full(len(near), -1) if without is None else without
        rows = [row[with_text[row] & (row != out)][:k] for row, out in zip(near, left_out, strict=True)]
        bar = tqdm(rows, desc="captions", unit=" captions", disable=not progress)
        return [self.texts[self._choose(row, k, agree_with)] for row in bar]

    def _choose(self, rows: np.ndarray, k: int, agree_with: float) -> int:
        if k == 1:
            return int(self.captions_of[rows[0]])
        candidates = np.concatenate([np.arange(self.captions_of[row], self.captions_of[row + 1]) for row in rows])
        if len(candidates) == 1:
            return int(candidates[0])
        if self._cider is None:
            ends = zip(self.captions_of, self.captions_of[1:], strict=False)
            self._cider = CiderD([[tokenize(text).split() for text in self.texts[at:end]] for at, end in ends])
        like = self._cider.between_references(candidates)  # (C, C)
        np.fill_diagonal(like, -1.0)
        most = max(1, min(len(candidates) - 1, round(agree_with * len(candidates))))
        agreement = -np.partition(-like, most - 1, axis=1)[:, :most].mean(1)
        return int(candidates[agreement.argmax()])  # the nearer image wins a tie


def neighbor_captions(
    index: ImageIndex, codes: np.ndarray, image_ids: Sequence[str], k: int = 1, agree_with: float = AGREE_WITH
) -> dict[str, str]:
    """Caption images by their nearest neighbors: image_id -> caption, for `attncap.metrics.evaluate`.

    Args:
        index: with captions as labels.
        codes: of the images to caption, from the encoder of the index.
        image_ids: their names.
        k: 1 for the nearest image's first caption, more for consensus.
        agree_with: share of the candidates, as in `CaptionNeighbors.captions`.

    Example:
        >>> predictions = neighbor_captions(index, codes, ["a.jpg"], k=60)
    """
    if len(codes) != len(image_ids):
        raise ValueError(f"a name for each code expected: {len(codes)} codes, {len(image_ids)} names")
    return dict(zip(image_ids, CaptionNeighbors(index).captions(codes, k, agree_with), strict=True))


def choose_k(
    index: ImageIndex, candidates: Sequence[int] = NEIGHBORS, sample: int = 300, seed: int = 0
) -> tuple[int, dict[int, float]]:
    """Choose the number of neighbors by CIDEr-D, leave-one-out over images of the index; held-out images are not used.

    Args:
        index: with captions as labels.
        candidates: k to try; a k that is not smaller than the index is left out.
        sample: number of random images of the index to caption from the others.
        seed: of the draw.

    Returns:
        k: that with the highest CIDEr-D, the smallest of equal ones.
        scores: CIDEr-D of each k.
    """
    rows = np.random.default_rng(seed).permutation(len(index))[:sample]
    references = References({image_id: labels for image_id, labels in index.entries(rows) if labels})
    neighbors = CaptionNeighbors(index)
    codes = np.asarray(index.codes)[rows]
    scores: dict[int, float] = {}
    for k in (k for k in candidates if k < len(index)):
        said = neighbors.captions(codes, k, without=rows)
        captions = {image_id: text for (image_id, _), text in zip(index.entries(rows), said, strict=True)}
        kept = {image_id: captions[image_id] for image_id in references.image_ids}
        scores[k] = evaluate(kept, references, bootstrap=0, human=False).to_json_dict()["cider"]
    if not scores:
        raise ValueError(f"{len(index)} images: more than {min(candidates)} needed for neighbors: add some")
    return max(scores, key=lambda k: (scores[k], -k)), scores
