"""The explorer's page without a browser: what it holds, what cannot get out of its place, what it refuses."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.captions import Caption
from attncap.plotting.explorer.page import Explorer, explore
from tests.captioners import CountingCaptioner

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--",
    "{{data}}",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'quoted'",
    "שלום",
    "👩🏽‍🚒",
    "line\u2028break",
    "\ud83d",  # half of a surrogate pair
)


def caption(words: tuple[str, ...] = ("a", "dog"), image_id: str | None = "dog.png", **more: Any) -> Caption:
    count = len(words)
    maps = np.random.default_rng(0).dirichlet(np.ones(15), count).reshape(count, 3, 5)
    defaults: dict[str, Any] = {
        "attention_weights": maps,
        "word_log_probs": np.log(np.linspace(0.9, 0.5, count)) if count else np.zeros(0),
    }
    return Caption(words, tuple(range(count)), -1.5, image_id=image_id, **(defaults | more))


def photo(width: int = 30, height: int = 20) -> np.ndarray:
    return np.full((height, width, 3), (200, 30, 60), np.uint8)


def stored(page: str) -> dict[str, Any]:
    """What a page holds for its script."""
    [block] = re.findall(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(block)))


def content(page: Explorer) -> dict[str, Any]:
    return stored(page.page)


def test_the_page_holds_what_was_given() -> None:
    maps = np.array([[[0.1, 0.4, 0.0], [0.3, 0.2, 0.0]], [[1 / 6] * 3, [1 / 6] * 3]])
    best = caption(attention_weights=maps, word_log_probs=np.log([0.5, 0.25]), grid_box=(0.1, 0.2, 0.9, 0.8))
    other = caption(("one", "brown", "dog"), word_log_probs=np.array([-1.0, -np.inf, 0.0]))
    alternatives = [[[[("a", np.log(0.5)), ("the", np.log(0.3))], [("dog", np.log(0.25))]], [[("one", 0.0)]] * 3]]
    scores = pd.DataFrame({"image_id": ["dog.png"], "prediction": ["a dog"], "rouge_l": [0.5], "cider_d": [1.25]})
    page = explore(
        [[best, other]],
        {"dog.png": photo()},
        references={"dog.png": ["A dog."], "other.png": ["No."]},
        alternatives=alternatives,
        scores=scores,
    )
    seen = content(page)
    assert seen["sorts"] == [["cider_d", "CIDEr-D"], ["rouge_l", "ROUGE-L"]]
    [picture] = seen["images"]
    assert (picture["name"], picture["size"], picture["references"]) == ("dog.png", [30, 20], ["A dog."])
    assert picture["scores"] == {"rouge_l": 0.5, "cider_d": 1.25}
    first, second = picture["beams"]
    assert first["words"] == ["a", "dog"] and first["p"] == [0.5, 0.25] and first["log_prob"] == -1.5
    assert first["alternatives"] == [[["a", 0.5], ["the", 0.3]], [["dog", 0.25]]]
    assert second["words"] == ["one", "brown", "dog"] and second["p"] == [0.3679, 0.0, 1.0]
    maps_seen = first["maps"]
    assert (maps_seen["rows"], maps_seen["cols"], maps_seen["box"]) == (2, 3, [0.1, 0.2, 0.9, 0.8])
    assert maps_seen["most"] == [2.4, 1.0]  # 0.4 * 6 cells, and an even map
    steps = list(base64.b64decode(maps_seen["steps"]))
    assert steps == [64, 255, 0, 191, 128, 0, *[255] * 6]  # 0.1 / 0.4 of 255, and so on
    decoded = Image.open(BytesIO(base64.b64decode(picture["jpeg"])))
    assert decoded.format == "JPEG" and decoded.size == (30, 20)
    assert np.abs(np.asarray(decoded.convert("RGB"), int) - (200, 30, 60)).max() <= 4


class Parts(HTMLParser):
    """The tags and the text of a document, as a browser would split them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open, []).append(data)


