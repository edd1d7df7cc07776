"""`describe`: say what is likely and worth saying of images, each claim with its calibrated probability."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attncap.attributes.classifier import AttributeClassifier, load_classifier
from attncap.attributes.statements import MOST, NOTHING, choose_claims
from attncap.features.pipeline import encode_images
from attncap.images import AnyImage, image_name


@dataclass(frozen=True)
class Claim:
    """One statement of a description.

    Args:
        statement: the name of the classifier's output.
        phrase: the same in the words of the training texts.
        probability: that a person would say it of this image, calibrated on held-out texts.
        usual: share of all training texts that say it.
    """

    statement: str
    phrase: str
    probability: float
    usual: float


@dataclass(frozen=True)
class Description:
    """What `describe` says of one image.

    Args:
        image: the file; for an image in memory that has none, its place in the list, as "image-1".
        claims: the likeliest first; empty where nothing is certain.
        distance: from the training images, about 1 for images like them.
        familiar: False for an image unlike the training images: its claims are then not to be trusted.
        error: why the image cannot be read; None where it can.
    """

    image: str
    claims: tuple[Claim, ...] = ()
    distance: float = 0.0
    familiar: bool = True
    error: str | None = None

    def text(self) -> str:
        """The phrases, separated by commas, or "nothing certain"."""
        return ", ".join(claim.phrase for claim in self.claims) or NOTHING

    def lines(self) -> list[str]:
        """The description for people: the claims as a list, then each with its probability."""
        if self.error is not None:
            return [f"cannot be read: {self.error}"]
        found = [self.text()[:1].upper() + self.text()[1:]]
        for claim in self.claims:
            found.append(
                f"  {claim.probability:4.0%} of people would say {claim.phrase!r} ({claim.usual:.0%} of any image)"
            )
        if not self.familiar:
            found.append("  this image is unlike the training images: do not trust what is said of it")
        return found

    def to_json_dict(self) -> dict[str, Any]:
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        claims = [{**vars(claim), "probability": round(claim.probability, 4)} for claim in self.claims]
        familiar = {"familiar": self.familiar, "distance": round(self.distance, 3)}
        return {"image": self.image, "text": self.text(), "claims": claims, **familiar}


def describe(
    run: str | os.PathLike[str] | AttributeClassifier,
    images: Sequence[AnyImage],
    *,
    most: int = MOST,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Description]:
    """Describe images by the statements that people would make of them.

    A probability is that of "a person would say this of the image". It is lower than the probability of "this is true",
    because people leave out most of what they see: compare it with the claim's `usual` probability, its share of all
    training texts. On 8,000 faces with one text each, claims of probability 0.2 to 0.3 were true in 80% of the cases,
    those of 0.3 to 0.5 in 91%.

    Args:
        run: a classifier of statements: a run folder of `attncap attributes train`, a `.keras` file, or loaded.
        images: image files, Pillow images or arrays.
        most: claims per image; see `choose_claims`.
        batch_size: images per pass through the network.
        progress: show a bar.

    Returns:
        descriptions: one per image, in order; an image that cannot be read has an `error`.

    Raises:
        TypeError: one image in place of a list.
        ValueError: a classifier that was not trained on statements, or that has no encoder.

    Example:
        >>> describe("runs/faces", ["me.jpg"])[0].text()
        'woman, wavy hair, smiling'
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    classifier = run if isinstance(run, AttributeClassifier) else load_classifier(os.fspath(run))
    statements = classifier.statements
    if statements is None:
        raise ValueError(
            "this classifier was trained on a table without silence: it knows what is true, not what people would "
            "say. Use `attncap attributes predict`, or train on the table of `attncap characteristics label`"
        )
    if classifier.encoder is None:
        raise ValueError("this classifier has no encoder: it takes features, not images")
    found: dict[int, Description] = {}
    encoder, views = classifier.encoder, classifier.views
    for batch in encode_images(encoder, images, batch_size=batch_size, progress=progress, views=views):
        for at, reason in batch.rejects:
            found[at] = Description(image_name(images[at], at), error=reason)
        if not batch.positions:
            continue
        probs = classifier.calibrated(classifier.mean_logits(*batch.features))
        distances = classifier.distances(batch.features[0])
        for at, row, distance in zip(batch.positions, probs, distances, strict=True):
            claims = tuple(
                Claim(classifier.names[one], statements.phrases[one], float(row[one]), statements.usual[one])
                for one in choose_claims(row, statements, most)
            )
            familiar = bool(distance <= classifier.farthest)
            found[at] = Description(image_name(images[at], at), claims, float(distance), familiar)
    return [found[at] for at in range(len(images))]
