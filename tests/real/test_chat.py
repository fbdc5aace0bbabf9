"""The example's chat: two browsers, two worker processes, and the Redis between them, which all may fail."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.groups.servers import REDIS, RedisServer
from tests.real.chromium import browsing
from tests.real.processes import Served, serving
from tests.real.servers import PATIENCE_SECONDS, ROOT

COMMAND = re.compile(r"^REDIS_URL=\S+ \.venv/bin/gunicorn (.+)$", re.MULTILINE)
DOCUMENTED = COMMAND.search((ROOT / "README.md").read_text()).group(1).split()
#: So long a timeout that no worker is killed because this machine is busy.
GUNICORN = (sys.executable, "-m", "gunicorn", "--config=python:tests.project.gunicorn_conf", "--timeout=60")
WORKERS = {
    "as-documented": (*GUNICORN, *DOCUMENTED),
    "threads": (*GUNICORN, *DOCUMENTED, "--worker-class=gthread", "--threads=4"),
}
RUNSERVER = (sys.executable, "example_project/manage.py", "runserver", "--noreload", "127.0.0.1:0")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}

needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")


def until(condition, wanted):
    """What `condition` returns once that is true. A page may be loading: what it showed before is gone then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if result := condition():
                return result
        except StaleElementReferenceException:
            pass
        assert time.monotonic() < deadline, f"waited in vain for {wanted}"
        time.sleep(0.05)


class Site:
    """A copy of the example, with a database and sessions of its own, and the server that serves it."""

    def __init__(self, folder, redis_server=None):
        nothing_else = shutil.ignore_patterns("*.sqlite3", "__pycache__")
        shutil.copytree(ROOT / "example_project", folder / "example_project", ignore=nothing_else)
        (folder / "tmp").mkdir()
        self.folder, self.redis = folder, redis_server
        self.environment = {"TMPDIR": str(folder / "tmp")}
        if redis_server:
            self.environment["REDIS_URL"] = redis_server.url

    def manage(self, *arguments):
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        return subprocess.run(
            [sys.executable, "example_project/manage.py", *arguments], cwd=self.folder, env=environment,
            text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def openings(self):
        """The process of each WebSocket that has been opened, in their order."""
        return [int(process) for process in re.findall(r"\[(\d+)\] /chat/\S* opened", self.server.log())]


class Person:
    """A user of one browser, who looks at the tab that is in front."""

    def __init__(self, chromium, site):
        self.chromium, self.site = chromium, site

    def __call__(self, element_id):
        return self.chromium.find_element(By.ID, element_id)

    def all(self, selector):
        return self.chromium.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script, *arguments):
        return self.chromium.execute_script(script, *arguments)

    # Tabs

    def get(self, path):
        self.chromium.get(self.site.server.http(path))

    def come(self, name, *, as_user=False):
        """Say a name, in the only tab."""
        self.name = name
        self.leave()
        self.chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.errors()  # those of another test
        self.get("/chat/lobby/")
        self("name").send_keys(name)
        self.all("[name=log_in]" if as_user else "button.main")[0].click()
        self.until_state("open")
        return self

    def enter(self, path="/chat/lobby/", *, process=None):
        """Open a page in this tab, so often that a process holds it that is not `process`."""
        for _ in range(50):
            self.get(path)
            self.until_state("open")
            holder = self.site.openings()[-1]
            if holder != process:
                return holder
        raise AssertionError(f"{process} takes all connections")

    def new_tab(self):
        self.chromium.switch_to.new_window("tab")
        return self.chromium.current_window_handle

    def tabs(self):
        """Each tab in turn, in front."""
        for handle in self.chromium.window_handles:
            self.chromium.switch_to.window(handle)
            yield handle

    def leave(self):
        """Close all tabs but one, and empty that."""
        first, *others = self.chromium.window_handles
        for handle in others:
            self.chromium.switch_to.window(handle)
            self.chromium.close()
        self.chromium.switch_to.window(first)
        self.chromium.get("about:blank")

    # What is shown

    def errors(self):
        """What the console has reported since the last time: a script that failed, or that the policy has stopped."""
        return [entry for entry in self.chromium.get_log("browser") if entry["level"] == "SEVERE"]

    def until_state(self, state):
        until(
            lambda: [shown for shown in self.all("#state") if shown.get_attribute("data-state") == state],
            f"the state {state!r}",
        )

    def heard(self):
        return self.run("return [...document.querySelectorAll('#messages .text')].map(each => each.textContent)")

    def notices(self):
        return [notice.text for notice in self.all("#notices span")]

    def until_heard(self, text):
        until(lambda: text in self.heard(), f"the message {text!r}")

    def until_notice(self, text):
        until(lambda: text in self.notices(), f"the notice {text!r}")

    def say(self, text):
        self("text").send_keys(text, Keys.ENTER)

    # So that a reload does not go unnoticed

    def mark(self):
        self.run("window.marked = true")

    def is_marked(self):
        return self.run("return window.marked === true")