def test_hostile_text_adds_no_tag_and_comes_back_whole() -> None:
    plain, hostile = Parts(), Parts()
    plain.feed(explore([caption()], [photo()]).page)
    said = caption(HOSTILE, image_id="</title><script>")
    alternatives = [[[(word, -1.0)] for word in HOSTILE]]
    page = explore(
        [said], [photo()], references={"</title><script>": HOSTILE}, alternatives=alternatives, title=HOSTILE[0]
    )
    hostile.feed(page.page)
    names = [tag for tag, _ in hostile.tags]
    assert names == [tag for tag, _ in plain.tags]
    assert hostile.text["title"][0] == HOSTILE[0] and hostile.text["h1"][0] == HOSTILE[0]
    [picture] = content(page)["images"]
    assert picture["name"] == "</title><script>" and tuple(picture["references"]) == HOSTILE
    assert tuple(picture["beams"][0]["words"]) == HOSTILE
    assert [words[0][0] for words in picture["beams"][0]["alternatives"]] == list(HOSTILE)
    page.page.encode("utf-8")  # also the half pair


def test_the_policy_forbids_the_network_and_names_the_page_s_own_script_and_style() -> None:
    text = explore([caption()], [photo()], title="\ud83d").page
    page = Parts()
    page.feed(text)
    [policy] = [
        dict(part.strip().split(" ", 1) for part in str(attrs["content"]).split(";"))
        for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:"
    for directive, tag in (("style-src", "style"), ("script-src", "script")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    addresses = [
        value for _, attrs in page.tags for name, value in attrs.items() if name in {"src", "href", "srcset", "action"}
    ]
    assert addresses == ["data:,"]  # no icon is asked for either
    assert not [name for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]


def test_a_notebook_gets_a_frame_of_its_own(tmp_path: Path) -> None:
    page = explore([caption(("<b>", "&amp;", '"'))], [photo()], height=500)
    shown = Parts()
    shown.feed(page._repr_html_())
    [(outer, _), (note, _), (picture, static), (tag, attrs)] = shown.tags
    assert (outer, note, picture, tag) == ("div", "p", "img", "iframe")
    assert attrs["srcdoc"] == page.page  # the parser undoes one escaping, as a browser does
    assert attrs["sandbox"] == "allow-scripts" and "height:500px" in str(attrs["style"])
    # Where scripts are not trusted the frame is removed: the maps of the first caption remain.
    assert static["alt"] == 'First captions of the explorer. dog.png: <b> &amp; "'
    kind, encoded = str(static["src"]).split(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(encoded))) as drawn:
        assert drawn.width > 200 and np.asarray(drawn.convert("L")).std() > 10
    several = explore([caption(image_id=None)] * 9, [photo()] * 9)._repr_html_()
    assert "<p>1 of 9 images. A notebook" in several
    without_maps = [Caption(("a", "dog"), (4, 5), -1.0, image_id=name) for name in "ab"]
    blind = explore(without_maps, [photo()] * 2)._repr_html_()
    assert "<p>2 of 2 images." in blind and 'alt="First captions of the explorer. a: a dog; b: a dog"' in blind
    assert len(several) < 1.5 * len(explore([caption(image_id=None)] * 9, [photo()] * 9).page) + 200_000
    assert re.fullmatch(r"Explorer\(1 image, 0\.\d MB\)", repr(page))
    saved = page.save(tmp_path / "new" / "page.html")
    assert saved.read_text(encoding="utf-8") == page.page


def test_pictures_come_from_a_folder_a_list_or_the_ids(tmp_path: Path) -> None:
    Image.fromarray(photo(70, 110)).save(tmp_path / "dog.png")
    captions = [caption(image_id="dog.png")]
    for pictures in (tmp_path, str(tmp_path), {"dog.png": tmp_path / "dog.png"}, [tmp_path / "dog.png"]):
        assert content(explore(captions, pictures))["images"][0]["size"] == [70, 110]
    own = explore(caption(image_id=str(tmp_path / "dog.png")), image_pixels=55)
    assert content(own)["images"][0]["size"] == [35, 55]
    nameless = content(explore([caption(image_id=None)] * 2, [photo(), photo()]))
    assert [picture["name"] for picture in nameless["images"]] == ["image 1", "image 2"]


def test_a_caption_without_attention_probabilities_or_words() -> None:
    bare = Caption((), (), float("-inf"), image_id="a")
    no_maps = caption(image_id="b", attention_weights=None)
    first, second = content(explore([bare, no_maps], [photo()] * 2))["images"]
    assert first["beams"] == [
        {"words": [], "p": None, "log_prob": None, "maps": None, "alternatives": None, "wrong": []}
    ]
    assert second["beams"][0]["maps"] is None and second["beams"][0]["p"] == [0.9, 0.5]
    empty = caption((), attention_weights=np.zeros((0, 3, 5)))
    assert content(explore([empty], [photo()]))["images"][0]["beams"][0]["maps"]["most"] == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one caption per image, got none"):
        explore([])
    with pytest.raises(ValueError, match="at least one caption per image, got none"):
        explore([[]], [photo()])
    with pytest.raises(ValueError, match="one image per caption, 2, got 1"):
        explore([caption()] * 2, [photo()])
    with pytest.raises(ValueError, match="2 images, got one"):
        explore([caption()] * 2, photo())
    with pytest.raises(ValueError, match="none for image_id 'dog.png'"):
        explore([caption()], {"cat.png": photo()})
    with pytest.raises(ValueError, match="caption 1 has no image_id"):
        explore([caption(image_id=None)])
    with pytest.raises(ValueError, match=r"'\.\.' in a file name"):
        explore([caption(image_id="../dog.png")], tmp_path)
    with pytest.raises(ValueError, match=r"cat.png: .*no such file|cat.png: .*not"):
        explore([caption(image_id="cat.png")], tmp_path)
    with pytest.raises(ValueError, match="one entry per image, 1, got 2"):
        explore([caption()], [photo()], alternatives=[[], []])
    with pytest.raises(ValueError, match=r"alternatives of image 1: lists for \[2\] words expected, got \[1\]"):
        explore([caption()], [photo()], alternatives=[[[("a", 0.0)]]])
    with pytest.raises(ValueError, match="scores needs a column image_id, got cider"):
        explore([caption()], [photo()], scores=pd.DataFrame({"cider": [1.0]}))
    with pytest.raises(ValueError, match=r"the attention map of word 0 \('a'\) of 'dog.png' sums to nan"):
        explore([caption(attention_weights=np.full((2, 3, 5), np.nan))], [photo()])
    with pytest.raises(ValueError, match="sums to 15; each map must sum to 1"):  # "times uniform" would be wrong
        explore([caption(attention_weights=np.ones((2, 3, 5)))], [photo()])


class Named:
    """A phrase as grounding has them."""

    def __init__(self, start: int, end: int, type: str, boxes: list[list[float]]):
        self.start, self.end, self.type, self.boxes = start, end, type, np.array(boxes).reshape(-1, 4)


def test_boxes_and_a_second_run_are_in_the_page() -> None:
    phrases = [[Named(1, 2, "pet_animal", [[0.1, 0.2, 0.3, 0.4]]), Named(0, 1, "none", [])]]
    other = caption(("a", "brown", "dog"))
    page = explore([[caption(), caption(("dog",))]], [photo()], against=[other], runs=("A", "B"), phrases=phrases)
    [picture] = content(page)["images"]
    assert picture["beams"][0]["boxes"] == [[1, 2, "pet animal", [[0.1, 0.2, 0.3, 0.4]]]]
    assert "boxes" not in picture["beams"][1] and picture["other"]["words"] == ["a", "brown", "dog"]
    assert content(page)["runs"] == ["A", "B"] and content(explore([caption()], [photo()]))["runs"] is None
    with pytest.raises(ValueError, match="against needs one entry per image, 1, got 2"):
        explore([caption()], [photo()], against=[other] * 2)
    with pytest.raises(ValueError, match="phrases of 'dog.png': words 1 to 3 are not in the caption 'a dog'"):
        explore([caption()], [photo()], phrases=[[Named(1, 3, "x", [])]])


@pytest.mark.slow
def test_many_images_are_embedded_smaller() -> None:
    large = photo(1000, 500)
    assert content(explore([caption()] * 201, [large] * 201))["images"][0]["size"] == [478, 239]
    assert content(explore([caption()] * 800, [large] * 800))["images"][0]["size"] == [192, 96]
    assert content(explore([caption()] * 800, [large] * 800, image_pixels=60))["images"][0]["size"] == [60, 30]


def test_200_photographs_take_less_than_15_mb() -> None:
    # Noise over a gradient: JPEGs larger than those of most photographs.
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 480)[None, :, None] + np.zeros((360, 1, 3))
    rough = [np.clip(ramp + rng.normal(0, 9, ramp.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    long = caption(tuple(f"word{i}" for i in range(20)))
    weighed = [[(f"word{i}", -float(i)) for i in range(5)]] * 20
    page = explore(
        [[long] * 3] * 20, [rough[i % 4] for i in range(20)], alternatives=[[weighed] * 3] * 20, title="large"
    )
    assert 200 / 20 * len(page.page) < 15e6
    assert html.escape(page.page)  # and a frame of it can be made


def test_1000_images_with_large_maps_take_less_than_15_mb() -> None:
    rng = np.random.default_rng(0)
    words = tuple(f"word{i}" for i in range(18))
    vocabulary = [f"word{i}" for i in range(100)]
    ramp = np.linspace(0, 200, 480)[None, :, None] + np.zeros((360, 1, 3))
    groups, weighed, photos = [], [], []
    for _ in range(20):
        # Half of the cells below a 510th of the maximum, as in the maps of `make demo`.
        maps = rng.dirichlet(np.full(256, 0.1), (3, 18)).reshape(3, 18, 16, 16).astype(np.float32)
        log_probs = np.log(rng.uniform(0.2, 1.0, (3, 18)))
        groups.append(
            [caption(words, attention_weights=m, word_log_probs=p) for m, p in zip(maps, log_probs, strict=True)]
        )
        own = [[(str(word), float(-rng.gamma(2))) for word in rng.choice(vocabulary, 5)] for _ in range(18)]
        weighed.append([own] * 3)
        photos.append(np.clip(ramp + rng.normal(0, 9, ramp.shape), 0, 255).astype(np.uint8))
    page = explore(groups, photos, alternatives=weighed, image_pixels=166)  # the size of 1,000 images
    fixed = len(explore([caption()], [photo()]).page)  # script and style
    assert fixed + 50 * (len(page.page) - fixed) < 15e6
    assert (content(page)["images"][0]["beams"][0]["maps"]["rows"], len(groups)) == (16, 20)


# ---------------------------------------------------------------- the words that were weighed


def test_top_alternatives_of_a_captioner_that_is_known() -> None:
    from attncap.decoding.alternatives import top_alternatives

    captions = [
        [Caption(("a", "b", "c"), (4, 5, 6), 0.0), Caption(("d",), (7,), 0.0)],
        [Caption((), (), 0.0), Caption(("b", "b"), (5, 5), 0.0)],
        [Caption(("c",), (6,), 0.0), Caption(("a",), (4,), 0.0)],
    ]
    features = np.array([0, 1, 0], np.float32).reshape(3, 1, 1, 1)
    found = top_alternatives(CountingCaptioner(), features, captions, top=3, batch_size=2)
    words = [[[[word for word, _ in place] for place in one] for one in own] for own in found]
    from_start = ["b", "c", "d"]  # <start> is 1: (1 + 0) % 4 + 4 = 5
    assert words[0] == [[from_start, ["a", "b", "c"], ["b", "c", "d"]], [from_start]]
    assert words[1] == [[], [["c", "d", "a"], ["c", "d", "a"]]]  # shifted by 1
    assert words[2] == [[from_start], [from_start]]
    assert np.exp([p for _, p in found[0][0][1]]) == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)
    alone = top_alternatives(CountingCaptioner(), features, [own[1] for own in captions], top=3)
    assert [[place[0][0] for place in one] for one in alone] == [["b"], ["c", "c"], ["b"]]
    # Asked for more than the vocabulary, it names each word that decoding may emit, once.
    [[place]] = top_alternatives(CountingCaptioner(), features[:1], [captions[2][0]], top=99)
    assert sorted(word for word, _ in place) == ["<end>", "a", "b", "c", "d"]


def test_top_alternatives_refuses_what_does_not_fit() -> None:
    from attncap.decoding.alternatives import top_alternatives

    with pytest.raises(ValueError, match="got 1 for 2 images"):
        top_alternatives(CountingCaptioner(), np.zeros((2, 1, 1, 1)), [caption()])
    with pytest.raises(ValueError, match="top needs to be at least 1, got 0"):
        top_alternatives(CountingCaptioner(), np.zeros((1, 1, 1, 1)), [caption()], top=0)


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from attncap.cli.main import main

    Image.fromarray(photo()).save(tmp_path / "dog.png")
    arguments = ["explore", "--run", str(tmp_path / "none"), "--out", str(tmp_path / "page.html")]
    for more, message in (
        ([], "--images or --data is needed"),
        (["--images", str(tmp_path), "--split", "test"], "--split needs --data"),
        (["--images", str(tmp_path), "--limit", "0"], "--limit and --top need at least 1, got 0 and 5"),
        (["--images", str(tmp_path / "no")], "neither a folder of images nor a list"),
    ):
        assert main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
