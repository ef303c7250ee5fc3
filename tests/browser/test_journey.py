"""A scientist's day in a real browser: sign in, choose, work, watch the files change, sign out."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import Page, expect

from tests.browser.pages import Window
from tests.harness.stage import Stage

READ = (
    "import os, hashlib; t = open(os.environ['OAUTH2_TOKEN'][5:]).read(); "
    "print('mode', oct(os.stat(os.environ['OAUTH2_TOKEN'][5:]).st_mode)[-3:], "
    "t.split(':')[0], t.split(':')[2], 'print', hashlib.sha256(t.encode()).hexdigest()[:12])"
)


def run_in_notebook(page: Page, code: str, cell: int) -> str:
    """Type ``code`` into the notebook's cell and read what it printed."""
    expect(page.get_by_role("button", name="| Idle")).to_be_visible(timeout=60_000)
    editor = page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(cell)
    editor.click()
    expect(editor).to_be_focused()
    page.keyboard.insert_text(code)
    expect(editor).to_contain_text("import os")
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
    expect(output.first).to_contain_text("mode", timeout=60_000)
    return output.first.inner_text()


def test_alice_signs_in_picks_an_environment_works_and_signs_out(
    window: Window, stage: Stage
) -> None:
    page = window.page
    page.goto(window.hub)
    expect(page.get_by_role("link", name="Sign in with ESCAPE IAM")).to_be_visible()
    window.shoot("01-sign-in")
    window.assert_fits()
    window.press_sign_in()
    window.shoot("02-iam-sign-in")
    window.give_password("alice")
    window.shoot("03-iam-consent")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{window.hub}hub/**")
    assert "code=" not in page.url

    page.goto(f"{window.hub}hub/spawn")
    expect(page.locator("fieldset input[type=radio]").first).to_be_attached()
    window.shoot("04-environments")
    window.assert_fits()
    page.locator("fieldset input[type=radio]").first.check(force=True)
    page.locator("form button[type=submit], form input[type=submit]").last.click()
    page.wait_for_url(re.compile(r"spawn-pending|/user/alice/"))
    window.shoot("05-starting")
    page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=90_000)

    launcher = page.locator(".jp-LauncherCard[data-category='Notebook']").first
    launcher.click(timeout=60_000)
    first = run_in_notebook(page, READ, 0)
    assert "mode 600 oauth2 iam.example.org/userinfo" in first
    expect(page.get_by_text("Data lake: fresh")).to_be_visible(timeout=60_000)
    window.shoot("06-lab")
    assert run_until_changed(page, first)

    page.goto(f"{window.hub}hub/home")
    expect(page.get_by_text("EOS storage")).to_be_visible()
    expect(page.get_by_text("Rucio catalogue")).to_be_visible()
    window.shoot("07-home")
    window.assert_fits()

    page.goto(f"{window.hub}hub/logout")
    window.shoot("08-signed-out")
    page.goto(f"{window.hub}hub/home")
    expect(page.get_by_role("link", name="Sign in with ESCAPE IAM")).to_be_visible()


def run_until_changed(page: Page, first: str) -> bool:
    """Run cells until the file's fingerprint is another: nobody renewed anything by hand."""
    for cell in range(1, 8):
        page.evaluate("() => new Promise(done => setTimeout(done, 8000))")
        if run_in_notebook(page, READ, cell).split()[-1] != first.split()[-1]:
            return True
    return False


def test_a_wrong_password_is_said_on_the_iams_own_page(window: Window) -> None:
    window.press_sign_in()
    window.give_password("alice", "wrong")
    expect(window.page.get_by_role("alert")).to_be_visible()
    window.shoot("10-wrong-password")


def test_refused_consent_leads_to_a_page_that_says_so(window: Window, stage: Stage) -> None:
    window.press_sign_in()
    window.give_password("bob")
    window.page.get_by_role("button", name="Refuse").click()
    expect(window.page.get_by_text("Reference")).to_be_visible()
    expect(window.page.get_by_role("link", name=re.compile("sign|again", re.I))).to_be_visible()
    window.shoot("11-refused-consent")
    window.assert_fits()
    reference = window.page.locator(".escape-reference code").inner_text()
    assert reference in stage.hub.log_text


def test_an_iam_that_is_down_is_a_page_that_says_what_to_do(window: Window, stage: Stage) -> None:
    away = {"mode": "503"}
    window.page.goto(f"{window.hub}hub/login")
    stage.iam.faults(token={**away, "grant": "any"}, discovery=away, jwk=away)
    window.press_sign_in()
    if "authorize" in window.page.url or window.page.get_by_label("Password").count():
        window.give_password("bob")
        allow = window.page.get_by_role("button", name="Allow")
        if allow.count():
            allow.click()
    expect(window.page.get_by_text("does not answer")).to_be_visible()
    window.shoot("12-iam-down")
    assert httpx.get(f"{stage.hub.url}hub/health").status_code == 200
