"""The demo client in headless Chromium against a running system, as people use it.

    .venv/bin/python web/tests/browser.py http://127.0.0.1:8080 [--pictures DIR] [--chat-pid N] [--ops-token T] [--bot-token T]

Needs /demo/users. Every wait is for something to show, with a deadline; the first that does not show ends the run with
exit status 1, a picture of each browser in DIR, and what the browsers logged.
"""

import argparse
import json
import os
import signal
import sys
import time
import uuid

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from websockets.sync.client import connect

PATIENCE = 20.0


class Missing(Exception):
    pass


class Person:
    """One browser with its own storage: one device."""

    def __init__(self, base, user, width=1280, height=800, dark=False):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--hide-scrollbars", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.device(width, height, dark)
        # Chromium without a window is not in front; the page marks as read only what is.
        self.browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.base = base
        self.user = user

    def device(self, width, height, dark=False):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
        scheme = "dark" if dark else "light"
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def see(self, css, text=None, patience=PATIENCE):
        """The first visible element that fits, and whose text holds `text`."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for element in self.browser.find_elements(By.CSS_SELECTOR, css):
                try:
                    if element.is_displayed() and (text is None or text in element.text):
                        return element
                except StaleElementReferenceException:
                    pass
            time.sleep(0.02)
        raise Missing(f"{self.user['name']} does not see {css} {text or ''}")

    def lose(self, css, text=None, patience=PATIENCE):
        """Waits until nothing fits."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if not any(e.is_displayed() and (text is None or text in e.text)
                           for e in self.browser.find_elements(By.CSS_SELECTOR, css)):
                    return
            except StaleElementReferenceException:
                pass
            time.sleep(0.02)
        raise Missing(f"{self.user['name']} still sees {css} {text or ''}")

    def click(self, css, text=None):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.see(css, text).click()
            except StaleElementReferenceException:
                if time.monotonic() > deadline:
                    raise

    def log_in(self):
        self.browser.get(self.base + "/")
        self.click(f'#login-users [data-user="{self.user["user"]}"]')
        self.see("#connection[data-state=live]")

    def say(self, text):
        self.see("#composer-text").send_keys(text + Keys.ENTER)
        return self.bubble(text)

    def bubble(self, text):
        return self.see(".message .bubble", text)

    def tick(self, text, status):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if self.bubble(text).find_elements(By.CSS_SELECTOR, f'[data-status="{status}"]'):
                    return
            except StaleElementReferenceException:
                pass
            time.sleep(0.02)
        raise Missing(f"{self.user['name']} does not see “{text}” as {status}")

    def texts(self, tag):
        """What the open conversation shows of this run, from top to bottom."""
        return [text for text in self.browser.execute_script(
            "return [...document.querySelectorAll('.message .text')].map((e) => e.textContent)") if tag in text]

    def open_chat(self, name):
        self.click(".conversation", name)
        self.see("#chat-title", name)

    def press(self, *keys):
        """Keys for whatever has the focus."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def chord(self, modifier, key):
        ActionChains(self.browser).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def has_focus(self, css):
        self.until(lambda: self.browser.execute_script("return document.activeElement.matches(arguments[0])", css),
                   f"the focus is at {css}")

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise Missing(f"{self.user['name']}: {what}")
            time.sleep(0.02)

    def tool(self, text, label):
        """Reply, Edit or Delete of a message, which show when it is pointed at."""
        def pressed():
            # The list may be drawn anew between finding the message and pressing its button.
            try:
                row = self.bubble(text).find_element(By.XPATH, "./ancestor::li")
                button = row.find_element(By.CSS_SELECTOR, f'.tools [title="{label}"]')
                self.browser.execute_script("arguments[0].click()", button)
                return True
            except StaleElementReferenceException:
                return False

        self.until(pressed, f"{label} of {text}")

    def audit(self):
        """What everyone needs: names on controls, unique ids, contrast of at least 4.5 to 1."""
        return self.browser.execute_script(AUDIT)

    def picture(self, directory, name):
        if directory:
            self.browser.save_screenshot(os.path.join(directory, name + ".png"))

    def errors(self):
        return [entry for entry in self.browser.get_log("browser")
                if entry["level"] == "SEVERE" and not expected(entry["message"])]


def device(base, token):
    """A device without a browser, whom the rate limit does not hold back if its token says bot."""
    return connect(f"{base.replace('http', 'ws', 1)}/v1/ws?device={uuid.uuid4()}", subprotocols=["fanout.v1"],
                   additional_headers={"Authorization": f"Bearer {token}"})


def say(socket, chat, texts):
    """Sends one after the other, and waits until the log has all."""
    waiting = set()
    for text in texts:
        id = str(uuid.uuid4())
        waiting.add(id)
        socket.send(json.dumps({"type": "send", "id": id, "chat": chat, "text": text}))
    while waiting:
        frame = json.loads(socket.recv(timeout=PATIENCE))
        if frame["type"] == "error":
            raise Missing(f"the bot is refused: {frame}")
        if frame["type"] == "sent":
            waiting.discard(frame["id"])


def expected(message):
    # A server that was killed on purpose refuses connections, and says so in the log of the browser.
    return "ERR_CONNECTION" in message or "WebSocket connection to" in message or "Failed to load resource" in message


AUDIT = """
const shown = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
const problems = [];
for (const e of document.querySelectorAll('button, input, textarea, select, [role=img]')) {
    if (!shown(e)) continue;
    const name = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent || e.title;
    if (!name.trim()) problems.push(`no name: ${e.outerHTML.slice(0, 120)}`);
}
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) problems.push(`id twice: ${id}`);
const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number);
    return c.startsWith('color(srgb') ? [v[0] * 255, v[1] * 255, v[2] * 255, v[3] ?? 1] : [v[0], v[1], v[2], v[3] ?? 1]; };
