"""A real browser without a window."""

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver


@contextmanager
def browsing(directory):
    """A browser whose profile is in ``directory``."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless",
        "--no-sandbox",  # root, as in most containers
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={directory}",
    ):
        options.add_argument(argument)
    # A spare connection that never sends a request blocks a server that has one thread only.
    options.add_experimental_option("prefs", {"net.network_prediction_options": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver)) as chromium:
        yield chromium
