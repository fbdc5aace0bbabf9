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
from django.utils.text import slugify
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
GRACE_SECONDS = 0.5
AT_ONCE, KEPT = 50, 200  # messages of before that a page gets, and those of a room
#: Says numbers in a room, in a process of its own, until a file is there; then it prints how many it has said.
SPEAKER = """
import itertools, pathlib, time
from chat.groups import rooms
for number in itertools.count(1):
    rooms[{room!r}].send_json({{
        "type": "message", "id": str(number), "from": {{"id": "speaker", "name": "speaker"}},
        "text": str(number), "at": time.time(),
    }})
    if pathlib.Path({stop!r}).exists():
        break
    time.sleep(0.2)
print(number)
"""

#: For what the page does, whatever serves it.
one_kind = pytest.mark.parametrize("site", ["as-documented"], indirect=True)
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
        self.room = "lobby"  # that of the test
        self.environment = {"TMPDIR": str(folder / "tmp")}
        if redis_server:
            self.environment["REDIS_URL"] = redis_server.url
            with (folder / "example_project/example/settings.py").open("a") as settings:
                settings.write(f'WEBSOCKET_GROUPS["default"]["GRACE"] = {GRACE_SECONDS}\n')

    @property
    def path(self):
        return f"/chat/{self.room}/"

    def start(self, log_name, *options):
        """Serve it with two workers. Not serving(): gunicorn logs an error when a worker is killed."""
        command = (*WORKERS["as-documented"], *options)
        self.server = Served(command, self.folder, self.folder / log_name, self.environment)
        self.server.wait_until_up()

    def manage(self, *arguments):
        with self.managing(*arguments) as process:
            output, _ = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextmanager
    def managing(self, *arguments):
        """A command that runs; it must have ended by itself when the block ends."""
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        process = subprocess.Popen(
            [sys.executable, "example_project/manage.py", *arguments], cwd=self.folder, env=environment,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextmanager
    def speaker(self):
        """Let another process say numbers in the room, as long as the block runs; the list has them afterwards.

        Slowly: a page that is away for 40 seconds still finds them all in the history.
        """
        stop = self.folder / "stop"
        with self.managing("shell", "-c", SPEAKER.format(room=self.room, stop=str(stop))) as process:
            said = []
            yield said
            stop.touch()
            output, _ = process.communicate(timeout=60)
            stop.unlink()
            assert process.returncode == 0, output
            said.extend(str(number) for number in range(1, int(output.split()[-1]) + 1))

    def messages(self):
        """How many were sent to the room so far."""
        with self.redis.client() as client:
            (key,) = client.keys(f"*:m:room:{self.room}")
            return int(client.hget(key, "o"))

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
        self.get(self.site.path)
        self("name").send_keys(name)
        self.all("[name=log_in]" if as_user else "button.main")[0].click()
        self.until_state("open")
        return self

    def enter(self, path=None, *, process=None):
        """Open a page in this tab, so often that a process holds it that is not `process`."""
        for _ in range(50):
            self.get(path or self.site.path)
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

    def texts(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector)

    def heard(self):
        return self.texts("#messages .text")

    def unsent(self):
        return self.texts("#unsent-messages .text")

    def present(self):
        """Who is here: the number at the top, and the names."""
        return int("".join(self.texts("#count")) or 0), self.texts("#names .name")

    def notices(self):
        return [notice.text for notice in self.all("#notices span")]

    def until_heard(self, text):
        until(lambda: text in self.heard(), f"the message {text!r}")

    def until_present(self, *names):
        until(lambda: self.present() == (len(names), list(names)), f"{names} to be here")

    def until_history(self):
        until(lambda: self.run("return isComplete"), "what was said before")

    def until_failed(self, text):
        until(lambda: text in self.texts("#unsent-messages .failed .text"), f"the failure of {text!r}")

    def is_told_of_a_gap(self):
        return bool(self.all("#messages .note"))

    def until_notice(self, text):
        until(lambda: text in self.notices(), f"the notice {text!r}")

    def say(self, text):
        self("text").send_keys(text, Keys.ENTER)

    # So that a reload does not go unnoticed, of the page or of its messages

    def mark(self):
        self.run("window.marked = $('messages').firstElementChild")

    def is_marked(self):
        return self.run("return window.marked !== undefined")

    def shows_marked(self):
        return self.run("return window.marked === $('messages').firstElementChild")


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
def people(chromiums, site, request):
    """A user and a guest, each in a room that no other test has, in a browser of their own."""
    site.room = slugify(request.node.originalname.removeprefix("test_"))[:40]
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

    ben.say("to all")

    elsewhere = anna.chromium.current_window_handle
    for tab in anna.tabs():
        if tab != elsewhere:
            anna.until_heard("to all")
    anna.say("in here")
    anna.until_heard("in here")
    assert anna.heard() == ["in here"]
    ben.say("last")
    ben.until_heard("last")
    assert ben.heard() == ["to all", "last"]


def test_room_is_made_by_typing_its_name_and_stays_in_the_list(people, site):
    anna, ben = people
    ben("new-room").send_keys("Café Größe!", Keys.ENTER)
    until(lambda: [title.text for title in ben.all("main h1")] == ["café-größe"], "the new room")
    ben.until_state("open")
    anna.enter("/chat/café-größe/")
    anna.say("found it")
    ben.until_heard("found it")

    ben.enter("/chat/")
    assert [link.text for link in ben.all("nav li a")] == ["lobby", "help", "music", site.room, "café-größe"]


def test_history_is_there_after_a_reload_and_the_rest_on_request(people):
    anna, ben = people
    lines = [f"line {number}" for number in range(2 * AT_ONCE + 20)]
    for line in lines:
        ben.run("say(arguments[0])", line)
    anna.until_heard(lines[-1])
    assert anna.heard() == lines

    anna.enter()
    anna.until_history()
    assert anna.heard() == lines[-AT_ONCE:]
    assert anna.run("return following")
    assert not anna("beginning").is_displayed()

    anna.run("$('log').scrollTop = 0")  # this asks for more, and so does the button
    until(lambda: len(anna.heard()) == 2 * AT_ONCE, "earlier messages")
    assert anna.run("return $('log').scrollTop") > 0  # what one reads has not moved
    anna.run("$('earlier').click()")
    until(lambda: len(anna.heard()) == len(lines), "the first messages")
    ben.say("now")
    anna.until_heard("now")
    assert anna.heard() == [*lines, "now"]
    assert anna("beginning").is_displayed()
    assert not anna("earlier").is_displayed()


@one_kind
def test_page_that_was_away_for_too_long_shows_what_the_room_still_knows(people):
    anna, ben = people
    ben.say("first")
    anna.until_heard("first")
    anna.run("delay = 600; ws.close(4000)")
    anna.until_state("waiting")
    lines = [f"line {number}" for number in range(KEPT + 1)]
    for line in lines:
        ben.run("say(arguments[0])", line)
    ben.until_heard(lines[-1])

    anna.run("connect()")

    until(anna.is_told_of_a_gap, "the note that messages are missing")
    anna.until_heard(lines[-1])
    assert anna.heard() == lines[-AT_ONCE:]


def test_page_shows_who_is_here(people, site):
    """A user is here once, with however many tabs, until GRACE seconds after the last one; a guest leaves at once."""
    anna, ben = people
    in_both_processes(anna, ben)
    ben.until_present("Ben", "anna")
    anna.until_present("anna", "Ben")
    first = anna.chromium.current_window_handle
    anna.new_tab()
    anna.enter()
    until(lambda: count_of(site) == 3, "the second tab")  # pages that were left before have their GRACE

    anna.chromium.close()
    anna.chromium.switch_to.window(first)
    until(lambda: count_of(site) == 2, "the tab to be gone")
    ben.enter()  # this page gets the whole list anew
    ben.until_present("Ben", "anna")
    anna.until_present("anna", "Ben")

    ben("here").click()
    assert [name.text for name in ben.all("#names li")] == ["B\nBen\nguest\nyou", "A\nanna"]
    anna.leave()
    ben.until_present("Ben")
    anna.enter()
    ben.until_present("Ben", "anna")
    ben.leave()
    anna.until_present("anna")


@one_kind
def test_page_that_one_has_left_is_not_here_and_comes_back_with_what_was_said(people):
    """A browser keeps a page for the way back, and its connection too, unless the page closes it."""
    anna, ben = people
    anna.say("one")
    ben.until_heard("one")
    anna.chromium.get("about:blank")
    ben.until_present("Ben")
    ben.say("two")
    ben.until_heard("two")

    anna.chromium.back()

    anna.until_heard("two")
    ben.until_present("Ben", "anna")
    assert anna.heard() == ["one", "two"]
    assert not anna.is_told_of_a_gap()


def count_of(site):
    """How many WebSockets are present, as any other process is told."""
    asked = site.manage("shell", "-c", f"from chat.groups import rooms; print(rooms[{site.room!r}].count())")
    return int(asked.stdout.split()[-1])


@one_kind
def test_page_shows_a_number_alone_where_many_are_here(people):
    anna, ben = people
    ben.run("window.others = Array.from({ length: 200 }, () => new WebSocket(ws.url))")  # guests, each of them

    until(lambda: anna.present() == (202, []), "the number")
    anna("here").click()
    until(lambda: anna("many").is_displayed(), "the reason why there are no names")
    ben.run("window.others.splice(2).forEach(one => one.close())")
    anna.until_present("anna", "Ben")


@one_kind
def test_page_shows_who_writes_until_the_message_or_for_some_seconds(people):
    anna, ben = people
    in_both_processes(anna, ben)
    anna.new_tab()
    anna.enter()

    anna("text").send_keys("hm")
    until(lambda: ben("typing").text == "anna is typing…", "who writes")
    anna("text").send_keys("m", Keys.ENTER)
    ben.until_heard("hmm")
    until(lambda: ben("typing").text == "", "the end of it")

    for _ in anna.tabs():  # one after the other, and it is forgotten soon
        until(lambda: ben.run("tell({ typing: true })") or anna("typing").text == "Ben is typing…", "who writes")
    assert ben("typing").text == ""  # of oneself nothing
    for _ in anna.tabs():
        until(lambda: anna("typing").text == "", "the end of it")
        assert anna.heard() == ["hmm"]


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


def test_chat_works_again_after_a_failure_of_redis_without_a_reload(people, site):
    """This Redis writes nothing to a disk: it has forgotten everything, and the pages say so."""
    anna, ben = people
    in_both_processes(anna, ben)
    anna.mark()
    ben.mark()
    anna.say("before")
    ben.until_heard("before")

    site.redis.kill()
    anna.say("meanwhile")
    anna.until_failed("meanwhile")
    site.redis.start()

    for person in people:
        until(person.is_told_of_a_gap, "the note that messages are missing")
        until(lambda person=person: person.heard() == [], "what the room still knows")
    anna.all("#unsent-messages .again")[0].click()
    ben.until_heard("meanwhile")
    ben.say("after")
    anna.until_heard("after")
    assert anna.heard() == ben.heard() == ["meanwhile", "after"]
    assert anna.unsent() == []
    ben.until_present("Ben", "anna")
    assert anna.is_marked()
    assert ben.is_marked()


def test_page_that_is_opened_during_the_failure_comes_by_itself(people, site):
    anna, ben = people
    site.redis.kill()
    ben.get(site.path)
    ben.until_state("waiting")  # it was closed with 1013
    site.redis.start()

    ben.until_state("open")
    until(anna.is_told_of_a_gap, "the note that messages are missing")
    anna.say("you came")
    ben.until_heard("you came")


@one_kind
def test_text_that_does_not_come_back_can_be_sent_again(people):
    """As when a worker dies before it has passed the text on."""
    anna, ben = people
    anna.run("ws.send = () => {}")
    anna.say("into the void")
    anna.say("and this")
    anna.until_failed("into the void")
    anna.until_failed("and this")
    assert anna.heard() == []

    anna.run("delete ws.send")
    anna.all("#unsent-messages .again")[0].click()
    ben.until_heard("into the void")
    anna.until_heard("into the void")
    anna.all("#unsent-messages .drop")[0].click()

    assert anna.unsent() == []
    assert anna.heard() == ben.heard() == ["into the void"]


@one_kind
def test_text_that_is_sent_twice_is_heard_once(people):
    anna, ben = people
    for said in ("once", "once", "last"):
        anna.run("tell({ say: arguments[0], id: arguments[0] })", said)
        ben.run("tell({ say: `${arguments[0]} by Ben`, id: arguments[0] })", said)

    for person in people:
        person.until_heard("last")
        person.until_heard("last by Ben")
        assert sorted(person.heard()) == ["last", "last by Ben", "once", "once by Ben"]


@one_kind
def test_text_whose_arrival_the_page_did_not_see_is_marked_when_it_comes_back(people):
    anna, ben = people
    anna.mark()
    anna.run("ws.onmessage = null")
    anna.say("have you heard?")
    ben.until_heard("have you heard?")
    ben.say("yes")
    ben.until_heard("yes")
    assert anna.unsent() == ["have you heard?"]

    anna.run("ws.close(4000)")

    anna.until_heard("yes")
    assert anna.heard() == ["have you heard?", "yes"]
    assert anna.unsent() == []
    assert not anna.is_told_of_a_gap()
    assert anna.is_marked()


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
        ben.run("say(arguments[0])", f"line {number}")
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
        anna("here").click()
        until(lambda: anna("people").is_displayed(), "the names")
        assert_as_wide_as_the_screen(anna, "#people")
        anna("here").click()
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
    with alone(tmp_path, chromiums) as (site, anna, ben):
        process, other = in_both_processes(anna, ben)
        with site.speaker() as said:
            for person in (anna, ben):
                person.until_heard("5")
                person.mark()
            openings = len(site.openings())
            os.kill(process, signal.SIGKILL)

            until(lambda: len(site.openings()) > openings, "a new connection")
            anna.until_state("open")
            anna.say("here again")
            ben.until_heard("here again")
        assert_nothing_is_missing((anna, ben), said, "here again")
        assert site.openings()[openings:] != [process]
        assert site.openings().count(other) >= 1


@needs_redis
def test_page_misses_nothing_when_the_server_is_started_again(chromiums, tmp_path):
    with alone(tmp_path, chromiums) as (site, anna, ben):
        in_both_processes(anna, ben)
        with site.speaker() as said:
            for person in (anna, ben):
                person.until_heard("5")
                person.mark()
            site.server.stop()
            for person in (anna, ben):
                person.until_state("waiting")
            anna("text").send_keys("still here", Keys.ENTER)  # it stays in the field: there is no connection
            down, count = time.time(), site.messages()
            until(lambda: site.messages() > count + 1, "something to be said while the server is away")
            site.start("log-2", f"--bind=127.0.0.1:{site.server.port}")
            up = time.time()

            for person in (anna, ben):
                person.until_state("open")
            anna("text").send_keys(Keys.ENTER)
            ben.until_heard("still here")
        times = anna.run("return [...document.querySelectorAll('#messages li')].map(item => item.message.at)")
        assert [at for at in times if down < at < up]  # something was said while it was away
        assert_nothing_is_missing((anna, ben), said, "still here")
        ben.until_present("Ben", "Anna")


@one_kind
def test_page_misses_nothing_when_the_workers_lose_redis_for_a_moment(people, site):
    anna, ben = people
    in_both_processes(anna, ben)
    with site.speaker() as said:
        for person in people:
            person.until_heard("5")
            person.mark()
        with site.redis.client() as client:
            assert client.client_kill_filter(_type="pubsub") == 2
        anna.say("and on")
        ben.until_heard("and on")
    assert_nothing_is_missing(people, said, "and on")


@contextmanager
def alone(folder, chromiums):
    """A site with a server of its own, and two guests in its lobby."""
    with RedisServer(folder) as redis_server:
        site = Site(folder, redis_server)
        site.start("log")
        try:
            anna, ben = (Person(chromium, site) for chromium in chromiums)
            yield site, anna.come("Anna"), ben.come("Ben")
            anna.leave()
            ben.leave()
        finally:
            site.server.stop()


def assert_nothing_is_missing(persons, numbers, text):
    """The pages have heard each number once and in order, with the text somewhere, and have loaded nothing anew."""
    for person in persons:
        person.until_heard(numbers[-1])
        assert [heard for heard in person.heard() if heard != text] == numbers
        assert person.heard().count(text) == 1
        assert not person.is_told_of_a_gap()
        assert person.unsent() == []
        assert person.shows_marked()


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
