"""Names of the explanation methods. They are in a separate module so that the command line does not load Keras."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["occlusion", "gradient", "attention"]
METHODS: tuple[Method, ...] = get_args(Method)
