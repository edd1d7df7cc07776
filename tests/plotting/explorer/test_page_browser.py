"""The explorer in a real Chromium: what hovering, tabbing, touching and sliding show, against the attention array."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.captions import Caption
from attncap.plotting import upsample_attention
from attncap.plotting.explorer.page import explore
from tests.browser import complaints, requests_made, resize, screenshot

ROWS, COLS = 5, 7
GRID_BOX = (0.07, 0.11, 0.93, 0.91)
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"
BIDI = "שלום"  # Hebrew, from right to left
EMOJI = "👩🏽‍🚒"
INFERNO = np.rint(matplotlib.colormaps["inferno"](np.arange(256) / 255)[:, :3] * 255).astype(int)


def told(words: tuple[str, ...], image_id: str, seed: int, maps: bool = True) -> Caption:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(ROWS * COLS, 0.4), len(words)).reshape(-1, ROWS, COLS).astype(np.float32)
    p = rng.uniform(0.2, 1.0, len(words))
    return Caption(
        words,
        tuple(range(len(words))),
        float(np.log(p).sum()),
        weights if maps else None,
        np.log(p),
        image_id,
        GRID_BOX,
    )


GROUPS = [
    [told(("a", "brown", "dog", "runs"), "dog.png", 1), told(("one", "dog", "runs"), "dog.png", 2)],
    [told(("a", "girl", "with", "a", "hat"), "girl.png", 3), told(("a", "hat"), "girl.png", 4)],
    [told((HOSTILE, BIDI, EMOJI, "'\"&amp;"), HOSTILE, 5), told((BIDI, BIDI), HOSTILE, 6)],
]
SCORES = pd.DataFrame({"image_id": ["dog.png", "girl.png", HOSTILE], "cider_d": [0.5, 2.0, 1.0]})
REFERENCES = {"dog.png": ["A dog runs on GRASS."], "girl.png": ["A girl in a hat."], HOSTILE: [HOSTILE]}


def weighed(caption: Caption) -> list[list[tuple[str, float]]]:
    assert caption.word_log_probs is not None
    own = zip(caption.words, caption.word_log_probs, strict=True)
    return [[(word, float(p)), ("cat", -3.0), ("<end>", -4.0)] for word, p in own]


def photo(seed: int) -> np.ndarray:
    across = np.linspace(0, 255, 90)[None, :, None] * np.ones((60, 1, 3))
    return np.roll(across, 30 * seed, axis=1).astype(np.uint8)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    explorer = explore(
        GROUPS,
        [photo(seed) for seed in range(3)],
        references=REFERENCES,
        alternatives=[[weighed(caption) for caption in group] for group in GROUPS],
        scores=SCORES,
        cmap="inferno",
    )
    return explorer.save(tmp_path_factory.mktemp("explorer") / "page.html")


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Any]:
    """The page as a file in the browser; whatever a test does there, nothing is asked for and nothing complains."""
    browser.get(page.as_uri())
    yield browser
    assert requests_made(browser) == [page.as_uri()]
    assert complaints(browser) == []
    assert browser.title == "Where the captioner looked"


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def find_all(driver: Any, selector: str) -> list[Any]:
    return driver.find_elements("css selector", selector)


def text_of(driver: Any, selector: str) -> str:
    return find(driver, selector).get_property("textContent")


def hover(driver: Any, element: Any) -> None:
    from selenium.webdriver import ActionChains

    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(driver, duration=50).move_to_element(element).perform()


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def overlay(driver: Any) -> np.ndarray:
    """The canvas read back: for each pixel the share of the color scale, from 0 to 1, that its color stands for."""
    address = driver.execute_script("return document.getElementById('map').toDataURL('image/png')")
    colors = np.asarray(Image.open(BytesIO(base64.b64decode(address.split(",")[1]))), int)  # (height, width, 4)
    opaque = colors[..., 3] == 255
    assert (opaque | (colors[..., 3] == 0)).all()
    keys = np.where(opaque, colors[..., :3] @ [65536, 256, 1], INFERNO[0] @ [65536, 256, 1])
    known = {int(key): index for index, key in enumerate(INFERNO @ [65536, 256, 1])}
    color, where = np.unique(keys, return_inverse=True)
    shares = (np.array([known[int(key)] for key in color])[where].reshape(keys.shape) + 0.5) / 256
    return np.where(opaque, shares, np.nan)  # clear outside the box of the grid


def in_box(shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels lie in the box of the grid."""
    ys, xs = (np.arange(n) for n in shape)
    left, top, right, bottom = (round(edge * n) for edge, n in zip(GRID_BOX, (shape[1], shape[0]) * 2, strict=True))
    return ((ys >= top) & (ys < bottom))[:, None] & ((xs >= left) & (xs < right))  # (height, width)


