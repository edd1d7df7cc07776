"""The names of the methods that explain words; a module of its own, so that the command line need not load Keras."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["occlusion", "gradient", "attention"]
METHODS: tuple[Method, ...] = get_args(Method)
