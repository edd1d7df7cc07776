"""What every test shares: a quiet, separate environment, seeds, and the folder of real photographs."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports TensorFlow, Keras or matplotlib. A Keras backend that the caller chose is kept.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores: none of them starts a thread for each
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
_CACHE = tempfile.mkdtemp(prefix="attncap-test-cache-")
os.environ["ATTNCAP_CACHE"] = _CACHE

import numpy as np  # noqa: E402
import pytest  # noqa: E402


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


def _why_no_shared_data() -> str | None:
    folder = os.environ.get("ATTNCAP_DATA")
    if not folder:
        return "ATTNCAP_DATA is unset: set it to the folder of real photographs to run this test"
    if not Path(folder).is_dir():
        return f"ATTNCAP_DATA names {folder!r}, which is not a folder"
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="run the K-th of N parts of the tests, such as 2/4")


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if part := config.getoption("--part"):
        number, parts = (int(text) for text in part.split("/"))
        if not 1 <= number <= parts:
            raise pytest.UsageError(f"--part {part}: expected K/N with K from 1 to N")
        config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % parts != number - 1])
        items[:] = items[number - 1 :: parts]
    reason = _why_no_shared_data()
    for item in items:
        if reason and item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs, `ATTNCAP_DATA`; the test is skipped, saying so, where there is none."""
    reason = _why_no_shared_data()
    if reason:
        pytest.skip(reason)
    return Path(os.environ["ATTNCAP_DATA"])


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """The same random numbers for a test, whatever ran before it; Keras is seeded only where it is loaded already."""
    random.seed(0)
    np.random.seed(0)
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "utils"):
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def _one_browser() -> Iterator[Any]:
    from tests.browser import start_browser, why_no_browser

    reason = why_no_browser()
    if reason:
        pytest.skip(reason)
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def browser(_one_browser: Any) -> Any:
    """A real Chromium (Selenium's driver) of desktop size on an empty page; see browser.py. Skipped where none is."""
    from tests.browser import complaints, requests_made, resize

    _one_browser.get("about:blank")
    resize(_one_browser)
    requests_made(_one_browser), complaints(_one_browser)  # those of the test before
    return _one_browser