def scale_end(weights: np.ndarray) -> float:
    """The weight at the end of a map's scale, which is at least twice uniform."""
    return max(float(weights.max()), 2 / (ROWS * COLS))


def times(caption: Caption, word: int) -> str:
    """The maximum of a word's map, in times uniform."""
    assert caption.attention_weights is not None
    most = float(caption.attention_weights[word].max()) * ROWS * COLS
    return f"{most:.0f}" if most >= 9.95 else f"{most:.1f}"


def assert_shows(driver: Any, caption: Caption, word: int) -> None:
    """Everything on the page says this word (from 0) of this caption."""
    assert caption.attention_weights is not None and caption.word_log_probs is not None
    weights = caption.attention_weights[word]
    pressed = [button.get_attribute("aria-pressed") for button in find_all(driver, ".word")]
    assert [i for i, state in enumerate(pressed) if state == "true"] == [word]
    assert find(driver, "#slider").get_property("value") == str(word + 1)
    seen = overlay(driver)
    assert seen.shape == (240, 360)
    expected = upsample_attention(weights, seen.shape, grid_box=GRID_BOX) / scale_end(weights)
    np.testing.assert_array_equal(~np.isnan(seen), in_box(seen.shape))  # nothing is drawn outside the grid's box
    # Half a step of the maps' 255 (a little more where the kernel overshoots), and half a color.
    assert np.nanmax(np.abs(seen - expected)) < 1.5 / 255 + 0.5 / 256
    row, col = np.unravel_index(weights.argmax(), weights.shape)
    x = GRID_BOX[0] + (GRID_BOX[2] - GRID_BOX[0]) * (col + 0.5) / COLS
    y = GRID_BOX[1] + (GRID_BOX[3] - GRID_BOX[1]) * (row + 0.5) / ROWS
    assert seen[int(y * 240), int(x * 360)] > 0.97
    said = text_of(driver, "#readout")
    assert f"Word {word + 1} of {len(caption.words)}, “\u2068{caption.words[word]}\u2069”" in said
    assert f"probability {np.exp(caption.word_log_probs[word]):.2f}." in said
    assert f"({x:.0%} across, {y:.0%} down)" in said
    assert f": {times(caption, word)} times uniform." in said
    peak = driver.execute_script("const p = document.getElementById('peak').style; return [p.left, p.top]")
    assert [float(side[:-1]) for side in peak] == pytest.approx([100 * x, 100 * y], abs=0.01)
    assert float(driver.execute_script("return document.getElementById('map').style.opacity")) > 0


def test_hovering_lays_the_word_s_map_over_the_picture(opened: Any, tmp_path: Path) -> None:
    assert opened.execute_script("return document.getElementById('map').style.opacity") == "0"
    words = find_all(opened, ".word")
    assert [word.accessible_name for word in words][1].startswith("\u2068brown\u2069, probability 0.")
    for word in (2, 0, 3):
        hover(opened, words[word])
        assert_shows(opened, GROUPS[0][0], word)
    # The canvas lies exactly over the picture.
    places = opened.execute_script(
        "return ['photo', 'map'].map(id => { const b = document.getElementById(id).getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height] })"
    )
    assert places[0] == places[1] and places[0][2] / places[0][3] == pytest.approx(1.5, abs=0.01)
    assert opened.execute_script("const p = document.getElementById('photo'); return [p.naturalWidth, p.complete]") == [
        90,
        True,
    ]
    # What is seen of it: with the map on, the screen itself is another than with it off.
    shown = screenshot(opened, tmp_path / "on.png").read_bytes()
    press(opened, "\ue00c")  # Escape does nothing while no word has the focus
    find(opened, "#slider").send_keys("\ue011")  # Home: the picture alone
    assert opened.execute_script("return document.getElementById('map').style.opacity") == "0"
    assert screenshot(opened, tmp_path / "off.png").read_bytes() != shown


def test_tabbing_and_arrows_reach_every_word(opened: Any) -> None:
    opened.execute_script("document.getElementById('slider').focus()")
    press(opened, "\ue004")
    for word in range(4):
        assert_shows(opened, GROUPS[0][0], word)
        if word < 3:
            press(opened, "\ue004" if word % 2 else "\ue014")  # the tabulator and the right arrow, in turn
    press(opened, "\ue011")
    assert_shows(opened, GROUPS[0][0], 0)
    press(opened, "\ue00c")
    assert opened.execute_script("return document.getElementById('map').style.opacity") == "0"


