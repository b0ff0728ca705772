"""Uses the page of ``counterpoise serve`` as a person would; fails when it does not show what is expected."""

import json
import sys

from playwright.sync_api import expect, sync_playwright

asked = json.loads(sys.argv[1])
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=asked["browser"], args=["--no-sandbox"])
    page = browser.new_page()
    page.goto(asked["url"])
    for place, file in enumerate(asked["files"]):
        part = page.locator(f"#input-{place}")
        part.locator("input[type=file]").first.set_input_files(file)
        part.get_by_label("Clear").or_(part.get_by_label("Remove")).first.wait_for()  # it is uploaded
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_test_id("label-output-value")).to_have_text(asked["answer"], timeout=30_000)
    for cell in asked["cells"]:
        expect(page.locator("body")).to_contain_text(cell)
    browser.close()
