"""The example's page in a real browser, under every server: what a newcomer sees first."""

import re
import sys

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.real.chromium import browsing
from tests.real.processes import serving
from tests.real.servers import PATIENCE_SECONDS, ROOT

GUNICORN = (sys.executable, "-m", "gunicorn", "example.wsgi", "--config=python:tests.project.gunicorn_conf")
SERVERS = {
    "runserver": (sys.executable, "manage.py", "runserver", "--noreload", "127.0.0.1:0"),
    "runserver-nothreading": (sys.executable, "manage.py", "runserver", "--noreload", "--nothreading", "127.0.0.1:0"),
    "pywsgi": (sys.executable, "serve_gevent.py", "--port=0"),
    "gunicorn-sync": (*GUNICORN, "--worker-class=sync"),
    "gunicorn-gthread": (*GUNICORN, "--worker-class=gthread", "--threads=2"),
    "gunicorn-gevent": (*GUNICORN, "--worker-class=gevent"),
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    log_file = tmp_path_factory.mktemp(request.param) / "log"
    with serving(SERVERS[request.param], ROOT / "example_project", log_file) as served:
        yield served


class Page:
    """The page as its user sees it."""

    def __init__(self, chromium):
        self._chromium = chromium

    def __call__(self, element_id):
        return self._chromium.find_element(By.ID, element_id)

    def open(self, server):
        self.errors()  # those of another test
        self._chromium.get(server.http("/"))
        self.until_state("open")

    def leave(self):
        self._chromium.get("about:blank")

    def errors(self):
        """What the browser's console has reported since the last time."""
        return [entry for entry in self._chromium.get_log("browser") if entry["level"] == "SEVERE"]

    def choose(self, view):
        self._chromium.find_element(By.CSS_SELECTOR, f"[value={view}] + span").click()

    def say(self, text):
        self("message").send_keys(text)
        self("send").click()

    def lines(self, kind):
        return [line.text for line in self._chromium.find_elements(By.CSS_SELECTOR, f"#log .{kind}")]

    def until(self, condition, wanted):
        """What `condition` returns once that is true."""
        wait = WebDriverWait(self._chromium, PATIENCE_SECONDS, poll_frequency=0.05)
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"waited in vain for {wanted}; the page:\n{self.text()}") from None

    def until_state(self, pattern):
        self.until(lambda: re.fullmatch(pattern, self("state").text), f"the state {pattern!r}")

    def until_line(self, kind, pattern):
        self.until(lambda: any(re.fullmatch(pattern, line) for line in self.lines(kind)), f"{kind} {pattern!r}")

    def text(self):
        return self._chromium.find_element(By.TAG_NAME, "body").text


@pytest.fixture
def page(chromium, server):
    page = Page(chromium)
    page.open(server)
    yield page
    page.leave()
    assert page.errors() == []


def test_what_is_sent_comes_back(page):
    page.say("Grüße 👋")
    page.until_line("received", ".*Grüße 👋")
    page.say("second")
    page.until_line("received", ".*second")

    assert page.lines("sent") == ["Grüße 👋", "second"]
    assert page.lines("received") == ["Grüße 👋", "second"]


def test_disconnect_shows_the_code_and_connect_opens_again(page):
    page("disconnect").click()
    page.until_state(r"closed 1000 \(.*\)")
    assert not page("send").is_enabled()
    assert not page("disconnect").is_enabled()

    page("connect").click()
    page.until_state("open")
    page.say("back again")
    page.until_line("received", "back again")


def test_server_that_closes_is_seen_and_reconnected_to(page):
    page.choose("echo_once")
    page.until_line("note", "connected to echo once")
    page.say("only once")

    page.until_line("received", "only once")
    page.until_line("note", r"closed 1000 \(normal closure\)")
    page.until(lambda: page.lines("note").count("connected to echo once") == 2, "the second connection")
    page.until_state("open")


def test_clock_pushes_until_its_tab_is_closed(page, chromium, server):
    page.choose("clock")
    page.until_line("received", r"\d\d:\d\d:\d\d, 1 watching")
    page.until(lambda: len(page.lines("received")) >= 3, "three ticks")

    first_tab = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    second_tab = chromium.current_window_handle
    chromium.get(server.http("/"))
    page.choose("clock")
    chromium.switch_to.window(first_tab)
    page.until_line("received", r".*, 2 watching")

    chromium.switch_to.window(second_tab)
    chromium.close()
    chromium.switch_to.window(first_tab)
    page.until(lambda: page.lines("received")[-1].endswith(", 1 watching"), "the end of the other view")


def test_empty_message_is_not_sent(page):
    page("send").click()
    page.say("not empty")
    page.until_line("received", "not empty")

    assert page.lines("sent") == ["not empty"]


def test_log_of_the_server_shows_what_opens_and_closes(page, server):
    page.choose("echo_once")
    page.until_line("note", "connected to echo once")
    page.say("only once")

    page.until(
        lambda: re.search(r"/once opened\n(.*\n)*.*/once - 127\.0\.0\.1 .*, closed 1000\n", server.log()),
        f"the lines of the WebSocket in the log:\n{server.log()}",
    )


def test_on_a_phone_no_code_is_cut_and_the_buttons_share_a_row(page, chromium):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for view in ("echo", "echo_once", "clock"):
            page.choose(view)
            code = page(f"source-{view}")
            assert code.get_property("scrollWidth") == code.get_property("clientWidth"), view
        button, check = page("connect").rect, page("again").rect
        assert button["y"] < check["y"] < button["y"] + button["height"]
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_each_view_shows_its_code_and_what_it_does(page):
    assert page("hint").text == "What you send comes back."

    page.choose("echo_once")

    assert page("source-echo_once").text.startswith("@require_websocket\ndef echo_once(request):")
    assert not page("source-echo").is_displayed()
    assert page("hint").text.startswith("It answers once.")


def test_page_connects_again_when_the_server_is_back(chromium, tmp_path):
    page = Page(chromium)
    with serving(SERVERS["runserver"], ROOT / "example_project", tmp_path / "first") as server:
        page.open(server)
    page.until_state(r"closed 100[16] .*, again in \d+ s")

    same_address = (*SERVERS["runserver"][:-1], f"127.0.0.1:{server.port}")
    with serving(same_address, ROOT / "example_project", tmp_path / "second"):
        page.until_state("open")
        page.leave()
