"""A headless Chromium, driven through the DevTools protocol: https://chromedevtools.github.io."""

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")


def find_chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running browser. Use as a context manager.

    Args:
        folder: for its profile.
        options: further arguments of the command line.
    """

    def __init__(self, folder, *options):
        self.command = [find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu"]
        self.command += ["--disable-dev-shm-usage", "--remote-debugging-port=0", "--no-first-run"]
        self.command += [f"--user-data-dir={folder}", "--disable-background-networking", *options]
        self.count, self.events = 0, []

    def __enter__(self):
        from websockets.sync.client import connect

        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                self.socket = connect(found[1], max_size=None, open_timeout=60)
                return self
        raise RuntimeError(f"{self.command[0]} does not start")

    def __exit__(self, *error):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()

    def send(self, method, session=None, **params):
        """Calls a function of the protocol, and returns its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=120))
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def page(self, address, width=1280, height=900, dark=False):
        """Opens an address in a context of its own, as another user's browser, see `Page`."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)
        target = {"targetId": target["targetId"], "flatten": True}
        page = Page(self, self.send("Target.attachToTarget", **target)["sessionId"])
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            page.send(f"{domain}.enable")
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        page.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        page.send("Page.navigate", url=address)
        page.wait("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page


class Page:
    """A page in a browser."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def send(self, method, **params):
        """Calls a function of the protocol for this page."""
        return self.browser.send(method, self.session, **params)

    def run(self, script):
        """The value of an expression in JavaScript; promises are awaited."""
        options = dict(returnByValue=True, awaitPromise=True, userGesture=True)
        answer = self.send("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, seconds=120):
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, (script, self.run("document.body.innerText"))
            time.sleep(0.05)
        return value

    def place(self, selector):
        """The center of an element in the window, after it was scrolled to."""
        script = f"""(() => {{
          const element = document.querySelector({json.dumps(selector)});
          element.scrollIntoView({{ block: "nearest", behavior: "instant" }});
          const box = element.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        return self.run(script)

    def mouse(self, kind, x, y, buttons=0):
        """An event of the mouse: 'mousePressed', 'mouseMoved' or 'mouseReleased'."""
        more = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=buttons, **more)

    def click(self, selector):
        """Clicks an element with the mouse."""
        x, y = self.place(selector)
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y)

    def drag(self, *selectors):
        """Drags the mouse over elements, which are in the window together."""
        places = [self.place(selector) for selector in selectors]
        places = [self.place(selector) for selector in selectors]  # none of them scrolls any more
        self.mouse("mousePressed", *places[0], 1)
        for x, y in places[1:]:
            self.mouse("mouseMoved", x, y, 1)
        self.mouse("mouseReleased", *places[-1])

    def key(self, name, text=""):
        """Presses a key, e.g. 'ArrowRight', or ' ' with its text."""
        code = {" ": ("Space", 32), "ArrowRight": ("ArrowRight", 39), "End": ("End", 35)}
        code |= {"ArrowDown": ("ArrowDown", 40), "Home": ("Home", 36), "Tab": ("Tab", 9)}
        known = dict(key=name, code=code[name][0], windowsVirtualKeyCode=code[name][1])
        self.send(
            "Input.dispatchKeyEvent", type="keyDown", **known, **({"text": text} if text else {})
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", **known)

    def upload(self, selector, path):
        """Chooses a file for an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, path):
        """Writes a PNG of the whole page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = dict(x=0, y=0, width=size["width"], height=size["height"], scale=1)
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def requests(self):
        """Addresses of the requests of this page."""
        self.run("1")  # collects the events so far
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("method") == "Network.requestWillBeSent"
            and event.get("sessionId") == self.session
        ]

    def complaints(self):
        """Errors in the console of this page."""
        self.run("1")
        events = [event for event in self.browser.events if event.get("sessionId") == self.session]
        logged = [one["params"]["entry"] for one in events if one["method"] == "Log.entryAdded"]
        thrown = [one["params"] for one in events if one["method"] == "Runtime.exceptionThrown"]
        return thrown + [entry for entry in logged if entry["level"] == "error"]