def test_sliding_walks_the_words_and_says_them(opened: Any) -> None:
    slider = find(opened, "#slider")
    assert (slider.aria_role, slider.accessible_name) == ("slider", "Word")
    for word in range(4):
        slider.send_keys("\ue014")
        assert_shows(opened, GROUPS[0][0], word)
        said = f"word {word + 1} of 4, {GROUPS[0][0].words[word]}"
        assert slider.get_attribute("aria-valuetext") == said
        assert text_of(opened, "#position") == f"{word + 1} of 4"
    assert find(opened, "#readout").get_attribute("aria-live") == "polite"
    said = opened.execute_script(
        "const play = document.getElementById('play');"
        "return [1, 2].map(() => { play.click(); return play.textContent })"
    )
    assert said == ["Pause", "Play"]
    assert_shows(opened, GROUPS[0][0], 0)  # from the last word on to the first
    assert text_of(opened, "#most") == f"{times(GROUPS[0][0], 0)}× uniform"


def test_touching_and_a_finger_that_slides(opened: Any) -> None:
    resize(opened, 390, 844, phone=True)
    words = find_all(opened, ".word")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", words[1])
    places = opened.execute_script(
        "return [...document.querySelectorAll('.word')].map(w => { const b = w.getBoundingClientRect();"
        "return {x: b.x + b.width / 2, y: b.y + b.height / 2} })"
    )

    def touch(kind: str, *points: dict[str, float]) -> None:
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    touch("touchStart", places[1])
    assert_shows(opened, GROUPS[0][0], 1)
    touch("touchMove", places[2])
    assert_shows(opened, GROUPS[0][0], 2)
    touch("touchEnd")
    assert_shows(opened, GROUPS[0][0], 2)
    # At the width of a phone nothing sticks out, and the picture stays in sight above the words.
    assert opened.execute_script("return document.documentElement.scrollWidth") == 390
    box = find(opened, "#frame").rect
    scrolled = opened.execute_script("return scrollY")
    assert box["y"] >= scrolled and box["y"] + box["height"] - scrolled < places[1]["y"]


def test_cells_one_scale_and_opacity(opened: Any) -> None:
    caption = GROUPS[0][0]
    assert caption.attention_weights is not None
    find_all(opened, ".word")[1].click()
    find(opened, "#cells").click()
    weights = caption.attention_weights[1]
    cells = upsample_attention(weights, (240, 360), smooth=False, grid_box=GRID_BOX)
    assert np.nanmax(np.abs(overlay(opened) - cells / scale_end(weights))) < 0.5 / 255 + 0.6 / 256
    find(opened, "#onescale").click()
    top = caption.attention_weights.max()
    assert top > weights.max()
    assert np.nanmax(np.abs(overlay(opened) - cells / top)) < 0.5 / 255 + 0.6 / 256
    assert (
        text_of(opened, "#most")
        == f"{times(caption, int(caption.attention_weights.max(axis=(1, 2)).argmax()))}× uniform"
    )
    find(opened, "#strength").send_keys("\ue011")
    assert opened.execute_script("return document.getElementById('map').style.opacity") == "0"
    # The mouse on the picture reads the cell below it.
    hover(opened, find(opened, "#frame"))
    here = text_of(opened, "#here").removeprefix("here ").removesuffix("×")
    assert abs(float(here) / (ROWS * COLS) - weights[2, 3]) < 0.051 / (ROWS * COLS) + 0.5 / 255 * weights.max()


def test_other_beams_and_alternatives(opened: Any) -> None:
    beams = find_all(opened, ".beam")
    assert [beam.get_attribute("aria-pressed") for beam in beams] == ["true", "false"]
    assert [part.text for part in find_all(opened, ".beam .differs")] == ["one"]
    beams[1].click()
    hover(opened, find_all(opened, ".word")[2])
    other = GROUPS[0][1]
    assert_shows(opened, other, 2)
    assert other.word_log_probs is not None
    rows = [row.text.split() for row in find_all(opened, "#alternatives li")]
    assert rows == [
        ["runs", f"{np.exp(other.word_log_probs[2]):.2f}"],
        ["cat", "0.05"],
        ["the", "end", "0.02"],
    ]
    assert [row.text.split()[0] for row in find_all(opened, ".weighed.taken")] == ["runs"]
    assert [row.text for row in find_all(opened, "#references li")] == ["A dog runs on GRASS."]


def listed(driver: Any) -> list[str]:
    return [option.text.split("\n")[0] for option in find_all(driver, ".option") if option.is_displayed()]


