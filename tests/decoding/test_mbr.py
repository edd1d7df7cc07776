"""Decoding by agreement: the gain by hand, and the choice against every caption of a language that is a table."""

from __future__ import annotations

import numpy as np
import pytest

from attncap.captions import Caption
from attncap.decoding.decoder import Decoder
from attncap.decoding.logits import ForbiddenWords
from attncap.decoding.mbr import ConsensusConfig, ConsensusDecoder, RepetitionCost
from attncap.metrics.cider_d import CiderD
from attncap.metrics.reward import CaptionReward
from attncap.tokenizers import END
from tests.decoding.test_decoder import MAX_LENGTH, FakeCaptioner

REFERENCES = {"x": ["a b c", "a a"], "y": ["b c b"], "z": ["c"]}
PICTURES, SAMPLES = 13, 200


@pytest.fixture(scope="module")
def captioner() -> FakeCaptioner:
    return FakeCaptioner(PICTURES, seed=3)


def decoder(captioner: FakeCaptioner, **settings) -> ConsensusDecoder:
    settings = {"beam_width": 4, "samples": SAMPLES, "max_length": MAX_LENGTH, "batch_size": 5, **settings}
    return ConsensusDecoder(captioner, REFERENCES, **settings)


def test_agreement_is_the_mean_of_cider_d_over_the_others() -> None:
    gain = CiderD([[[4, 5, 6, 7, END]], [[8, END]], [[9, 4, END]]])
    same, other = [4, 5, 6, 7, END], [8, 9, END]
    assert gain.agreement([same], [same]) == pytest.approx([10.0])
    assert gain.agreement([same], [[10, 11]]) == pytest.approx([0.0])
    both = gain.agreement([same, other], [same, other])
    assert both == pytest.approx(np.mean([gain.agreement([same, other], [row]) for row in (same, other)], axis=0))
    assert gain.agreement([same], [[4, 5, 6, 7, END, *[12] * 6]]) < gain.agreement([same], [[4, 5, 6, 7, END, 12]])
    as_references = CaptionReward({"x": [[4, 5, 6, 7, END]], "y": [[8, END]], "z": [[9, 4, END]]})
    assert gain.agreement([other], [[8, END]])[0] == pytest.approx(as_references(["y"], [[other]])[0, 0])


@pytest.mark.slow
def test_the_choice_is_nearly_the_best_of_the_proposals_by_the_exact_gain(captioner: FakeCaptioner) -> None:
    temperature = 0.7
    settings = {"likelihood": 0.0, "repetition": 0.0}
    chosen = decoder(captioner, temperature=temperature, **settings)(captioner.features())
    proposals = Decoder(captioner, beam_width=4, n_best=4, max_length=MAX_LENGTH)(captioner.features())
    ids = captioner.tokenizer.tokenize
    gain = CiderD([[[*ids(text), END] for text in texts] for texts in REFERENCES.values()])
    gained, likeliest, best = [], [], []
    for picture, (caption, own) in enumerate(zip(chosen, proposals, strict=True)):
        everything, weights = [], []
        for _, _, tokens in captioner.all_captions(picture, 0.0, MAX_LENGTH):
            drawn = 0.0  # words are drawn at the temperature, one by one
            for at, token in enumerate(tokens):
                cooled = {word: p / temperature for word, p in captioner.log_probs(picture, tokens[:at]).items()}
                drawn += cooled[token] - np.logaddexp.reduce(list(cooled.values()))
            everything.append(list(tokens))
            weights.append(np.exp(drawn))
        assert sum(weights) == pytest.approx(1.0)
        exact = {
            each.token_ids: sum(
                weight * gain.agreement([[*each.token_ids, END]], [row])[0]
                for weight, row in zip(weights, everything, strict=True)
                if weight > 1e-4
            )
            for each in own
        }
        gained.append(exact[caption.token_ids])
        likeliest.append(exact[own[0].token_ids])
        best.append(max(exact.values()))
    regret = np.array(best) - gained
    assert regret.max() < 0.6 and (regret < 1e-9).mean() > 0.7
    assert np.mean(gained) > np.mean(likeliest) + 0.1  # the likeliest caption is another one, and agrees less


def test_likelihood_alone_is_the_search(captioner: FakeCaptioner) -> None:
    features, ids = captioner.features(), [f"p{n}" for n in range(PICTURES)]
    chosen = decoder(captioner, likelihood=1e6, samples=2)(features, ids)
    searched = Decoder(captioner, beam_width=4, max_length=MAX_LENGTH)(features, ids)
    assert [(c.image_id, c.text) for c in chosen] == [(c.image_id, c.text) for c in searched]
    assert [c.log_prob for c in chosen] == pytest.approx([c.log_prob for c in searched], rel=1e-5)
    one = decoder(captioner, beam_width=1, samples=2)(features, ids)
    greedy = Decoder(captioner, beam_width=1, max_length=MAX_LENGTH)(features, ids)
    assert [c.text for c in one] == [c.text for c in greedy]


