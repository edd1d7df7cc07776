"""A real Chromium for tests: found on the machine, driven by Selenium, without the network.

`browser` in conftest.py gives a started one; a test that wants another size calls `resize`. Nothing is downloaded: on
Debian and Ubuntu `apt-get install chromium chromium-driver` brings both programs (`.ci/run` does), elsewhere Chrome and
the chromedriver of its version, or ATTNCAP_CHROMIUM and ATTNCAP_CHROMEDRIVER that name them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "no {what} on this machine: install Debian's chromium and chromium-driver, or name it in {variable}"

# An explorer's page unpacks what it holds after it has loaded.
UNPACKED = """
const done = arguments[0];
const ready = () => !document.getElementById("stage") || document.documentElement.dataset.ready;
const wait = () => (ready() ? done() : setTimeout(wait, 5));
wait();
"""


def _program(variable: str, names: tuple[str, ...]) -> str | None:
    return os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)


def why_no_browser() -> str | None:
    """What is missing for a browser test, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install 'attncap[test]'"
    if _program("ATTNCAP_CHROMIUM", CHROMIUM) is None:
        return MISSING.format(what="Chromium", variable="ATTNCAP_CHROMIUM")
    if _program("ATTNCAP_CHROMEDRIVER", ("chromedriver",)) is None:
        return MISSING.format(what="chromedriver", variable="ATTNCAP_CHROMEDRIVER")
    return None


def start_browser() -> Any:
    """Start a headless Chromium that logs every request of its pages; the caller quits it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(_program("ATTNCAP_CHROMIUM", CHROMIUM))
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"):
        options.add_argument(argument)
    for argument in ("--no-first-run", "--disable-background-networking", "--disable-component-update"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's own sandbox does not start for root, as in containers
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=_program("ATTNCAP_CHROMEDRIVER", ("chromedriver",)))
    driver = webdriver.Chrome(options=options, service=service)  # named: Selenium does not go looking for one
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    load = driver.get

    def get(address: str) -> None:
        load(address)
        driver.execute_async_script(UNPACKED)

    driver.get = get
    return driver


def resize(driver: Any, width: int = 1280, height: int = 900, *, phone: bool = False) -> None:
    """Give the page a size in CSS pixels; a phone has a finger in place of a mouse, and two pixels a CSS pixel."""
    size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    touch = {"enabled": phone, "maxTouchPoints": 1} if phone else {"enabled": False}
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)


def screenshot(driver: Any, file: str | Path) -> Path:
    """Write what is seen as PNG."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    Path(file).write_bytes(base64.b64decode(shot["data"]))
    return Path(file)


def requests_made(driver: Any) -> list[str]:
    """The addresses that pages asked for since the last call; what a policy refused was not asked for.

    `data:` and the browser's own pages are left out.
    """
    asked: dict[str, str] = {}
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked[message["params"]["requestId"]] = message["params"]["request"]["url"]
        elif message["method"] == "Network.loadingFailed" and message["params"].get("blockedReason") == "csp":
            asked.pop(message["params"]["requestId"], None)
    return [url for url in asked.values() if not url.startswith(("data:", "chrome:", "about:"))]


def complaints(driver: Any) -> list[str]:
    """What pages wrote to the console since the last call: script errors, and what a policy refused."""
    return [entry["message"] for entry in driver.get_log("browser")]
