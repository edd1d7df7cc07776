"""Speed of training on frozen features, in real tokens/s (padding does not count): this package and the tutorials' way.

    python benchmarks/bench_training.py --steps 8 --repeats 3 --json training.json

Both learn the same equations, those of `AttentionCaptioner` (a GRU that attends to 64 regions); before the clock both
read the same captions with the same weights, and their losses are compared. The rival is the public tutorials' loop:
one row per caption with its image's features read from a `.npy`, all captions padded to the longest of the data, in
`tf.function` an unrolled loop over words that projects the keys and computes the logits at each, Adam, float32. A
second rival, which no tutorial shows, pads only to what the longest of 64 captions usually is. Ours is what `train`
runs: batches bucketed by length, the five captions of an image share its features, all logits at once, bfloat16 where
the processor has it; with dropout, label smoothing, attention penalty, clipping and averaged weights, none of which the
rival has.

The floor is arithmetic: the operations of the matrix products of a step (forward, and twice as many backward) at this
machine's rate of matrix products. Captions are Flickr8k's where ATTNCAP_DATA names a folder with it, else made-up
words in numbers drawn from Flickr8k's distribution.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from drawn import DrawnEncoder, captions, tiny_pictures, vocabulary
from timing import arguments, ceiling_runs, finish, flickr8k, interleaved, medians, table

from attncap.features.extractor import best_dtype_policy
from attncap.features.store import FeatureStore
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.losses import MaskedCrossentropy
from attncap.tokenizers import PAD, WordTokenizer
from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig
from attncap.training.fit import keep_freed_memory, optimizer_of

RIVAL = "rival: the tutorials' loop, padded to the longest caption"
KIND = "the same loop, padded to the longest of 64"


class TutorialCaptioner(keras.Model):
    """The model of the rival: one word of each caption at a time, with everything computed again at each word."""

    def __init__(self, words: int, sizes: argparse.Namespace):
        super().__init__()
        self.encoder = keras.layers.Dense(sizes.projection)
        self.encoder_norm = keras.layers.LayerNormalization()
        self.start = keras.layers.Dense(sizes.hidden, activation="tanh")
        self.embedding = keras.layers.Embedding(words, sizes.embedding)
        self.keys = keras.layers.Dense(sizes.attention)
        self.query = keras.layers.Dense(sizes.attention, use_bias=False)
        self.score = keras.layers.Dense(1, use_bias=False)
        self.gate = keras.layers.Dense(sizes.projection, activation="sigmoid")
        self.gru = keras.layers.GRUCell(sizes.hidden)
        self.from_hidden = keras.layers.Dense(sizes.embedding)
        self.from_context = keras.layers.Dense(sizes.embedding, use_bias=False)
        self.words = keras.layers.Dense(words)

    def attend(self, values: Any, hidden: Any) -> Any:
        scores = self.score(tf.tanh(self.keys(values) + self.query(hidden)[:, None, :]))  # (B, L, 1)
        return tf.reduce_sum(tf.nn.softmax(scores, axis=1) * values, axis=1)  # (B, D')

    def one_word(self, word: Any, values: Any, hidden: Any) -> tuple[Any, Any]:
        context = self.attend(values, hidden) * self.gate(hidden)
        embedded = self.embedding(word)
        hidden, _ = self.gru(tf.concat([embedded, context], axis=-1), [hidden])
        return self.words(tf.tanh(embedded + self.from_hidden(hidden) + self.from_context(context))), hidden

    def loss_of(self, features: Any, token_ids: Any) -> Any:
        """Return the mean of -log p over real tokens: features (B, L, D), token_ids (B, T), `<start>` to `<end>`."""
        values = self.encoder_norm(self.encoder(features))
        hidden = self.start(tf.reduce_mean(values, axis=1))
        total = 0.0
        for t in range(1, token_ids.shape[1]):
            logits, hidden = self.one_word(token_ids[:, t - 1], values, hidden)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(token_ids[:, t], logits)
            total += tf.reduce_sum(each * tf.cast(token_ids[:, t] != PAD, tf.float32))
        return total / tf.reduce_sum(tf.cast(token_ids[:, 1:] != PAD, tf.float32))


def copy_weights(ours: AttentionCaptioner, rival: TutorialCaptioner) -> None:
    """Copy our weights into the rival, layer by layer."""
    pairs = [
        (ours.value_dense, rival.encoder),
        (ours.value_norm, rival.encoder_norm),
        (ours.initial_dense, rival.start),
        (ours.embedding, rival.embedding),
        (ours.attention.key_dense, rival.keys),
        (ours.attention.query_dense, rival.query),
        (ours.attention.score_dense, rival.score),
        (ours.gate_dense, rival.gate),
        (ours.cell, rival.gru),
        (ours.hidden_dense, rival.from_hidden),
        (ours.context_dense, rival.from_context),
        (ours.logits_dense, rival.words),
    ]
    for source, target in pairs:
        target.set_weights(source.get_weights())


def rival_run(
    model: TutorialCaptioner, files: list[str], rows: np.ndarray, steps: int, batch: int
) -> Callable[[], Any]:
    """Run `steps` steps of the rival on the first rows (token ids, padded); files are the `.npy`s of their images."""
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(features: Any, token_ids: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.loss_of(features, token_ids)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    def load(file: Any, token_ids: Any) -> tuple[Any, Any]:
        features = tf.numpy_function(lambda name: np.load(name.decode()), [file], tf.float32)
        return features, token_ids

    size = np.load(files[0]).shape

    def run() -> None:
        dataset = tf.data.Dataset.from_tensor_slices((files[: steps * batch], rows[: steps * batch]))
        dataset = dataset.map(load, num_parallel_calls=os.cpu_count()).batch(batch).prefetch(4)
        options = tf.data.Options()
        options.autotune.enabled = False  # the end of an iterator waits for a tuning thread, here up to half of a round
        dataset = dataset.with_options(options)
        for features, token_ids in dataset:
            loss = train_step(tf.ensure_shape(features, (batch, *size)), token_ids)
            float(loss)

    return run


def operations(sizes: argparse.Namespace, words: int) -> tuple[float, float]:
    """Return the operations of training per image and per token: matrix products, forward and backward."""
    regions, size, values, hidden = sizes.regions, sizes.features, sizes.projection, sizes.hidden
    embedding, attention = sizes.embedding, sizes.attention
    # Features have no gradient: their projection is computed twice, everything else three times.
    picture = 2 * (2 * regions * size * values) + 3 * (2 * regions * values * attention + 2 * values * hidden)
    token = hidden * attention + regions * (attention + values) + hidden * values  # query, scores, context, gate
    token += (embedding + values + hidden) * 3 * hidden  # the GRU
    token += (hidden + values) * embedding + embedding * words  # the readout
    return float(picture), 3 * 2.0 * token


def same_loss(captioner: AttentionCaptioner, rival: TutorialCaptioner, batches: CaptionBatches) -> dict[str, float]:
    """Return the loss of the first batch in float32 without dropout: in one pass, and in the loop of the rival."""
    inputs, targets = batches[0]
    loss = float(MaskedCrossentropy(0.0)(targets, captioner(inputs, training=False)))
    pictures, each, length = targets.shape
    features = np.repeat(inputs["features"].reshape(pictures, -1, inputs["features"].shape[-1]), each, axis=0)
    token_ids = np.concatenate([inputs["token_ids"], targets[:, :, -1:]], axis=2).reshape(-1, length + 1)
    rival.loss_of(features[:1].astype(np.float32), token_ids[:1, :2])  # build the layers
    copy_weights(captioner, rival)
    return {"attncap": loss, "rival": float(rival.loss_of(features.astype(np.float32), token_ids))}


def main(argv: Sequence[str] | None = None) -> dict:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--steps", type=int, default=8, help="steps per round")
    parser.add_argument(
        "--pictures", type=int, nargs="+", default=[13, 32], help="images per batch of ours, with 5 captions each"
    )
    parser.add_argument("--batch", type=int, default=64, help="captions per batch of the rival")
    parser.add_argument("--data", type=int, default=320, help="images in the data, each with 5 captions")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--regions", type=int, default=64, help="a square number")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--embedding", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=512, help="units of the GRU")
    parser.add_argument("--attention", type=int, default=512)
    parser.add_argument("--projection", type=int, default=256, help="units of the projected regions")
    parser.add_argument("--max-length", type=int, default=40, help="tokens; longer captions are cut, as in `train`")
    parser.add_argument("--dtype", default="auto", help="our dtype; the rival computes in float32")
    parser.add_argument("--ceiling-size", type=int, default=2048, help="size of the square matrices for the ceiling")
    parser.add_argument("--made-up", action="store_true", help="use made-up captions even if ATTNCAP_DATA is set")
    settings = parser.parse_args(argv)
    keras.utils.set_random_seed(settings.seed)
    side = round(settings.regions**0.5)
    shape = (side, side, settings.features)
    dtype = best_dtype_policy() if settings.dtype == "auto" else settings.dtype

    real = None if settings.made_up else flickr8k()
    if real is None:
        tokenizer = WordTokenizer(vocabulary(settings.vocabulary))
        texts = captions(settings.data, 5, settings.vocabulary - 4, settings.seed)
        source = "made up, in lengths of Flickr8k's distribution"
    else:
        whole = real.references()
        tokenizer = WordTokenizer.from_captions(
            [text for own in whole.values() for text in own], min_count=1, max_size=settings.vocabulary - 4
        )
        order = np.random.default_rng(settings.seed).permutation(len(whole))[: settings.data]
        texts = [list(whole.values())[n] for n in order]
        source = "Flickr8k's"

    with tempfile.TemporaryDirectory(prefix="attncap-bench-") as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        paths = tiny_pictures(folder / "pictures", len(texts))
        store = FeatureStore(folder / "store", DrawnEncoder(shape, settings.seed))
        store.extract(paths, progress=False)
        files = [str(folder / f"{n}.npy") for n in range(len(texts))]
        for path, file in zip(paths, files, strict=True):
            np.save(file, store.get([path])[0].reshape(settings.regions, -1).astype(np.float32))

        image_ids = [str(n) for n in range(len(texts))]
        data = dict(zip(image_ids, paths, strict=True)), dict(zip(image_ids, texts, strict=True))
        sizes = {
            "embedding_units": settings.embedding,
            "hidden_units": settings.hidden,
            "attention_units": settings.attention,
            "projection_units": settings.projection,
        }
        words = tokenizer.vocabulary_size()
        rival = TutorialCaptioner(words, settings)
        plain = AttentionCaptioner(tokenizer, shape, dropout=0.0, dtype="float32", **sizes)
        first = CaptionBatches(
            store.get, *data, tokenizer, batch_size=settings.pictures[0], max_length=settings.max_length
        )
        losses = same_loss(plain, rival, first)

        # The rival shuffles its rows.
        rows = [(n, text) for n, own in enumerate(texts) for text in own]
        order = np.random.default_rng(settings.seed).permutation(len(rows))
        token_ids = tokenizer.pack([rows[n][1] for n in order], settings.max_length)  # (N, T)
        row_files = [files[rows[n][0]] for n in order]
        longest = (token_ids != PAD).sum(axis=1)
        usual = int(np.median([longest[at : at + settings.batch].max() for at in range(0, len(rows), settings.batch)]))
        used = settings.steps * settings.batch
        if used > len(rows):
            raise ValueError(
                f"{settings.steps} steps of {settings.batch} captions need more --data than {settings.data}"
            )
        runs: dict[str, Callable[[], Any]] = {}
        tokens: dict[str, int] = {}
        for label, length in ((RIVAL, token_ids.shape[1]), (KIND, usual)):
            cut = np.ascontiguousarray(token_ids[:, :length])
            runs[label] = rival_run(rival, row_files, cut, settings.steps, settings.batch)
            tokens[label] = int((cut[:used, 1:] != PAD).sum())

        ours, seen, steps_of = {}, {}, dict.fromkeys((RIVAL, KIND), settings.steps)
        keep_freed_memory()  # as `train` does
        for pictures in settings.pictures:
            label = f"attncap, {5 * pictures} captions of {pictures} images per step"
            batches = CaptionBatches(store.get, *data, tokenizer, batch_size=pictures, max_length=settings.max_length)
            steps = min(settings.steps, len(batches))
            config = TrainConfig(max_length=settings.max_length, batch_size=pictures, epochs=12)
            penalty = config.attention_penalty
            captioner = AttentionCaptioner(tokenizer, shape, attention_penalty=penalty, dtype=dtype, **sizes)
            captioner.compile(
                optimizer_of(config, len(batches)), loss=MaskedCrossentropy(config.label_smoothing), jit_compile=False
            )
            dataset = batches.for_fit().take(steps)

            def fit(captioner: Any = captioner, dataset: Any = dataset) -> None:
                captioner.fit(dataset, shuffle=False, verbose=0)  # CaptionBatches shuffles

            runs[label] = ours[label] = fit
            steps_of[label] = steps
            targets = [batches[n][1] for n in range(steps)]
            tokens[label] = int(sum((target != PAD).sum() for target in targets))
            seen[label] = sum(len(target) for target in targets)

        for run in runs.values():
            run()  # trace graphs before timing
        ceiling, matrix_operations = ceiling_runs(settings.ceiling_size)
        seconds = interleaved({**runs, **ceiling}, settings.repeats)
        store.close()

    middle = medians(seconds)
    rates = {run: tokens[run] / middle[run] for run in runs}
    gflops = {run: matrix_operations[run] / middle[run] / 1e9 for run in ceiling}
    own = gflops["matrix products, bfloat16" if "bfloat16" in dtype else "matrix products, float32"]
    picture, token = operations(settings, words)
    twenty = settings.batch * (picture + 20 * token) / own / 1e9
    floor = {run: (seen[run] * picture + tokens[run] * token) / own / 1e9 for run in ours}
    unshared = {run: tokens[run] * (picture / 20 + token) / own / 1e9 for run in ours}
    print(f"Training, real tokens/s; captions {source}; ours in {dtype}; median of {settings.repeats} rounds")
    ratios = table(rates, "tokens/s", RIVAL, digits=0)
    for label, steps in steps_of.items():
        print(f"  {label}: {1000 * middle[label] / steps:.0f} ms per step of {tokens[label] / steps:.0f} tokens")
    table(gflops, "GFLOP/s", digits=0)
    print(f"  floor of a step of {settings.batch} captions of 20 tokens, each with features: {1000 * twenty:.0f} ms")
    shares = {}
    for label in ours:
        own_share, one_each = floor[label] / middle[label], unshared[label] / middle[label]
        shares[label] = {"shared": own_share, "unshared": one_each}
        print(f"  {label}: {own_share:.2f} of the floor of what it computes,")
        print(f"    {one_each:.2f} of the floor with features for each caption of 20 tokens")
    print(f"  loss of the same captions, before: {losses['attncap']:.5f}, rival {losses['rival']:.5f}")
    return finish(
        settings,
        captions=source,
        dtype=dtype,
        seconds=seconds,
        tokens=tokens,
        steps=steps_of,
        rates=rates,
        ratios=ratios,
        gflops=gflops,
        floor={"milliseconds_of_20_tokens": 1000 * twenty, "shares": shares},
        padded_to={"rival": int(token_ids.shape[1]), "kind": usual},
        loss=losses,
    )


if __name__ == "__main__":
    main()
