"""Measure extraction, training and decoding on a GPU next to the CPU of the same machine: a table for docs/speed.md.

    KERAS_BACKEND=jax python scripts/check_gpu.py --json gpu.json      # under 8 minutes
    KERAS_BACKEND=jax python scripts/check_gpu.py --small              # self-test, on a CPU alone as well

Runs on the JAX backend and needs no TensorFlow. Networks have random weights, the same ones on both devices, so that
features and captions can be compared. Without a GPU the CPU is compared with itself, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

from attncap.decoding.decoder import Decoder
from attncap.features.extractor import FeatureExtractor
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.losses import MaskedCrossentropy
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, START, WordTokenizer

SIZES = {  # as in benchmarks/: InceptionV3 to mixed8, 5 captions of 20 tokens per image
    "layer": "mixed8",
    "image_size": 299,
    "batch": 32,
    "vocabulary": 5000,
    "units": 512,
    "tokens": 20,
    "images": 256,
    "seconds": 20.0,  # of each measurement
}
SMALL = SIZES | {"layer": "mixed0", "image_size": 75, "batch": 2, "vocabulary": 30, "units": 16, "images": 4}
SMALL |= {"tokens": 6, "seconds": 0.2}


def rate(function: Callable[[], Any], items: int, seconds: float) -> float:
    """Return items per second of a function, after one call that compiles it."""
    jax.block_until_ready(function())
    calls, began = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - began < seconds:
        jax.block_until_ready(function())
        calls += 1
    return calls * items / (time.perf_counter() - began)


def sharpened(captioner: keras.Model) -> None:
    """Make captions of random weights end, and differ: a word's kind is followed by the next kind, then by the end."""
    for weight in captioner.trainable_variables:
        weight.assign(3.0 * weight)
    bias = np.zeros(captioner.logits_dense.bias.shape, np.float32)
    bias[END] = 2.0
    captioner.logits_dense.bias.assign(bias)


def measure(device: str, size: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return rates of the three tasks on a device, and what they computed."""
    rng = np.random.default_rng(0)
    with keras.device(device):
        keras.utils.set_random_seed(0)
        encoder = FeatureExtractor(size["layer"], "random", size["image_size"], dtype="float32")
        network = encoder.network_for_pixels()
        pixels = rng.integers(0, 256, (size["batch"], size["image_size"], size["image_size"], 3)).astype(np.uint8)
        rates = {"extraction, images/s": rate(lambda: network.predict_on_batch(pixels), len(pixels), size["seconds"])}
        made = {"features": np.asarray(network.predict_on_batch(pixels), np.float32)}

        words = [f"word{number}" for number in range(size["vocabulary"])]
        tokenizer = WordTokenizer([*SPECIAL_TOKENS, *words])
        units = {"embedding_units": size["units"], "hidden_units": size["units"], "projection_units": size["units"]}
        captioner = AttentionCaptioner(tokenizer, encoder.feature_shape, attention_units=size["units"] // 2, **units)
        features = rng.normal(size=(size["images"], *encoder.feature_shape)).astype(np.float32)
        token_ids = rng.integers(4, len(tokenizer.vocabulary), (size["batch"], 5, size["tokens"])).astype(np.int32)
        token_ids[:, :, 0], token_ids[:, :, -1] = START, PAD
        targets = np.concatenate([token_ids[:, :, 1:], np.full_like(token_ids[:, :, :1], PAD)], axis=2)

        sharpened(captioner)
        decode = Decoder(captioner, beam_width=3, max_length=size["tokens"])
        rates["decoding, captions/s"] = rate(lambda: decode(features), len(features), size["seconds"])
        made["captions"] = [caption.text for caption in decode(features)]

        captioner.compile(keras.optimizers.AdamW(1e-3), loss=MaskedCrossentropy())
        inputs = {"features": features[: size["batch"]], "token_ids": token_ids}
        tokens = int((targets[: size["batch"]] != PAD).sum())
        step = rate(lambda: captioner.train_on_batch(inputs, targets), tokens, size["seconds"])
        rates["training, tokens/s"] = step
    return rates, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="sizes of a self-test: says nothing of speed")
    parser.add_argument("--json", metavar="FILE", help="write the numbers")
    options = parser.parse_args()
    if keras.backend.backend() != "jax":
        raise SystemExit(f"KERAS_BACKEND is {keras.backend.backend()}: start with KERAS_BACKEND=jax")
    size = SMALL if options.small else SIZES
    has_gpu = any(device.platform == "gpu" for device in jax.devices())
    names = ["cpu:0", "gpu:0" if has_gpu else "cpu:0"]
    began = time.perf_counter()
    (cpu, of_cpu), (other, of_other) = (measure(name, size) for name in names)
    same = float(np.mean([a == b for a, b in zip(of_cpu["captions"], of_other["captions"], strict=True)]))
    largest = float(np.abs(of_cpu["features"] - of_other["features"]).max() / np.abs(of_cpu["features"]).max())
    title = jax.devices()[0].device_kind if has_gpu else "the CPU again: no GPU was found, and none was measured"
    print(f"JAX {jax.__version__}, float32, {os.cpu_count()} cores; {title}\n")
    print("| | CPU | GPU | ratio |\n| --- | --- | --- | --- |")
    for name, value in cpu.items():
        print(f"| {name} | {value:,.1f} | {other[name]:,.1f} | {other[name] / value:.1f} |")
    print(f"\nequal captions: {same:.1%} of {len(of_cpu['captions'])}; features differ by {largest:.1e} of the largest")
    print(f"{time.perf_counter() - began:.0f} s in all")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"gpu": has_gpu, "cpu": cpu, "other": other, "equal": same, "difference": largest}, file)
    if same < 0.95 or largest > 1e-2:
        raise SystemExit("the devices do not agree")


if __name__ == "__main__":
    main()