@contextmanager
def phone(person):
    """A narrow screen."""
    person.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        yield
    finally:
        person.chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def chromiums(tmp_path_factory):
    """Two browsers that share nothing."""
    with browsing(tmp_path_factory.mktemp("anna")) as anna, browsing(tmp_path_factory.mktemp("ben")) as ben:
        yield anna, ben


@pytest.fixture(scope="module", params=WORKERS)
def site(request, tmp_path_factory):
    if not REDIS:
        pytest.skip("needs redis-server")
    folder = tmp_path_factory.mktemp(request.param)
    with RedisServer(folder) as redis_server:
        site = Site(folder, redis_server)
        assert site.manage("migrate").returncode == 0
        with serving(WORKERS[request.param], site.folder, folder / "log", site.environment) as site.server:
            yield site


@pytest.fixture
def people(chromiums, site):
    """A user and a guest, each in the lobby, in a browser of their own."""
    anna, ben = (Person(chromium, site) for chromium in chromiums)
    yield anna.come("anna", as_user=True), ben.come("Ben")
    errors = [*anna.errors(), *ben.errors()]
    anna.leave()
    ben.leave()
    assert errors == []


def in_both_processes(anna, ben):
    """Let different processes hold the two pages; that of the first, that of the second."""
    process = anna.enter()
    return process, ben.enter(process=process)


def test_what_one_types_the_other_reads_in_another_process(people):
    anna, ben = people
    in_both_processes(anna, ben)

    anna.say("Grüße 👋")
    ben.until_heard("Grüße 👋")
    ben.say("and back")
    anna.until_heard("and back")
    ben.until_heard("and back")

    assert anna.heard() == ben.heard() == ["Grüße 👋", "and back"]
    mine = [message.text for message in anna.all("#messages .mine .text")]
    assert mine == ["Grüße 👋"]
    others = ben.all("#messages li:not(.mine):not(.note)")
    assert [message.find_element(By.CLASS_NAME, "name").text for message in others] == ["anna"]
    assert re.fullmatch(r"\d\d:\d\d( [AP]M)?", others[0].find_element(By.TAG_NAME, "time").text)


def test_message_is_in_every_tab_of_the_room_and_in_no_other_room(people):
    anna, ben = people
    anna.new_tab()
    anna.enter()
    anna.new_tab()
    anna.enter("/chat/music/")

    ben.say("to the lobby")

    elsewhere = anna.chromium.current_window_handle
    for tab in anna.tabs():
        if tab != elsewhere:
            anna.until_heard("to the lobby")
    anna.say("in here")
    anna.until_heard("in here")
    assert anna.heard() == ["in here"]
    ben.say("last")
    ben.until_heard("last")
    assert ben.heard() == ["to the lobby", "last"]


def test_room_is_made_by_typing_its_name_and_stays_in_the_list(people):
    anna, ben = people
    ben("new-room").send_keys("Café Größe!", Keys.ENTER)
    until(lambda: [title.text for title in ben.all("main h1")] == ["café-größe"], "the new room")
    ben.until_state("open")
    anna.enter("/chat/café-größe/")
    anna.say("found it")
    ben.until_heard("found it")

    ben.enter("/chat/")
    assert [link.text for link in ben.all("nav li a")] == ["lobby", "help", "music", "café-größe"]


def test_command_reaches_every_tab_of_the_user_in_both_processes(people, site):
    anna, ben = people
    process = anna.enter()
    anna.new_tab()
    anna.enter("/chat/music/", process=process)
    anna.new_tab()
    anna.enter("/chat/")

    told = site.manage("tell", "anna", "Your <b>export</b> is ready.")

    assert (told.returncode, told.stdout) == (0, "")
    for _ in anna.tabs():
        anna.until_notice("Your <b>export</b> is ready.")
    assert ben.notices() == []
    anna.all(".notice button")[0].click()
    assert anna.notices() == []


def test_command_says_that_it_does_not_know_a_user(site):
    told = site.manage("tell", "nina", "hello")

    assert (told.returncode, told.stdout) == (1, "CommandError: there is no user 'nina'\n")


def say_until_heard(speaker, listener):
    """Say it again and again: a process that is not back yet misses what is said."""

    def is_heard():
        speaker.say(f"again from {speaker.name}")
        return f"again from {speaker.name}" in listener.heard()

    until(is_heard, "a message after the failure")


def test_chat_works_again_after_a_failure_of_redis_without_a_reload(people, site):
    anna, ben = people
    in_both_processes(anna, ben)
    anna.mark()
    ben.mark()

    site.redis.kill()
    anna.say("lost")
    anna.until_notice("This may not have arrived: “lost”")
    assert anna("text").get_property("value") == "lost"  # it is given back
    anna("text").clear()
    site.redis.start()

    say_until_heard(anna, ben)
    say_until_heard(ben, anna)
    assert anna.is_marked()
    assert ben.is_marked()


