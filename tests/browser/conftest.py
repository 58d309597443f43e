"""A real browser for the tests: Debian's chromium and its driver, installed when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

NEEDED = {"chromium": "chromium", "chromedriver": "chromium-driver"}


def _install(packages: list[str]) -> None:
    name = " and ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail(f"{name}: not installed. Install with: sudo apt-get install {' '.join(packages)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *step], capture_output=True, text=True, env=quiet, timeout=300)
        if done.returncode:
            pytest.fail(f"{name}: apt-get {step[0]} failed, no browser test can run:\n{done.stderr[-2000:]}")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium with an empty profile, at 1280 by 900 pixels, keeping its console and network logs."""
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing:
        _install(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or ""))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """The browser of this run, on an empty page, its logs read and its size as at the start."""
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><title>blank</title><link rel=icon href='data:,'>", encoding="utf-8")
    chromium.get(blank.as_uri())
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