def test_filter_and_sort(opened: Any) -> None:
    from selenium.webdriver.support.select import Select

    texts = [group[0].sentence for group in GROUPS]
    shown = [" ".join(text.split()) for text in texts]
    assert [text_of(opened, f".option:nth-child({i}) .said") for i in (1, 2, 3)] == texts
    sort = Select(find(opened, "#sort"))
    order = "return [...document.querySelectorAll('.option:not([hidden]) .said')].map(s => s.textContent)"
    sort.select_by_visible_text("CIDEr-D")
    assert opened.execute_script(order) == [texts[1], texts[2], texts[0]] and text_of(opened, "#name") == "girl.png"
    assert [badge.text for badge in find_all(opened, ".badge")] == ["2.000", "1.000", "0.500"]
    find(opened, "#direction").click()
    assert opened.execute_script(order) == [texts[0], texts[2], texts[1]]
    sort.select_by_visible_text("least probable word")
    least = [float(np.min(group[0].word_log_probs)) for group in GROUPS]
    assert opened.execute_script(order) == [texts[i] for i in np.argsort(least)[::-1]]
    sort.select_by_visible_text("order given")
    field = find(opened, "#filter")
    field.send_keys("grass dog")  # of a reference, and of the caption
    assert opened.execute_script(order) == [texts[0]]
    assert (text_of(opened, "#count"), find(opened, "#count").aria_role) == ("1 of 3 images", "status")
    field.clear()
    field.send_keys("hat")
    assert opened.execute_script(order) == [texts[1]] and text_of(opened, "#name") == "girl.png"
    hover(opened, find_all(opened, ".word")[4])
    assert_shows(opened, GROUPS[1][0], 4)
    field.send_keys("zzz")
    assert find(opened, "#none").is_displayed() and not find(opened, "#stage").is_displayed()
    field.clear()
    press(opened, "\ue003")
    field.send_keys(" ")
    assert opened.execute_script(order) == texts and shown[0] == "A brown dog runs."


def test_the_list_is_walked_by_keys(opened: Any) -> None:
    opened.execute_script("document.querySelector('.option[aria-selected=true]').focus()")
    press(opened, "\ue015")
    assert text_of(opened, "#name") == "girl.png"
    assert opened.switch_to.active_element.get_attribute("aria-selected") == "true"
    assert (find(opened, "#list").aria_role, opened.switch_to.active_element.aria_role) == ("listbox", "option")
    press(opened, "\ue010")
    assert text_of(opened, "#name") == HOSTILE and find(opened, "#next").get_attribute("disabled")
    find(opened, "#previous").click()
    assert text_of(opened, "#name") == "girl.png"


def test_hostile_captions_stay_text(opened: Any) -> None:
    find(opened, "#filter").send_keys("onerror")
    words = find_all(opened, ".word")
    assert [text_of(opened, f".word:nth-child({i + 1}) .text") for i in range(4)] == list(GROUPS[2][0].words)
    assert text_of(opened, "#name") == HOSTILE and text_of(opened, "#references li") == HOSTILE
    for word in range(4):
        hover(opened, words[word])
        assert_shows(opened, GROUPS[2][0], word)
    assert opened.execute_script("return document.querySelectorAll('main img, #list img').length") == 5
    assert opened.execute_script("return document.querySelectorAll('[onerror], script').length") == 2
    find_all(opened, ".beam")[1].click()  # Hebrew alone: from right to left, and the arrow keys with it
    right, left = (button.rect["x"] for button in find_all(opened, ".word"))
    assert left < right
    opened.execute_script("document.querySelector('.word').focus()")
    press(opened, "\ue012")
    assert_shows(opened, GROUPS[2][1], 1)