def test_page_that_is_opened_during_the_failure_comes_by_itself(people, site):
    anna, ben = people
    site.redis.kill()
    ben.get("/chat/lobby/")
    ben.until_state("waiting")  # it was closed with 1013
    site.redis.start()

    ben.until_state("open")
    say_until_heard(anna, ben)


def test_text_that_does_not_come_back_is_given_back(people):
    """As when a worker dies before it has passed the text on."""
    anna, _ = people
    anna.run("ws.send = () => {}")
    anna.say("into the void")

    anna.until_notice("This may not have arrived: “into the void”")
    assert anna("text").get_property("value") == "into the void"


def test_text_stays_text(people):
    anna, ben = people
    attack = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    ben.come("<i onclick=alert(1)>Ben")

    ben.say(attack)

    anna.until_heard(attack)
    ben.until_heard(attack)
    assert [name.text for name in anna.all("#messages .name")] == ["<i onclick=alert(1)>Ben"]
    for person in people:
        assert person.all("#messages :is(script, img, i)") == []
        assert person.run("return window.hurt === undefined")


def test_reader_stays_where_he_reads_and_is_told_of_new_messages(people):
    anna, ben = people
    for number in range(30):
        ben.run("ws.send(arguments[0])", f"line {number}")
    anna.until_heard("line 29")
    until(lambda: anna.run("return following"), "the end")
    assert not anna("newer").is_displayed()

    anna.run("$('log').scrollTop = 100")
    until(lambda: not anna.run("return following"), "the page to see that it was scrolled")
    ben.say("something new")
    anna.until_heard("something new")

    assert anna.run("return $('log').scrollTop") == 100
    anna("newer").click()
    until(lambda: anna.run("return following") and not anna("newer").is_displayed(), "the end")


def test_logout_ends_every_tab_of_the_session(people):
    anna, ben = people
    anna.new_tab()
    anna.enter("/chat/music/")

    anna.all(".me button")[0].click()

    for _ in anna.tabs():
        until(lambda: anna.all("#name"), "the question for a name")
    ben.say("still here")
    ben.until_heard("still here")


def test_on_a_phone_nothing_is_cut(people):
    anna, ben = people
    ben.come("B" * 30)
    with phone(anna):
        ben.say("w" * 300)
        anna.say("a few words " * 20)
        anna.until_heard("w" * 300)
        until(lambda: len(anna.heard()) == 2, "both messages")
        assert_as_wide_as_the_screen(anna, "#log")
        assert not anna.all("nav")[0].is_displayed()
        anna.all(".back")[0].click()
        until(lambda: [nav for nav in anna.all("nav") if nav.is_displayed()], "the rooms")
        assert_as_wide_as_the_screen(anna, "nav")
        anna.all(".me button")[0].click()
        until(lambda: anna.all("#name"), "the question for a name")
        assert_as_wide_as_the_screen(anna, ".card")


def assert_as_wide_as_the_screen(person, selector):
    for each in ("html", "body", selector):
        widths = "const it = document.querySelector(arguments[0]); return [it.scrollWidth, it.clientWidth]"
        scrolled, shown = person.run(widths, each)
        assert scrolled == shown <= PHONE["width"], each


@needs_redis
def test_page_comes_back_by_itself_when_its_worker_is_killed(chromiums, tmp_path):
    with RedisServer(tmp_path) as redis_server:
        site = Site(tmp_path, redis_server)
        # Not serving(): gunicorn logs an error when a worker is killed.
        site.server = Served(WORKERS["as-documented"], site.folder, tmp_path / "log", site.environment)
        try:
            site.server.wait_until_up()
            anna, ben = (Person(chromium, site) for chromium in chromiums)
            process, other = in_both_processes(anna.come("Anna"), ben.come("Ben"))
            anna.mark()
            openings = len(site.openings())

            os.kill(process, signal.SIGKILL)

            until(lambda: len(site.openings()) > openings, "a new connection")
            anna.until_state("open")
            anna.say("here again")
            ben.until_heard("here again")
            ben.say("welcome")
            anna.until_heard("welcome")
            assert anna.is_marked()
            assert site.openings()[openings:] != [process]
            assert site.openings().count(other) >= 1
            anna.leave()
            ben.leave()
        finally:
            site.server.stop()


def test_without_redis_and_without_a_database_guests_chat_on_runserver(chromiums, tmp_path):
    site = Site(tmp_path)
    with serving(RUNSERVER, site.folder, tmp_path / "log", site.environment) as site.server:
        anna, ben = (Person(chromium, site) for chromium in chromiums)
        anna.come("Anna")
        ben.come("Ben")
        anna.say("hello")
        ben.until_heard("hello")
        anna.leave()
        ben.leave()