const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
const ground = (e) => { if (!e) return [255, 255, 255, 1]; const s = getComputedStyle(e);
    if (s.backgroundImage !== 'none') return undefined;
    const c = parse(s.backgroundColor); if (c[3] === 1) return c;
    const below = ground(e.parentElement); return below && over(c, below); };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(e) || e.closest('svg') || e.closest(':disabled') || e.closest('#toast')) continue;
    const back = ground(e); if (!back) continue;
    const [x, y] = [light(over(parse(getComputedStyle(e).color), back)), light(back)];
    const ratio = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${e.className || e.tagName} “${e.textContent.trim().slice(0, 30)}”`);
}
return problems;
"""


class Story:
    def __init__(self, options):
        self.options = options
        self.people = []
        self.run = options.tag
        self.problems = []

    def person(self, user, **size):
        self.people.append(Person(self.options.base, user, **size))
        return self.people[-1]

    def step(self, text):
        print(f"  ok  {text}", flush=True)

    def tag(self, text):
        """Told apart from what earlier runs have said, where there were some."""
        return f"{text} ({self.run})" if self.run else text

    def check(self, truth, text):
        if not truth:
            raise Missing(text)

    def audit(self, person, where):
        for problem in sorted(set(person.audit())):
            self.problems.append(f"{where}: {problem}")

    def tell(self):
        users = demo_users(self.options.base)
        self.check(len(users) >= 3, "at least three demo users")
        pictures = self.options.pictures

        ada = self.person(users[0])
        ada.browser.get(self.options.base + "/")
        ada.see("#login-users button")
        self.audit(ada, "log in")
        ada.picture(pictures, "login")
        ada.log_in()
        bob = self.person(users[1], width=390, height=844, dark=True)
        bob.log_in()
        self.step("two people log in with two browsers")

        ada.click("#new-chat")
        ada.click(f'dialog [data-user="{bob.user["user"]}"]')
        ada.click("dialog .primary")
        ada.see("#chat-title", bob.user["name"])
        hello = self.tag("Did the log keep everything after the restart?")
        ada.say(hello)
        ada.tick(hello, "delivered")
        bob.see(f'.conversation', ada.user["name"])
        bob.see(".conversation .badge")
        bob.picture(pictures, "phone-list")
        self.audit(bob, "phone list")
        self.step("a message arrives, is counted as unread and shown as delivered")

        bob.open_chat(ada.user["name"])
        bob.bubble(hello)
        ada.tick(hello, "read")
        self.step("opening the conversation shows it as read to its sender")

        ada.see("#chat-subtitle", "online")
        bob.see("#composer-text").send_keys("T")
        ada.see("#chat-subtitle", "typing")
        answer = self.tag("o the last message. Nobody noticed")
        bob.see("#composer-text").send_keys(answer + Keys.ENTER)
        ada.bubble("T" + answer)
        bob.tick("T" + answer, "read")
        self.step("presence, typing and an answer with its ticks")

        second = self.person(users[0])
        second.log_in()
        second.open_chat(bob.user["name"])
        second.bubble(hello)
        both = self.tag("p99 is 4 ms, sokcet to socket")
        second.say(both)
        ada.bubble(both)
        bob.bubble(both)
        self.step("a second device of the same person has all of it, and what it says shows on the first")

        ada.tool(both, "Edit")
        field = ada.see("#composer-text")
        field.send_keys(Keys.CONTROL, "a")
        edited = self.tag("p99 is 4 ms, socket to socket")
        field.send_keys(edited + Keys.ENTER)
        for person in (ada, second, bob):
            person.bubble(edited)
        ada.tool(hello, "Reply")
        reply = self.tag("And the cursors survived, too")
        ada.say(reply)
        bob.see(".bubble .quote", "Did the log keep everything after the restart?")
        bob.picture(pictures, "phone-chat")
        self.audit(bob, "phone chat")
        self.step("an edit changes it everywhere, a reply quotes")

        bob.click("#show-inspector")
        bob.click("#cut", "Go offline")
        bob.see("#connection-text, #facts dd", "closed")
        away = [self.tag(f"Shift report, part {number}") for number in ("one", "two", "three")]
        for text in away:
            ada.say(text)
        for text in away:
            ada.tick(text, "sent")
        offline = self.tag("Wrote this in the tunnel")
        bob.click("#inspector-close")
        bob.say(offline)
        bob.tick(offline, "pending")
        bob.click("#notice .link", "Go online")
        bob.see("#toast", "Resumed")
        for text in away:
            bob.bubble(text)
        ada.bubble(offline)
        bob.tick(offline, "read")
        self.check(ada.texts(self.run) == bob.texts(self.run),
                   f"both see one order: {ada.texts(self.run)} and {bob.texts(self.run)}")
        self.check(all(bob.texts(self.run).count(text) == 1 for text in away), "each exactly once")
        self.step("who was offline resumes: everything missed, once, in order, and what was written meanwhile is sent")

        seen = bob.texts(self.run)
        deadline = time.monotonic() + PATIENCE
        while True:
            # History stores a moment later than devices are told.
            bob.browser.refresh()
            bob.bubble(offline)
            after = bob.texts(self.run)
            if after == seen:
                break
            self.check(time.monotonic() < deadline, f"after a reload: {after} instead of {seen}")
        self.step("a reload shows the same conversation from history")

        self.drafts(ada, bob)
        self.keyboard(ada, bob)
        if self.options.bot_token:
            with device(self.options.base, self.options.bot_token) as bot:
                bot.send(json.dumps({"type": "hello"}))
                self.history(ada, users[2], bot)
        self.group(ada, bob, users, pictures)
        if self.options.chat_pid:
            self.restart(ada, bob)
        self.presence(ada, bob)
        if self.options.ops_token:
            self.operations(ada, second, pictures)
        self.check(not self.problems, "accessible: " + "; ".join(self.problems))
        for person in self.people:
            self.check(not person.errors(), f"nothing on the console: {person.errors()}")
        self.step("controls have names, text has contrast, the consoles are clean")

    def drafts(self, ada, bob):
        ada.open_chat(bob.user["name"])
        field = ada.see("#composer-text")
        field.send_keys("Not finished y")
        ada.press(Keys.ESCAPE)
        ada.see("#nothing-open")
        ada.open_chat(bob.user["name"])
        ada.until(lambda: field.get_attribute("value") == "Not finished y", "the draft is there again")
        self.step("what was being written is there when one comes back to it")

        mine = self.tag("p99 is 4 ms, socket to socket")
        ada.tool(mine, "Edit")
        ada.until(lambda: field.get_attribute("value") == mine, "the edit has the field")
        field.send_keys(" or less")
        ada.press(Keys.ESCAPE)
        ada.until(lambda: field.get_attribute("value") == "Not finished y", "the edit is left, the draft is back")
        ada.tool(mine, "Edit")
        ada.press(Keys.ESCAPE, Keys.ESCAPE)
        ada.see("#nothing-open")
        ada.open_chat(bob.user["name"])
        ada.until(lambda: field.get_attribute("value") == "Not finished y", "an edit does not become a draft")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        self.step("an edit that is left is no draft")

    def keyboard(self, ada, bob):
        first = "return document.querySelector('a, button, input, textarea')"
        self.check(ada.browser.execute_script(first).get_attribute("id") == "skip", "the skip link comes first")
        ada.browser.execute_script("document.getElementById('skip').focus()")
        ada.see("#skip")
        ada.press(Keys.ENTER)
        ada.has_focus("#composer-text")
        ada.see("#chat-title", bob.user["name"])
        self.step("the skip link leads to the message field and closes nothing")

        ada.press(Keys.ARROW_UP)
        ada.see("#context", "Edit message")
        ada.press(Keys.ESCAPE)
        ada.lose("#context")
        ada.press(Keys.ESCAPE)
        ada.see("#nothing-open")
        ada.chord(Keys.CONTROL, "k")
        ada.has_focus("#search")
        ada.press(bob.user["name"][:3], Keys.ARROW_DOWN)
        ada.has_focus(".conversation")
        ada.press(Keys.ENTER)
        ada.see("#chat-title", bob.user["name"])
        ada.chord(Keys.CONTROL, "k")
        ada.press(Keys.ESCAPE)
        ada.until(lambda: len(ada.browser.find_elements(By.CSS_SELECTOR, ".conversation")) > 1, "the search is over")
        ada.chord(Keys.ALT, Keys.ARROW_DOWN)
        ada.lose("#chat-title", bob.user["name"])
        ada.chord(Keys.ALT, Keys.ARROW_UP)
        ada.see("#chat-title", bob.user["name"])
        self.step("conversations are searched, opened, walked and left with keys alone")

        ada.browser.execute_script("document.getElementById('menu').focus()")
        ada.press(Keys.ARROW_DOWN)
        ada.has_focus('[data-do="theme"]')
        ada.press(Keys.ARROW_UP)
        ada.has_focus('[data-do="logout"]')
        ada.press(Keys.ARROW_UP, Keys.HOME, Keys.ARROW_DOWN)
        ada.has_focus('[data-do="tab"]')
        ada.press(Keys.ESCAPE)
        ada.lose("#menu-items")
        ada.has_focus("#menu")
        name = ada.see(".conversation", bob.user["name"]).get_attribute("aria-label")
        row = ada.see(".conversation", bob.user["name"])
        for part in (".preview", "time"):
            text = row.find_element(By.CSS_SELECTOR, part).text
            self.check(text and text in name, f"the conversation's name tells “{text}”: {name}")
        self.step("the menu is walked with the arrow keys; a conversation's name tells preview and time")

    def history(self, ada, third, bot):
        """More than two pages, written by somebody whom the rate limit does not hold back."""
        ada.click("#new-chat")
        ada.click(f'dialog [data-user="{third["user"]}"]')
        ada.click("dialog .primary")
        ada.see("#chat-title", third["name"])
        chat = ada.browser.execute_script("return fanout.model.open")
        ada.press(Keys.ESCAPE)
        ada.see("#nothing-open")
        say(bot, chat, [self.tag(f"Chapter {number:03}") for number in range(100)])
        ada.see(f'[data-chat="{chat}"] .badge', "99+")
        # Only what history has kept is there after a reload: the page asks for it again and again.
        stored = """return fanout.api.history(arguments[0], { limit: 1 })
            .then(({ messages }) => messages[0]?.text === arguments[1])"""
        ada.until(lambda: ada.browser.execute_script(stored, chat, self.tag("Chapter 099")), "history has the messages")
        ada.browser.refresh()
        ada.see("#connection[data-state=live]")
        ada.open_chat(third["name"])
        ada.bubble(self.tag("Chapter 099"))
        ada.lose(f'[data-chat="{chat}"] .badge')
        self.check(not any("Chapter 000" in text for text in ada.texts(self.run)), "only the newest page is loaded at once")
        top = "document.getElementById('messages').scrollTop = 0"
        ada.until(lambda: ada.browser.execute_script(top) or any(
            "Chapter 000" in text for text in ada.texts(self.run)), "scrolling up brings the oldest message")
        pages = [text for text in ada.texts(self.run) if "Chapter " in text]
        self.check(pages == [self.tag(f"Chapter {number:03}") for number in range(100)],
                   f"each message once, in order: {pages}")
        self.step("older pages come as one scrolls up, each message once and in order")

        ada.browser.execute_script("const m = document.getElementById('messages'); m.scrollTop = m.scrollHeight")
        ada.until(lambda: ada.browser.execute_script(
            "return fanout.api.chat(arguments[0]).then(({ unread }) => unread === 0)", chat), "the server knows it as read")
        ada.browser.execute_script("fanout.client.close()")
        say(bot, chat, [self.tag(f"Anybody there? {number}") for number in range(3)])
        ada.click("#notice .link", "Go online")
        ada.bubble(self.tag("Anybody there? 2"))
        ada.until(lambda: ada.browser.execute_script(
            "return fanout.api.chat(arguments[0]).then(({ unread }) => unread === 0)", chat), "it is read there, too")
        ada.lose(f'[data-chat="{chat}"] .badge')
        ada.press(Keys.ESCAPE)
        ada.see("#nothing-open")
        self.step("what was missed with the conversation in front is read at once, and no badge stays")

    def group(self, ada, bob, users, pictures):
        third = users[2]
        name = self.tag("Launch crew")
        ada.click("#new-chat")
        for user in (bob.user, third):
            ada.click(f'dialog [data-user="{user["user"]}"]')
        ada.see('dialog [name="title"]').send_keys(name)
        ada.click("dialog .primary", "Create group of 3")
        ada.see("#chat-title", name)
        first = self.tag("Board meeting moved to 15:00")
        ada.say(first)
        bob.click("#back")
        bob.open_chat(name)
        bob.bubble(first)
        self.step("a group is made and its message reaches its members")
        ada.click("#show-inspector")
        ada.see("#frames summary", "message")
        ada.picture(pictures, "group-inspector")
        self.audit(ada, "inspector")
        ada.click("#inspector-close")

        ada.click("#details")
        ada.see("dialog .person", third["name"])
        ada.picture(pictures, "group-members")
        ada.click(f'dialog [data-remove="{bob.user["user"]}"]')
        ada.lose(f'dialog [data-remove="{bob.user["user"]}"]')
        ada.click("dialog .primary", "Done")
        ada.lose("dialog")
        without = self.tag("Only for those who stayed")
        ada.say(without)
        ada.tick(without, "sent")
        bob.see("#composer-text:disabled")
        ada.click("#details")
        ada.see("dialog select")
        ada.browser.execute_script(
            "document.querySelector('dialog select').value = arguments[0]", bob.user["user"])
        ada.click("dialog [data-add]")
        ada.see(f'dialog [data-remove="{bob.user["user"]}"]')
        if len(users) > 3:
            ada.see('dialog [aria-label="User id"]').send_keys(users[3]["user"])
            ada.click("dialog [data-add-id]")
            ada.see(f'dialog [data-remove="{users[3]["user"]}"]')
        ada.click("dialog .primary", "Done")
        ada.lose("dialog")
        again = self.tag("Welcome back")
        ada.say(again)
        bob.bubble(again)
        bob.see("#composer-text:enabled")
        self.check(not any(without in text for text in bob.texts(self.run)), "what was said without him is not shown to him")
        self.step("who is removed gets nothing more, who is added, by name or by id, gets the very next message")

    def restart(self, ada, bob):
        # It may be back before one can look, so the page takes note itself.
        for person in (ada, bob):
            person.browser.execute_script(
                "fanout.client.on('state', ({ name }) => { if (name === 'waiting') document.body.dataset.lost = 'yes'; })")
        os.kill(self.options.chat_pid, signal.SIGKILL)
        meanwhile = self.tag("Sent while the server was dead")
        ada.say(meanwhile)
        for person in (ada, bob):
            person.see("body[data-lost=yes]")
        bob.bubble(meanwhile)
        ada.tick(meanwhile, "sent")
        self.check(bob.texts(self.run).count(meanwhile) == 1, "once, though it was sent again")
        self.step("the chat server is killed: both reconnect by themselves, nothing is lost or repeated")

    def presence(self, ada, bob):
        ada.open_chat(bob.user["name"])
        ada.see("#chat-subtitle", "online")
        bob.browser.get("about:blank")
        ada.see("#chat-subtitle", "last seen", patience=60)
        ada.picture(self.options.pictures, "chat")
        self.audit(ada, "chat")
        ada.device(1280, 800, dark=True)
        ada.picture(self.options.pictures, "chat-dark")
        self.audit(ada, "chat, dark")
        self.step("who closes the browser is shown as last seen after a grace")

    def operations(self, person, other, pictures):
        person.device(1280, 1480)
        person.browser.get(f"{self.options.base}/ops#token={self.options.ops_token}")
        person.see("#link[data-tone=good]")
        for number in range(5):
            other.say(self.tag(f"Something to look at, {number}"))
        person.see("#hops tbody tr")
        person.see("#instances .state", "serving")
        person.see("#stages tbody tr:nth-child(6)")
        # Rates take two answers.
        person.see("#picture .moving:not(.still)")
        person.see("#stages td", "0.0")
        self.audit(person, "operations")
        person.picture(pictures, "operations")
        self.step("the operations page shows the pipeline")


def demo_users(base):
    import urllib.request
    with urllib.request.urlopen(base + "/demo/users", timeout=10) as answer:
        return json.load(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--pictures", metavar="DIR")
    parser.add_argument("--tag", default="", help="put after each message, to tell runs on one system apart")
    parser.add_argument("--chat-pid", type=int)
    parser.add_argument("--ops-token")
    parser.add_argument("--bot-token", help="a token of the third demo user with the scope bot")
    options = parser.parse_args()
    if options.pictures:
        os.makedirs(options.pictures, exist_ok=True)
    story = Story(options)
    try:
        story.tell()
    except Exception as error:
        print(f"FAILED  {type(error).__name__}: {error}")
        for number, person in enumerate(story.people):
            person.picture(options.pictures, f"failed-{number}")
            print(f"--- {person.user['name']}:", *person.browser.get_log("browser"), sep="\n    ")
            if not isinstance(error, Missing):
                import traceback
                traceback.print_exc()
        return 1
    finally:
        for person in story.people:
            person.browser.quit()
    print("all steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
