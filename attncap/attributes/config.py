"""`AttributeConfig`: settings for training an attribute classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from attncap.attributes.thresholds import check_aim
from attncap.training.config import RENAMED, of_known

BALANCES = ("none", "weights", "focal")
SILENCES = ("auto", "unknown", "statements")
HEADS = ("auto", "attention", "grid")
# Defaults for each kind of head, used if the setting is 0. Attention heads have fewer units: most statements have few
# positive examples.
OF_HEAD = {
    "grid": {"members": 2, "projection_units": 128},
    "attention": {"members": 1, "projection_units": 64},
}


@dataclass(frozen=True)
class AttributeConfig:
    """Settings of `train_attributes`. They are saved as `config.json` in the run folder."""

    weights: str = "imagenet"  # encoder weights: imagenet, faces, random, or a file
    backbone: str = "InceptionV3"  # name of the network, as in `FeatureExtractor`
    layers: str = ""  # layers and grid sizes, such as mixed5@6,mixed8@4; empty: the default of the encoder
    image_size: int = 0  # side of the input square in pixels; 0: the default of the encoder
    silence: str = "auto"  # meaning of an empty cell: unknown label, statements (not stated in the text), or auto
    head: str = "auto"  # attention or grid; auto: attention for tables of statements, else grid
    projection_units: int = 0  # size of a projected cell; 0: 128 for a grid head, 64 for an attention head
    hidden_units: int = 0  # of a grid head; on 1,248 faces average precision was 0.587 with 0 and 0.539 with 512
    dropout: float = 0.5  # high, because the number of inputs is as large as the number of images (thousands)
    members: int = 0  # number of heads, whose logits are averaged; 0: 2 grid heads or 1 attention head
    mirror: bool = True  # grid head: train on mirrored images too, average both views; attention head: not used
    balance: str = "none"  # none, weights or focal; none works because calibration and thresholds correct imbalance
    label_smoothing: float = 0.0  # for noisy labels; calibration corrects the shift of the probabilities
    aim: str = "f1"  # aim of threshold tuning: f1, balanced_accuracy, accuracy or precision:P
    batch_size: int = 64  # images per step; small data sets need many steps
    epochs: int = 15  # length of the cosine schedule
    learning_rate: float = 1e-3  # peak learning rate of AdamW
    weight_decay: float = 0.05  # of AdamW; the head has millions of weights
    ema_epochs: float = 1.0  # horizon of the moving average of the weights, in epochs; 0: no averaging
    patience: int = 4  # epochs without a better validation score before training stops
    fine_tune_blocks: int = 0  # number of last encoder blocks to train after the head; 0: the encoder stays frozen
    fine_tune_epochs: int = 2  # few, because each epoch is slow: it trains through the whole network
    fine_tune_rate: float = 1e-4  # learning rate of fine-tuning; small, because pretrained weights are already good
    dtype: str = "float32"  # of the head; the encoder uses bfloat16 if the processor supports it
    seed: int = 0  # of weights, batches and dropout; the split has its own seed

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
        """Choose the head if it is "auto", and fill in the settings that depend on the head.

        An attention head turns `mirror` off.

        Args:
            statements: whether the targets are statements of texts, see `to_statements`.
        """
        head = self.head if self.head != "auto" else "attention" if statements else "grid"
        chosen: dict[str, Any] = {name: value for name, value in OF_HEAD[head].items() if not getattr(self, name)}
        return replace(self, head=head, mirror=self.mirror and head == "grid", **chosen)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> AttributeConfig:
        """Create a configuration from a dictionary.

        Raises:
            ValueError: a setting is unknown; the message lists the known settings.
        """
        return of_known(cls, {RENAMED.get(name, name): value for name, value in settings.items()})
