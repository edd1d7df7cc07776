"""Speed of beam search, in captions/s: this package, and one image at a time in a Python loop over steps.

    python benchmarks/bench_decoding.py --pictures 1000 --repeats 3 --json decoding.json
    ATTNCAP_DATA=DIR python benchmarks/bench_decoding.py --captioner RUN --features FOLDER

Both use the same search and the same weights. The rival keeps the beams of one image in NumPy and calls the step of
the model for them, eagerly and in float32, as public tutorials do. It is faster than most of them: the keys are
projected once, and the beams of an image form one batch. It is timed on fewer images. Our decoder also returns the
probability and the attention map of each word, and uses bfloat16 if the processor has it. In float32 the captions of
both are compared: they must be equal.

Without --captioner the weights are random, but with a bias: words belong to kinds that follow each other, and from the
eighth word on the end may follow, so that captions are as long as those of a trained captioner (with random weights
alone they never end).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from drawn import DrawnEncoder, vocabulary
from timing import arguments, finish, flickr8k, interleaved, medians, table

from attncap.decoding.decoder import Decoder
from attncap.features.extractor import best_dtype_policy
from attncap.features.store import FeatureStore
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner, CaptionerState
from attncap.models.saving import load_captioner
from attncap.tokenizers import END, NEVER_GENERATED, PAD, START, WordTokenizer

RIVAL = "rival: one image at a time, a Python loop over steps"
KINDS, LEAST, MOST = 14, 8, 13  # kinds of words; fewest and most words of a caption


def python_beam_search(captioner: Captioner, features: np.ndarray, width: int, most: int, exponent: float) -> list[int]:
    """Return the best caption of one image, features (rows, cols, D), as token ids without `<end>`: the rival."""
    state = captioner.init_state(features[None], captions=width)
    scores = np.array([0.0] + [-1e9] * (width - 1))  # only beam 0 is live at the first step
    sequences: list[list[int]] = [[] for _ in range(width)]
    for _ in range(most):
        last = [sequence[-1] if sequence else START for sequence in sequences]
        logits, after, _ = captioner.step(tf.constant([last]), state)
        log_probs = tf.nn.log_softmax(logits, axis=-1)[0].numpy().astype(float)  # (K, V)
        log_probs[:, list(NEVER_GENERATED)] = -1e9
        candidates = []
        for beam, sequence in enumerate(sequences):
            if sequence and sequence[-1] == END:
                candidates.append((scores[beam] / len(sequence) ** exponent, scores[beam], beam, END))
                continue
            for word in np.argsort(log_probs[beam])[-width:]:
                total = scores[beam] + log_probs[beam, word]
                candidates.append((total / (len(sequence) + 1) ** exponent, total, beam, int(word)))
        best = sorted(candidates, key=lambda candidate: -candidate[0])[:width]
        scores = np.array([total for _, total, _, _ in best])
        parents = [beam for _, _, beam, _ in best]
        sequences = [
            sequences[beam] if sequences[beam][-1:] == [END] else [*sequences[beam], word] for _, _, beam, word in best
        ]
        state = CaptionerState(
            state.memory, {name: tf.gather(values, parents, axis=1) for name, values in after.recurrent.items()}
        )
        if all(sequence[-1] == END for sequence in sequences):
            break
    return [word for word in sequences[0] if word != END]


def bias_lengths(captioner: AttentionCaptioner, rng: np.random.Generator) -> None:
    """Set weights so that captions have LEAST to MOST words: words belong to kinds that follow each other."""
    kinds = 1 + np.arange(captioner.tokenizer.vocabulary_size()) % (KINDS - 1)
    kinds[START], kinds[PAD] = 0, 0
    embedding = captioner.embedding.get_weights()[0]
    embedding = rng.uniform(-0.5, 0.5, embedding.shape)
    embedding[:, :KINDS] = 6.0 * np.eye(KINDS)[kinds]
    kernel, bias = captioner.logits_dense.get_weights()
    kernel = kernel * 12.0
    for kind in range(KINDS):
        kernel[kind] = np.where(kinds == kind + 1, 12.0, -12.0)
        kernel[kind, END] = -12.0 if kind < LEAST else 16.5 + 0.8 * (kind - LEAST)
    for layer in (captioner.hidden_dense, captioner.context_dense):  # they leave the units of the kind at zero
        weight, *others = layer.get_weights()
        weight[:, :KINDS] = 0.0
        layer.set_weights([weight, *others])
    captioner.embedding.set_weights([embedding])
    captioner.logits_dense.set_weights([kernel, bias])


def in_float32(captioner: Captioner) -> Captioner:
    """Return a copy without the encoder, in float32, as the rival computes."""
    config = {**captioner.get_config(), "encoder": None, "dtype": "float32"}
    copy = type(captioner).from_config(config)
    encoder = set() if captioner.encoder is None else {id(variable) for variable in captioner.encoder.weights}
    own = [variable for variable in captioner.weights if id(variable) not in encoder]
    for target, source in zip(copy.weights, own, strict=True):
        target.assign(source)
    return copy


def main(argv: Sequence[str] | None = None) -> dict:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rival-pictures", type=int, default=16, help="number of images for the rival")
    parser.add_argument("--beam-width", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--captioner", metavar="RUN", help="trained captioner: run folder or .keras file (default: random weights)"
    )
    parser.add_argument(
        "--features", metavar="FOLDER", help="feature stores of --captioner, with the dev images of Flickr8k"
    )
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--feature-shape", type=int, nargs=3, default=[8, 8, 2048])
    parser.add_argument(
        "--units", type=int, default=512, help="units of embedding, GRU and projection; half in attention"
    )
    parser.add_argument("--dtype", default="auto", help="our dtype; the rival computes in float32")
    settings = parser.parse_args(argv)
    keras.utils.set_random_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)

    if settings.captioner:
        captioner = load_captioner(settings.captioner)
    else:
        captioner = AttentionCaptioner(
            WordTokenizer(vocabulary(settings.vocabulary)),
            tuple(settings.feature_shape),
            embedding_units=settings.units,
            hidden_units=settings.units,
            projection_units=settings.units,
            attention_units=settings.units // 2,
            dtype=best_dtype_policy() if settings.dtype == "auto" else settings.dtype,
        )
        bias_lengths(captioner, rng)
    shape = captioner.feature_shape
    if settings.features:
        dev = flickr8k("val")
        if dev is None or captioner.encoder is None:
            raise ValueError("--features needs ATTNCAP_DATA, and a --captioner that holds its encoder")
        features = FeatureStore(settings.features, captioner.encoder).get(
            list(dev.pictures["path"].head(settings.pictures))
        )
    else:
        features = DrawnEncoder(shape, settings.seed, batch=settings.pictures).predict_on_batch(
            np.zeros(settings.pictures)
        )
    plain = in_float32(captioner)
    decode = Decoder(
        captioner, beam_width=settings.beam_width, max_length=settings.max_length, batch_size=settings.batch_size
    )
    few = features[: settings.rival_pictures]
    ours_label = f"attncap: {settings.batch_size} images at a time, in the graph"
    found: dict[str, Any] = {}

    def rival() -> None:
        found["rival"] = [python_beam_search(plain, one, settings.beam_width, settings.max_length, 0.7) for one in few]

    def ours() -> None:
        found["ours"] = decode(features)

    decode(features[: settings.batch_size])  # compile before timing
    python_beam_search(plain, few[0], settings.beam_width, settings.max_length, 0.7)
    seconds = interleaved({ours_label: ours, RIVAL: rival}, settings.repeats)
    exact = Decoder(plain, beam_width=settings.beam_width, max_length=settings.max_length)(few)
    same = [list(caption.token_ids) == other for caption, other in zip(exact, found["rival"], strict=True)]
    same_as_timed = [list(c.token_ids) == other for c, other in zip(found["ours"], found["rival"], strict=False)]
    lengths = [len(caption.token_ids) for caption in found["ours"]]
    middle = medians(seconds)
    rates = {RIVAL: len(few) / middle[RIVAL], ours_label: len(features) / middle[ours_label]}
    print(
        f"Beam {settings.beam_width}, {len(features)} images (the rival {len(few)}), features {shape}, "
        f"{captioner.tokenizer.vocabulary_size()} words, {captioner.dtype_policy.name}; "
        f"median of {settings.repeats} rounds"
    )
    ratios = table(rates, "captions/s", RIVAL)
    print(f"  captions of {np.mean(lengths):.1f} words ({min(lengths)} to {max(lengths)})")
    print(
        f"  same captions as the rival: {np.mean(same):.0%} in float32, {np.mean(same_as_timed):.0%} in "
        f"{captioner.dtype_policy.name}"
    )
    return finish(
        settings,
        dtype=captioner.dtype_policy.name,
        seconds=seconds,
        rates=rates,
        ratios=ratios,
        same_captions={"float32": float(np.mean(same)), "timed": float(np.mean(same_as_timed))},
        words={"mean": float(np.mean(lengths)), "least": min(lengths), "most": max(lengths)},
    )


if __name__ == "__main__":
    main()