def test_a_seed_makes_the_choice_repeatable_and_maps_come_with_it(captioner: FakeCaptioner) -> None:
    first, second, other = (decoder(captioner, samples=1, seed=seed)(captioner.features()) for seed in (1, 1, 2))
    assert [c.text for c in first] == [c.text for c in second]
    assert [c.text for c in first] != [c.text for c in other]
    assert all(c.attention_weights is not None and len(c.attention_weights) == len(c.words) for c in first)


def test_neighbors_have_their_say(captioner: FakeCaptioner) -> None:
    asked = []

    def heard(features: np.ndarray) -> list[list[str]]:
        asked.extend(int(number) for number in features.ravel())
        return [["b c b", "c"] if number % 2 else [] for number in features.ravel()]

    features = captioner.features()
    before = decoder(captioner)(features)
    same = decoder(captioner, neighbors=heard, neighbor_weight=0.0)(features)
    assert [c.text for c in same] == [c.text for c in before] and asked == list(range(PICTURES))
    after = decoder(captioner, neighbors=heard, neighbor_weight=1e6)(features)
    proposals = Decoder(captioner, beam_width=4, n_best=4, max_length=MAX_LENGTH)(features)
    ids = captioner.tokenizer.tokenize
    gain = CiderD([[[*ids(text), END] for text in texts] for texts in REFERENCES.values()])
    said = [[*ids(text), END] for text in ("b c b", "c")]
    for number, (caption, own) in enumerate(zip(after, proposals, strict=True)):
        if number % 2:
            scores = gain.agreement([[*each.token_ids, END][:MAX_LENGTH] for each in own], said)
            assert scores[[each.text for each in own].index(caption.text)] == pytest.approx(max(scores))
        else:  # nobody said anything of its like
            assert caption.text == before[number].text
    assert [c.text for c in after] != [c.text for c in before]


def test_the_cost_of_words_said_again_by_hand() -> None:
    captions = [[4, 5, 4, 6], [4, 5], [4, 4, 4], [6]]  # 4 in three, and three times more; 5 in two; 6 in two
    cost = RepetitionCost(captions)
    found = cost([[4, 5, 6], [4, 5, 5], [5, 5, 5, 6, 6], [4, 4], [7, 7], []])
    once = -np.log(0.5 / 3)
    assert found == pytest.approx([0, once, 3 * once, -np.log(3.5 / 4), np.log(2), 0])
    assert RepetitionCost([[4, 4, 4]])([[4, 4]]) == pytest.approx([0])  # (2 + 1/2) / 2 is no probability


def test_words_said_again_cost(captioner: FakeCaptioner) -> None:
    def said_again(chosen: list[Caption]) -> int:
        return sum(len(caption.words) - len(set(caption.words)) for caption in chosen)

    features = captioner.features()
    free, dear = (decoder(captioner, repetition=weight)(features) for weight in (0.0, 1e6))
    assert said_again(dear) < said_again(free)
    cost = RepetitionCost([[*captioner.tokenizer.tokenize(text), END] for own in REFERENCES.values() for text in own])
    proposals = Decoder(captioner, beam_width=4, n_best=4, max_length=MAX_LENGTH)(features)
    for caption, own in zip(dear, proposals, strict=True):
        assert cost([caption.token_ids]) == pytest.approx(min(cost([each.token_ids for each in own])))


def test_what_is_refused(captioner: FakeCaptioner) -> None:
    with pytest.raises(ValueError, match="samples must be at least 1 per image, got 0"):
        decoder(captioner, samples=0)
    with pytest.raises(ValueError, match="needs reference captions, got none"):
        ConsensusDecoder(captioner, {})
    for name in ("temperature", "likelihood", "repetition", "neighbor_weight"):
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{name} is a finite number"):
                ConsensusConfig(**{name: value})
    with pytest.raises(TypeError, match="give either config or settings, got config and samples"):
        ConsensusDecoder(captioner, REFERENCES, config=ConsensusConfig(), samples=3)


def test_settings_as_one_object_and_words_that_are_forbidden(captioner: FakeCaptioner) -> None:
    config = ConsensusConfig(beam_width=4, samples=3, max_length=MAX_LENGTH, batch_size=5)
    by_name = decoder(captioner, samples=3)(captioner.features())
    as_one = ConsensusDecoder(captioner, REFERENCES, config=config)(captioner.features())
    assert [c.text for c in as_one] == [c.text for c in by_name]
    processors = [ForbiddenWords(captioner.tokenizer, ["a"])]
    without = ConsensusDecoder(captioner, REFERENCES, config=config, logits_processors=processors)(captioner.features())
    assert {word for caption in without for word in caption.words} == {"b", "c"}
