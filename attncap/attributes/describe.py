"""`describe`: describe images by the statements that people would make, each with its calibrated probability."""

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
        statement: name of the output of the classifier.
        phrase: the statement in the words of the training texts.
        probability: calibrated probability that a person would make this statement about the image.
        usual: share of the training texts that make this statement.
    """

    statement: str
    phrase: str
    probability: float
    usual: float


@dataclass(frozen=True)
class Description:
    """Description of one image, returned by `describe`.

    Args:
        image: the image file. An image in memory without a file gets its place in the list, such as "image-1".
        claims: the statements, the most probable first. Empty if no statement is certain.
        distance: distance from the training images. It is about 1 for similar images.
        familiar: False if the image is unlike the training images. Do not trust the claims then.
        error: the reason why the image cannot be read, or None.
    """

    image: str
    claims: tuple[Claim, ...] = ()
    distance: float = 0.0
    familiar: bool = True
    error: str | None = None

    def text(self) -> str:
        """Join the phrases with commas; "nothing certain" if there are none."""
        return ", ".join(claim.phrase for claim in self.claims) or NOTHING

    def lines(self) -> list[str]:
        """Format the description as lines of text: first all phrases, then each phrase with its probability."""
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
    """Describe images by the statements that people would make about them.

    The probability of a claim is the probability that a person would make this statement about the image. It is lower
    than the probability that the statement is true, because people do not mention most of what they see. Compare it
    with `usual`, the share of the training texts that make the statement. On 8,000 faces with one text each, claims
    with a probability of 0.2 to 0.3 were true in 80% of the cases, and claims with 0.3 to 0.5 in 91%.

    Args:
        run: a classifier of statements: a run folder of `attncap attributes train`, a `.keras` file, or an
            `AttributeClassifier`.
        images: image files, Pillow images or arrays.
        most: largest number of claims per image; see `choose_claims`.
        batch_size: images per pass through the network.
        progress: show a progress bar.

    Returns:
        descriptions: one per image, in order. An image that cannot be read has an `error`.

    Raises:
        TypeError: `images` is one image instead of a list.
        ValueError: the classifier was not trained on statements or has no encoder, or `most` is below 1.

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