def test_the_policy_refuses_script_style_and_network(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    requests_made(browser)
    refused = browser.execute_async_script(
        """
        const done = arguments[0], refused = [];
        document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
        const add = (tag, set) => document.body.append(Object.assign(document.createElement(tag), set));
        add("img", { src: "https://example.invalid/x.png" });
        add("script", { textContent: "document.title = 'broken'" });
        add("script", { src: "https://example.invalid/x.js" });
        add("style", { textContent: "body { display: none }" });
        add("iframe", { src: "https://example.invalid/" });
        document.body.setAttribute("onclick", "document.title = 'broken'");
        fetch("https://example.invalid/").catch(() => setTimeout(() => done(refused), 300));
        """
    )
    assert {"img-src", "script-src-elem", "style-src-elem", "frame-src", "connect-src"} <= set(refused)
    assert browser.title == "Where the captioner looked"
    assert requests_made(browser) == []
    complaints(browser)


def test_without_attention_the_page_says_so(browser: Any, tmp_path: Path) -> None:
    plain = told(("a", "dog"), "dog.png", 1, maps=False)
    browser.get(explore(plain, photo(1), alternatives=weighed(plain)).save(tmp_path / "plain.html").as_uri())
    assert "no maps: this captioner has no attention" in find(browser, "#nomaps").text
    hover(browser, find_all(browser, ".word")[1])
    assert text_of(browser, "#readout").endswith(f"probability {np.exp(plain.word_log_probs[1]):.2f}.")  # type: ignore[index]
    assert opacity(browser) == "0" and not find(browser, "#looks").is_displayed()
    assert [row.text.split()[0] for row in find_all(browser, "#alternatives li")] == ["dog", "cat", "the"]
    assert complaints(browser) == []


def opacity(driver: Any) -> str:
    return driver.execute_script("return document.getElementById('map').style.opacity")


def test_on_paper_there_is_nothing_to_press(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = [find(opened, name).is_displayed() for name in ("#photo", "#words", "#beams", "#references")]
        assert all(shown)
        hidden = [
            find(opened, name).is_displayed() for name in ("#filter", "#list", "#play", "#next", "#save", "#mode")
        ]
        assert not any(hidden)
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_no_motion_where_none_is_wanted(opened: Any) -> None:
    fade = "return getComputedStyle(document.getElementById('map')).transitionDuration"
    assert opened.execute_script(fade) == "0.12s"
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert opened.execute_script(fade) == "0s"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_in_a_frame_beside_another_as_a_notebook_shows_it(browser: Any, tmp_path: Path) -> None:
    both = [explore(group[0], photo(1), height=600, cmap="inferno")._repr_html_() for group in GROUPS[:2]]
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "notebook.html").write_text(
        f"<!DOCTYPE html><meta charset=utf-8><title>notebook</title><p id=name>mine</p>{both[0]}{both[1]}"
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/notebook.html"
        browser.get(address)
        frames = find_all(browser, "iframe")
        assert frames[0].accessible_name == "Attention explorer, 1 image"
        for frame, group in zip(frames, GROUPS[:2], strict=True):
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
            browser.switch_to.frame(frame)
            for _ in range(50):  # a frame that is still loading when it is hovered over shows nothing yet
                hover(browser, find_all(browser, ".word")[0])
                hover(browser, find_all(browser, ".word")[1])
                if any(word.get_attribute("aria-pressed") == "true" for word in find_all(browser, ".word")):
                    break
                time.sleep(0.1)
            assert_shows(browser, group[0], 1)
            browser.switch_to.default_content()
        assert text_of(browser, "#name") == "mine" and browser.title == "notebook"
        assert [url for url in requests_made(browser) if "favicon" not in url] == [address]
        server.shutdown()


def test_a_click_keeps_a_word_and_hovering_comes_back_to_it(opened: Any) -> None:
    words = find_all(opened, ".word")
    words[1].click()
    assert_shows(opened, GROUPS[0][0], 1)
    hover(opened, words[3])
    assert_shows(opened, GROUPS[0][0], 3)
    hover(opened, find(opened, "#name"))
    assert_shows(opened, GROUPS[0][0], 1)
    assert opened.execute_script("return location.hash") == "#dog.png,2"
    words[1].click()  # once more: no word is kept
    hover(opened, find(opened, "#name"))
    assert opacity(opened) == "0"


def test_an_address_leads_to_a_picture_and_a_word(browser: Any, page: Path) -> None:
    browser.get("about:blank")
    browser.get(page.as_uri() + "#girl.png,5")
    assert text_of(browser, "#name") == "girl.png"
    assert_shows(browser, GROUPS[1][0], 4)
    browser.get("about:blank")
    browser.get(page.as_uri() + "#%E0%A4%A,1")  # no address of the page
    assert text_of(browser, "#name") == "dog.png"


def test_words_in_no_reference_are_marked_and_filtered(opened: Any) -> None:
    marked = [word.text.split("\n")[0] for word in find_all(opened, ".word.wrong")]
    assert marked == ["brown"]
    assert "in no reference" in find(opened, ".word.wrong").accessible_name
    style = "return getComputedStyle(document.querySelector('.word.wrong .text')).textDecorationStyle"
    assert opened.execute_script(style) == "wavy"
    assert find_all(opened, ".word.differs") == []  # there is no other run
    assert "below 0.5" in text_of(opened, "#legend") and "in no reference" in text_of(opened, "#legend")
    find(opened, "#wrong").click()
    assert "girl.png" not in text_of(opened, "#name") and text_of(opened, "#count").startswith("2 of 3")
    find(opened, "#wrong").click()
    field = find(opened, "#filter")
    field.send_keys("ha")
    assert text_of(opened, "#count") == "1 of 3 images"
    find(opened, "#exact").click()
    assert text_of(opened, "#count") == "0 of 3 images"
    field.clear()
    field.send_keys("hat")
    assert text_of(opened, "#count") == "1 of 3 images"


@pytest.mark.parametrize("mode", ["reveal", "contour"])
def test_other_modes_draw_inside_the_box_of_the_grid(opened: Any, mode: str) -> None:
    from selenium.webdriver.support.select import Select

    find_all(opened, ".word")[2].click()
    Select(find(opened, "#mode")).select_by_value(mode)
    address = opened.execute_script("return document.getElementById('map').toDataURL('image/png')")
    opacities = np.asarray(Image.open(BytesIO(base64.b64decode(address.split(",")[1]))), int)[..., 3]
    if mode == "reveal":
        assert (opacities[~in_box(opacities.shape)] == 0).all() and opacities.max() > 250
    else:
        assert 0 < (opacities > 0).mean() < 0.4  # lines, not areas
    assert opened.execute_script("return getComputedStyle(document.getElementById('photo')).filter") == (
        "grayscale(1)" if mode == "reveal" else "none"
    )


def test_a_threshold_hides_what_lies_below_it(opened: Any) -> None:
    caption = GROUPS[0][0]
    assert caption.attention_weights is not None
    find_all(opened, ".word")[1].click()
    opened.execute_script(
        "const t = document.getElementById('threshold'); t.value = 50; t.dispatchEvent(new Event('input'))"
    )
    assert np.nanmin(overlay(opened)) >= 0.5 - 1 / 256


class Named:
    """A phrase as grounding has them."""

    def __init__(self, start: int, end: int, type: str, boxes: list[list[float]]):
        self.start, self.end, self.type, self.boxes = start, end, type, boxes


OTHER = [told(("a", "dog", "runs", "fast"), "dog.png", 7), told(("a", "girl"), "girl.png", 8, maps=False)]
PHRASES = [[Named(1, 3, "animal", [[0.1, 0.2, 0.6, 0.9], [0.7, 0.7, 0.8, 0.8]])], []]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side, with boxes."""
    explorer = explore(
        GROUPS[:2],
        [photo(seed) for seed in range(2)],
        against=OTHER,
        runs=("attention", "Show and Tell"),
        phrases=PHRASES,
        references=REFERENCES,
        scores=SCORES,
    )
    return explorer.save(tmp_path_factory.mktemp("pair") / "page.html")


def test_two_runs_stand_side_by_side_with_their_differences(browser: Any, pair: Path) -> None:
    browser.get(pair.as_uri())
    assert [text_of(browser, name) for name in ("#runname", "#othername")] == ["attention", "Show and Tell"]
    assert text_of(browser, "#othercaption") == "a dog runs fast"
    assert text_of(browser, "#againsthead") == "Show and Tell: 1 of 4 words differ"
    assert [span.text for span in find_all(browser, "#othercaption .differs")] == ["fast"]
    differ = "return [...document.querySelectorAll('.word.differs .text')].map((node) => node.textContent)"
    assert browser.execute_script(differ) == ["brown"]
    first, second = (find(browser, name).rect for name in ("#frame", "#otherframe"))
    assert abs(first["y"] - second["y"]) < 1 and first["x"] + first["width"] <= second["x"]
    shown = "return document.getElementById('othermap').style.opacity"
    find_all(browser, ".word")[2].click()  # "dog", which both say
    assert browser.execute_script(shown) == "1" and find(browser, "#othercaption .now").text == "dog"
    assert (
        f"Show and Tell\u2069 says it as well, with probability {np.exp(OTHER[0].word_log_probs[1]):.2f}."
        in text_of(  # type: ignore[index]
            browser, "#readout"
        )
    )
    find_all(browser, ".word")[1].click()  # "brown"
    assert browser.execute_script(shown) == "0" and "does not say it" in text_of(browser, "#readout")
    find(browser, "#next").click()
    assert "no maps, for it has no attention" in text_of(browser, "#againsthead")
    browser.execute_script(
        "const s = document.getElementById('sort');"
        "s.value = [...s.options].find((option) => option.text === 'words that differ').value;"
        "s.dispatchEvent(new Event('change'))"
    )
    assert [badge.text for badge in find_all(browser, ".badge")] == ["3 differ", "1 differ"]
    assert complaints(browser) == [] and requests_made(browser) == [pair.as_uri()]


def test_both_captions_of_two_runs_pair_the_same_words(browser: Any, tmp_path: Path) -> None:
    first, other = told(("a", "brown", "tail"), "dog.png", 1), told(("brown", "hair", "in", "a", "tail"), "dog.png", 2)
    browser.get(explore([first], [photo(1)], against=[other]).save(tmp_path / "page.html").as_uri())
    kept = "return [...document.querySelectorAll('.word:not(.differs) .text')].map((node) => node.textContent)"
    spans = "return [...document.querySelectorAll('#othercaption span:not(.differs)')].map((node) => node.textContent)"
    assert browser.execute_script(kept) == browser.execute_script(spans)  # "a" or "brown", and "tail"
    assert len(browser.execute_script(kept)) == 2


def test_boxes_are_drawn_where_a_word_names_one(browser: Any, pair: Path) -> None:
    browser.get(pair.as_uri())
    assert find_all(browser, ".box") == []
    find_all(browser, ".word")[2].click()
    sides = "[b.style.left, b.style.top, b.style.width, b.style.height]"
    styles = f"return [...document.querySelectorAll(arguments[0])].map((b) => {sides})"
    for frame in ("#frame", "#otherframe"):  # the other run says the word as well
        found = browser.execute_script(styles, f"{frame} .box")
        assert found == [["10%", "20%", "50%", "70%"], ["70%", "70%", "10%", "10%"]]
    maps = GROUPS[0][0].attention_weights
    assert maps is not None
    row, col = np.unravel_index(maps[2].argmax(), maps[2].shape)
    x = GRID_BOX[0] + (GRID_BOX[2] - GRID_BOX[0]) * (col + 0.5) / COLS
    y = GRID_BOX[1] + (GRID_BOX[3] - GRID_BOX[1]) * (row + 0.5) / ROWS
    inside = any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in PHRASES[0][0].boxes)
    assert f"The peak is {'inside' if inside else 'outside'} the box of “\u2068animal\u2069”." in text_of(
        browser, "#readout"
    )
    find_all(browser, ".word")[1].click()  # "brown", of the same phrase, which the other run does not say
    assert len(find_all(browser, "#frame .box")) == 2 and find_all(browser, "#otherframe .box") == []
    find(browser, "#withboxes").click()
    assert find_all(browser, ".box") == []
    find_all(browser, ".word")[3].click()
    assert find_all(browser, ".box") == []
    find(browser, "#next").click()
    assert not find(browser, "#boxchoice").is_displayed()


SAVE = """
const saved = [];
HTMLAnchorElement.prototype.click = function () { saved.push(this.download, this.href); };
document.getElementById("save").click();
return saved;
"""


def saved_figure(driver: Any) -> tuple[str, np.ndarray]:
    """Press "Save as PNG"; return the name of the file and its pixels."""
    name, address = driver.execute_script(SAVE)
    return name, np.asarray(Image.open(BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"), int)


def test_the_shown_figure_is_saved_as_png(browser: Any, page: Path, pair: Path) -> None:
    browser.get(page.as_uri())
    name, alone = saved_figure(browser)
    assert name == "dog.png_0.png" and alone.shape[1] == 720
    expected = np.asarray(Image.fromarray(photo(0)).resize((720, 480), Image.Resampling.NEAREST), int)
    assert np.abs(alone[:480] - expected).mean() < 8  # the photograph itself, as JPEG
    assert (alone[480:] < 60).any() and (alone[-1] == 255).all()  # the caption below it
    browser.get(pair.as_uri())
    find_all(browser, ".word")[2].click()
    name, both = saved_figure(browser)
    assert name == "dog.png_3.png" and both.shape[1] == 2 * 720 + 16
    top = 26  # below the names of the runs
    assert (both[:top, :720] < 60).any() and (both[:top, 736:] < 60).any()
    for first, second in (((0.1, 0.5), (0.6, 0.5)), ((0.7, 0.75), (0.8, 0.75))):  # sides of both boxes
        for x, y in (first, second):
            for left in (0, 736):
                across = left + round(x * 720)
                assert both[top + round(y * 480), across - 1 : across + 1].tolist() == [[0, 114, 178]] * 2
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_axe_core_finds_no_violation_in_two_runs(browser: Any, pair: Path, width: int) -> None:
    assert violations_of(browser, pair, width, "light") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_what_has_the_focus_is_never_below_the_image(browser: Any, page: Path) -> None:
    resize(browser, 384, 512)  # 768 x 1024 at a zoom of 200%
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('save').focus()")
    reached = []
    for _ in range(60):
        press(browser, "\ue004")
        name, visible = browser.execute_script(
            "const a = document.activeElement, b = a.getBoundingClientRect();"
            "const top = document.elementFromPoint(b.x + b.width / 2, b.y + Math.min(b.height, 20) / 2);"
            "const visible = a === document.body || (!!top && (a.contains(top) || top.contains(a)));"
            "return [a.id || a.classList[0] || '', visible]"
        )
        if name == "" or name == "filter":  # the end of the page
            break
        reached.append(name)
        assert visible, name
    assert {"play", "slider", "word", "mode", "cells", "beam"} <= set(reached)
    resize(browser)


def test_on_a_phone_the_name_of_the_image_is_read_whole(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "phone.html"
    caption = told(("a", "dog"), "face_000019.png", 1)
    explore([caption], [np.full((40, 60, 3), 150, np.uint8)]).save(page)
    resize(browser, 390, 844, phone=True)
    try:
        browser.get(page.as_uri())
        name = find(browser, "#name")
        assert name.text == "face_000019.png"
        height, shown, line = browser.execute_script(
            "const name = arguments[0];"
            "return [name.scrollHeight, name.clientHeight, parseFloat(getComputedStyle(name).lineHeight)]",
            name,
        )
        assert height <= shown < 1.5 * line  # one line, nothing cut off
    finally:
        resize(browser)


def test_the_scale_lies_on_white_as_the_map_does_also_in_the_dark(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    try:
        browser.get(page.as_uri())
        below = "return ['#colors', '#frame'].map((e) => getComputedStyle(document.querySelector(e)).backgroundColor)"
        assert browser.execute_script(below) == ["rgb(255, 255, 255)"] * 2
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (768, "light"), (390, "light"), (1440, "dark")])
def test_axe_core_finds_no_violation(browser: Any, page: Path, width: int, scheme: str) -> None:
    assert violations_of(browser, page, width, scheme) == []


def violations_of(browser: Any, page: Path, width: int, scheme: str) -> list[str]:
    axe_core = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed: attncap[test] has it")
    script = (Path(axe_core.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    resize(browser, width, 900, phone=width < 500)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        browser.get(page.as_uri())
        find_all(browser, ".word")[1].click()
        browser.execute_script(script)
        return browser.execute_async_script(
            "const done = arguments[0]; axe.run().then((found) => done(found.violations.map((v) =>"
            " `${v.id}: ${v.nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`)))"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        resize(browser)
        complaints(browser)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (768, 1024), (384, 512), (390, 844)])
def test_words_stay_where_they_are_pointed_at(browser: Any, pair: Path, width: int, height: int) -> None:
    resize(browser, width, height)
    try:
        browser.get(pair.as_uri())
        places = "return [...document.querySelectorAll('.word')].map((word) => word.getBoundingClientRect().top)"
        browser.execute_script("document.querySelector('.word').scrollIntoView({block: 'center'})")
        before = browser.execute_script(places)
        for word in range(1, len(before) + 1):
            browser.execute_script(
                "document.getElementById('slider').value = arguments[0];"
                "document.getElementById('slider').dispatchEvent(new Event('input'))",
                word,
            )
            assert browser.execute_script(places) == before, word
    finally:
        resize(browser)


def test_the_address_follows_the_image_that_is_shown(browser: Any, page: Path) -> None:
    browser.get("about:blank")
    browser.get(page.as_uri())
    assert browser.execute_script("return location.hash") == ""
    find_all(browser, ".word")[1].click()
    find(browser, "#next").click()
    assert browser.execute_script("return location.hash") == "#girl.png,0"


def test_contours_have_a_key_and_two_maps_two_ends(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.select import Select

    first, other = told(("a", "dog"), "dog.png", 1), told(("one", "dog"), "dog.png", 2)
    explorer = explore([first], [photo(1)], against=[other], references={"dog.png": ["a dog"]})
    browser.get(explorer.save(tmp_path / "page.html").as_uri())
    find_all(browser, ".word")[1].click()
    assert find(browser, "#most").text == f"{times(first, 1)}× and {times(other, 1)}× uniform"
    assert not find(browser, "#lines").is_displayed()
    assert [span.text for span in find_all(browser, "#othercaption .wrong")] == ["one"]
    assert "wavy line" in find(browser, "#legend").text
    Select(find(browser, "#mode")).select_by_value("contour")
    assert find(browser, "#lines").is_displayed() and not find(browser, "#colors").is_displayed()
