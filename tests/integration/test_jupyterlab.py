"""A notebook in JupyterLab itself, as a person uses it: opened in Chromium, run from the menu, its heatmap seen."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.browser import screenshot

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "03_attention_captioner.ipynb"
START = 120  # seconds for the server, and for the page
RUN = 400  # seconds for all cells; half a minute on idle cores

pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: pip install 'attncap[test]'")


def wait_for(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """What `condition` gives as soon as it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"not seen within {seconds:.0f} s: {what}")


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a notebook in a JupyterLab of its own: no settings of the person who runs the tests."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (folder / "files").mkdir()
    nbformat.write(notebook, folder / "files" / NOTEBOOK.name)
    # JupyterLab asks whether to fetch its news; nothing here goes to the network.
    (folder / "config" / "labconfig").mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folder / "config" / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    environment = {
        **os.environ,
        "ATTNCAP_FAST": "1",
        "ATTNCAP_NOTEBOOKS": str(folder / "captioners"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    environment.pop("MPLBACKEND", None)  # Jupyter's own, which shows figures below the cell
    token = secrets.token_hex(16)
    # With no port retried and port 0, the system gives a free one; the server says which in its runtime folder.
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder / "files", env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:

        def address() -> str | None:
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            for file in (folder / "runtime").glob("jpserver-*.json"):
                try:
                    url = json.loads(file.read_text())["url"]
                    urllib.request.urlopen(f"{url}api?token={token}", timeout=5).close()
                    return str(url)
                except (OSError, ValueError):  # it is still starting
                    return None
            return None

        url = wait_for("a started JupyterLab", address, START)
        yield f"{url}lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        server.terminate()  # which also ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def click_menu(browser: Any, menu: str, entry: str) -> None:
    """Open a menu of the bar and click an entry, as a person does."""

    def click(selector: str, text: str) -> bool:
        for element in browser.find_elements("css selector", selector):
            if element.text.strip() == text and element.is_displayed():
                element.click()
                return True
        return False

    wait_for(f"the menu {menu}", lambda: click(".lm-MenuBar-itemLabel", menu), START)
    wait_for(f"its entry {entry}", lambda: click(".lm-Menu-itemLabel", entry), START)


@pytest.mark.slow
def test_all_cells_run_and_the_heatmap_is_seen(jupyterlab: str, browser: Any, tmp_path: Path) -> None:
    browser.get(jupyterlab)
    ready = (
        "const notebook = window.jupyterapp?.shell.currentWidget;"
        "return notebook?.sessionContext?.session?.kernel?.status === 'idle' && notebook.content.widgets.length > 5"
    )
    wait_for("the notebook and its kernel", lambda: browser.execute_script(ready), START)
    click_menu(browser, "Run", "Run All Cells")

    def code_cells() -> list[dict[str, Any]]:
        script = "return JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells)"
        return [cell for cell in json.loads(browser.execute_script(script)) if cell["cell_type"] == "code"]

    def finished() -> list[dict[str, Any]]:
        cells = code_cells()
        # The first error ends a run of all cells.
        failed = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
        assert not failed, failed
        return cells if all(cell["execution_count"] for cell in cells) else []

    cells = wait_for("every cell with its number", finished, RUN)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))

    # The heatmap: the picture under the cell that calls plot_attention, scrolled to, and seen on the screen.
    place = next(number for number, cell in enumerate(cells) if "plot_attention(" in "".join(cell["source"]))
    show = (
        "const content = window.jupyterapp.shell.currentWidget.content;"
        "const cell = content.widgets.filter(widget => widget.model.type === 'code')[arguments[0]];"
        "content.activeCellIndex = content.widgets.indexOf(cell);"
        "const image = cell.node.querySelector('.jp-RenderedImage img');"
        "if (!image || !image.complete || !image.naturalWidth) { content.scrollToCell(cell); return null; }"
        "image.scrollIntoView({block: 'center'});"
        "const box = image.getBoundingClientRect();"
        "return [box.left, box.top, box.right, box.bottom, innerWidth, innerHeight]"
    )
    left, top, right, bottom, width, height = wait_for(
        "the heatmap's picture", lambda: browser.execute_script(show, place), START
    )
    assert right - left > 300 and bottom - top > 100
    seen = np.asarray(Image.open(screenshot(browser, tmp_path / "heatmap.png")).convert("RGB")).astype(int)
    x = slice(max(0, int(left)), int(min(right, width)))
    part = seen[max(0, int(top)) : int(min(bottom, height)), x]
    assert part.shape[0] > 100  # in view
    # The heatmap's colors (inferno) are neither the page's grey nor text: reds well above their blues.
    assert (part[..., 0] - part[..., 2] > 60).mean() > 0.01

    # Equations are typeset by JupyterLab, and none says that it cannot be.
    mathematics = (
        "const cells = [...document.querySelectorAll('.jp-MarkdownOutput')];"
        "return [cells.filter(cell => cell.querySelector('mjx-container')).length,"
        " document.querySelectorAll('mjx-merror, .MathJax_Error').length,"
        " cells.map(cell => cell.textContent).join(' ')]"
    )
    typeset, errors, text = browser.execute_script(mathematics)
    assert typeset >= 1 and errors == 0
    assert not re.search(r"\\(?:frac|sum|tanh|alpha)\b", re.sub(r"\s+", " ", text))
