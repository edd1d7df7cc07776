"""Validation after each epoch: the loss of the reference captions, and scores of decoded captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from keras import ops

from attncap._messages import quoted
from attncap.data.load import CaptionData
from attncap.decoding.compilation import compiled, filled
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import decode_stored
from attncap.features.sources import key_column
from attncap.metrics.evaluate import References, evaluate
from attncap.models.captioner import Captioner
from attncap.tokenizers import PAD
from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig

SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider_d", "loss")  # of every epoch, "val_" before each
Metric = Callable[[Mapping[str, str], Mapping[str, list[str]]], float]


class Validator:
    """Score a captioner on the validation images: `val_loss`, `val_bleu_1` to `val_bleu_4`, `val_cider_d`.

    `val_loss` is the mean cross-entropy of the references' words, not smoothed: it is useful for the shortest texts and
    for one reference per image, where n-gram scores are close to zero. Captions are decoded greedily.

    Args:
        config: batch_size, max_length and validation_images.
        store: features of the validation images, with `get(paths)`.
        data: the validation split; images without captions are left out.
        distribution: processes that share the work; None: this one alone.
        metrics: name -> function (predictions, references) -> score, for `val_NAME`.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: Any,
        data: CaptionData,
        distribution: Any = None,
        metrics: Mapping[str, Metric] | None = None,
    ):
        references = data.references()
        self.images = data.pictures[data.pictures["image_id"].isin(references)].head(config.validation_images)
        self.references = {str(image_id): references[image_id] for image_id in self.images["image_id"]}
        self.prepared = References(self.references)
        self.config = config
        self.store = store
        self.distribution = distribution
        self.metrics = dict(metrics or {})
        self.captions: list[Any] = []  # those of the latest epoch
        self._decoder = cache(lambda captioner: Decoder(captioner, beam_width=1, max_length=config.max_length))
        self._losses = cache(_summed_loss)  # compiled once, not after every epoch

    def __call__(self, captioner: Captioner) -> dict[str, float]:
        parts = self.distribution
        own = self.images if parts is None else self.images.iloc[parts.process :: parts.processes]
        self.captions = decode_stored(self._decoder(captioner), self.store, own)
        texts = {str(caption.image_id): caption.text for caption in self.captions}
        losses = self._loss(captioner, own) if len(own) else [0.0, 0.0]
        if parts is not None:
            gathered = parts.gather({"texts": texts, "losses": losses})
            texts = {image_id: text for part in gathered for image_id, text in part["texts"].items()}
            losses = np.sum([part["losses"] for part in gathered], axis=0).tolist()
        scores = evaluate(texts, self.prepared, metrics=["bleu", "cider"], bootstrap=0, human=False).to_json_dict()
        found = {f"val_bleu_{n}": float(score) for n, score in enumerate(scores["bleu"], start=1)}
        found |= {"val_cider_d": float(scores["cider_d"]), "val_loss": losses[0] / losses[1]}
        own_scores = {name: score(texts, self.references) for name, score in self.metrics.items()}
        return found | {f"val_{name}": _number(name, value) for name, value in own_scores.items()}

    def _loss(self, captioner: Captioner, images: Any) -> list[float]:
        paths = dict(zip(images["image_id"].astype(str), images[key_column(self.store)], strict=True))
        size = self.config.batch_size
        batches = CaptionBatches(
            self.store.get,
            paths,
            self.references,
            captioner.tokenizer,
            batch_size=size,
            max_length=self.config.max_length,
        )
        total = np.zeros(2)
        for index in range(len(batches)):
            inputs, targets = batches[index]
            arrays = (inputs["features"], inputs["token_ids"], targets)
            sums = self._losses(captioner)(*(filled(array, size) for array in arrays))
            total += [float(ops.convert_to_numpy(value)) for value in sums]
        return total.tolist()


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metrics: {name!r} needs to return a number, got {quoted(value)}") from None


def _summed_loss(captioner: Captioner) -> Callable[..., Any]:
    # (features, token_ids, targets) -> the summed cross-entropy of the targets, and their number.
    def loss(features: Any, token_ids: Any, targets: Any) -> tuple[Any, Any]:
        logits = captioner({"features": features, "token_ids": token_ids}, training=False)
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        chosen = ops.squeeze(ops.take_along_axis(log_probs, targets[..., None], axis=-1), -1)  # (B, K, T)
        real = ops.cast(targets != PAD, "float32")
        return -ops.sum(chosen * real), ops.sum(real)

    return compiled(loss, captioner)
