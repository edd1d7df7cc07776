"""`AttributeConfig`: the settings of a training of attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from attncap.attributes.thresholds import check_aim
from attncap.training.config import RENAMED, of_known

BALANCES = ("none", "weights", "focal")
SILENCES = ("auto", "unknown", "statements")
HEADS = ("auto", "attention", "grid")
# Settings that follow from the head where they are 0. Few texts make a statement: fewer units.
OF_HEAD = {
    "grid": {"members": 2, "projection_units": 128},
    "attention": {"members": 1, "projection_units": 64},
}


@dataclass(frozen=True)
class AttributeConfig:
    """Settings of `train_attributes`, each with its meaning and reason; saved as `config.json` in the run folder."""

    weights: str = "imagenet"  # encoder weights: imagenet, faces, random, or a file
    backbone: str = "InceptionV3"  # or another network by name, as in `FeatureExtractor`
    layers: str = ""  # such as mixed5@6,mixed8@4; empty: the default of the encoder
    image_size: int = 0  # side of the input square; 0: the default of the encoder
    silence: str = "auto"  # what an empty cell is: unknown (left out), statements (a text that does not say it), auto
    head: str = "auto"  # attention for statements, grid for tables of truth
    projection_units: int = 0  # size of a projected cell; 0: 128 for tables of truth, 64 for statements
    hidden_units: int = 0  # of grid heads; none: average precision 0.587 on 1,248 faces, 0.539 with 512
    dropout: float = 0.5  # strong: thousands of inputs for thousands of images
    members: int = 0  # heads whose logits are averaged; 0: 2 for tables of truth, 1 for statements
    mirror: bool = True  # train on mirrored images too and average both views: no attribute has a side
    balance: str = "none"  # calibration and thresholds correct imbalance afterwards; or weights, focal
    label_smoothing: float = 0.0  # labels of attributes are noisy; calibration undoes the shift
    aim: str = "f1"  # what thresholds are tuned for: f1, balanced_accuracy, accuracy or precision:P
    batch_size: int = 64  # images per step; small data sets need many steps
    epochs: int = 15  # length of the cosine schedule
    learning_rate: float = 1e-3  # peak of AdamW
    weight_decay: float = 0.05  # of AdamW; the head has millions of weights
    ema_epochs: float = 1.0  # horizon of the averaged weights that are validated and saved; 0 turns it off
    patience: int = 4  # epochs without a better validation score before training stops
    fine_tune_blocks: int = 0  # last blocks of the encoder trained after the head; 0: the encoder stays frozen
    fine_tune_epochs: int = 2  # each is a forward and backward pass through the whole network
    fine_tune_rate: float = 1e-4  # small: pretrained weights are near a good solution
    dtype: str = "float32"  # of the head, which is small; the encoder uses bfloat16 where the processor has it
    seed: int = 0  # of weights, batches and dropout; the split has its own

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "patience", "fine_tune_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "fine_tune_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        for name in (
            *("weight_decay", "ema_epochs", "hidden_units", "fine_tune_blocks", "image_size"),
            *("members", "projection_units"),
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name, choices in (("balance", BALANCES), ("silence", SILENCES), ("head", HEADS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)!r}")
        check_aim(self.aim)

    def with_head(self, statements: bool) -> AttributeConfig:
        """Fill in what the settings leave open: the head, and what follows from it.

        Args:
            statements: whether the targets are what texts state.
        """
        head = self.head if self.head != "auto" else "attention" if statements else "grid"
        chosen: dict[str, Any] = {name: value for name, value in OF_HEAD[head].items() if not getattr(self, name)}
        return replace(self, head=head, mirror=self.mirror and head == "grid", **chosen)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> AttributeConfig:
        """Make a configuration from a dictionary; an unknown setting is an error that lists the known ones."""
        return of_known(cls, {RENAMED.get(name, name): value for name, value in settings.items()})
