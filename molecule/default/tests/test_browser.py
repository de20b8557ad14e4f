"""A visitor opens the page, writes a note and sees its job finish."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait


@pytest.fixture
def key(certificate):
    """Return the digest of the site's public key for Chromium."""
    key = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.fixture
def browser(address, key):
    """Return Chromium, which resolves the name of the site and trusts its key."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
    for argument in (
        "headless",
        "no-sandbox",
        "disable-dev-shm-usage",
        "window-size=1280,1240",
        "no-proxy-server",
        "hide-scrollbars",
        "force-prefers-reduced-motion",
    ):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--host-resolver-rules=MAP localhost {address}")
    # Other self-signed certificates are still refused.
    options.add_argument(f"--ignore-certificate-errors-spki-list={key}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_a_visitor_writes_a_note_and_sees_its_job_finish(browser, request):
    browser.get("http://localhost/")
    assert browser.current_url == "https://localhost/"
    before = {note.get_attribute("id") for note in browser.find_elements(By.CLASS_NAME, "note")}
    browser.find_element(By.NAME, "author").send_keys("Grace")
    browser.find_element(By.NAME, "body").send_keys(
        "Five releases this week, and nobody noticed one."
    )
    browser.find_element(By.CSS_SELECTOR, "form button[type=submit]").click()

    # Until the response arrives, elements may belong to the previous page.
    wait = WebDriverWait(browser, 20, ignored_exceptions=[StaleElementReferenceException])

    def newest(page):
        note = page.find_element(By.CLASS_NAME, "note")
        return note if note.get_attribute("id") not in before else None

    note = wait.until(newest)
    assert "nobody noticed" in note.text
    # The page's script fetches the result, without a reload.
    word_count = wait.until(lambda _: note.find_element(By.CSS_SELECTOR, ".word-count.done"))
    assert "8 words" in " ".join(word_count.text.split())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

    browser.execute_script("window.scrollTo(0, 0)")
    folder = Path(os.environ.get("SCREENSHOTS", request.config.rootpath / ".local/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(folder / "sample_app.png"))
