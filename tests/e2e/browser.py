"""Headless Chromium, driven over its DevTools protocol with aiohttp alone."""
import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab. Every method is a coroutine."""

    def __init__(self, socket):
        self.socket, self.ids, self.waiting = socket, itertools.count(1), {}
        self.requests, self.sent, self.complaints = [], [], []  # addresses asked for, bodies posted, exceptions
        self.reader = asyncio.ensure_future(self.read())

    async def read(self):
        async for message in self.socket:
            event = json.loads(message.data)
            if "id" in event:
                self.waiting.pop(event["id"]).set_result(event)
            elif event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
                self.sent.append(event["params"]["request"].get("postData"))
            elif event["method"] == "Runtime.exceptionThrown":
                self.complaints.append(event["params"]["exceptionDetails"].get("exception", {}).get("description"))

    async def call(self, method, **parameters):
        number = next(self.ids)
        self.waiting[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self.waiting[number], 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url):
        for domain in ("Page", "Runtime", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    async def run(self, script):
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, condition, seconds=30):
        """Waits until the script's value is true; returns it."""
        end = time.monotonic() + seconds
        while not (value := await self.run(condition)):
            assert time.monotonic() < end, f"never came true: {condition}"
            await asyncio.sleep(0.01)
        return value

    async def picture(self, path):
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def page():
    """A tab in a Chromium of its own, which ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--window-size=1100,900", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr:
                if line.startswith("DevTools listening on "):
                    break
            else:
                raise RuntimeError("Chromium ended before it listened")
            port = line.split("/")[2].rpartition(":")[2]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(t for t in await answer.json() if t["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    one = Page(socket)
                    yield one
                    one.reader.cancel()
        finally:
            process.terminate()
            process.wait(10)
            process.stderr.close()
