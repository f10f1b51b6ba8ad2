"""The page at `/`, used as a person uses it, in headless Chromium. CRIA_PICTURES=FOLDER keeps pictures of what it looked like."""
import asyncio
import json
import os
import pathlib
import re
import time

import browser
import pytest

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
PICTURES = os.environ.get("CRIA_PICTURES")

# Every state of the newest answer, as it was drawn.
WATCH = """
window.states = [];
new MutationObserver(() => {
  const last = [...document.querySelectorAll(".turn.model span")].pop();
  if (last && last.textContent !== states[states.length - 1]) states.push(last.textContent);
}).observe(document.getElementById("output"), {childList: true, subtree: true, characterData: true});
"""
ANSWER = "[...document.querySelectorAll('.turn.model span')].pop()?.textContent"
IDLE = "!document.getElementById('send').disabled"


def drive(server, steps):
    """Runs steps(tab) on a freshly opened page; afterwards nothing may have gone wrong or been asked of another server."""
    async def run():
        async with browser.page() as tab:
            await tab.open(server.url + "/")
            await tab.until("document.getElementById('model').textContent.includes('tokens')")
            await tab.run(WATCH)
            await steps(tab)
            assert tab.complaints == []
            assert all(url.startswith((server.url, "data:")) for url in tab.requests), tab.requests

    asyncio.run(run())


async def choose(tab, **values):
    for name, value in values.items():
        await tab.run(f"document.getElementById('{name}').value = {json.dumps(value)};"
                      f"document.getElementById('{name}').dispatchEvent(new Event('change'))")


async def type_and_send(tab, text):
    """Through the keyboard's way: focus, the text, the button."""
    await tab.run("document.getElementById('prompt').focus()")
    await tab.call("Input.insertText", text=text)
    await tab.run("document.getElementById('send').click()")


async def keep(tab, name):
    if PICTURES:
        await tab.picture(pathlib.Path(PICTURES) / f"{name}.png")


def test_a_chat_answer_appears_with_its_rate(smol):
    async def steps(tab):
        await choose(tab, temperature="0", max_tokens="40")
        await type_and_send(tab, "What is the capital of France?")
        await tab.until(f"({ANSWER} ?? '').length > 10")
        await keep(tab, "while-it-comes")
        await tab.until(IDLE)
        answer, states = await tab.run(ANSWER), [s for s in await tab.run("states") if s]
        assert "Paris" in answer
        assert states[-1] == answer
        assert all(later.startswith(earlier) for earlier, later in zip(states, states[1:]))
        rate = await tab.run("document.getElementById('rate').textContent")
        found = re.fullmatch(r"(\d+) tokens · ([\d.]+) tokens/s · first after (\d+) ms · (stop|length)", rate)
        assert found and 4 < int(found[1]) <= 40 and float(found[2]) > 0, rate
        assert await tab.run("document.getElementById('prompt').value") == ""

        # The second turn is asked with the first: the model can only know "it" from there.
        await type_and_send(tab, "Which country is it in?")
        await tab.until(f"document.querySelectorAll('.turn').length === 4 && {IDLE}")
        assert "France" in await tab.run(ANSWER)
        await keep(tab, "chat")

    drive(smol, steps)


def test_enter_sends_and_shift_enter_breaks_the_line(smol):
    async def steps(tab):
        await choose(tab, max_tokens="2")
        await tab.run("document.getElementById('prompt').focus()")
        await tab.call("Input.insertText", text="Hello")
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        await tab.call("Input.dispatchKeyEvent", type="keyDown", modifiers=8, **key)
        assert await tab.run("document.getElementById('prompt').value") == "Hello\n"
        await tab.call("Input.dispatchKeyEvent", type="keyDown", **key)
        await tab.until(f"document.querySelectorAll('.turn').length === 2 && {IDLE}")

    drive(smol, steps)


def test_text_appears_as_it_comes_and_stop_keeps_it_and_ends_the_request_on_the_server(smol):
    before = smol.wait_until_idle()

    async def steps(tab):
        await choose(tab, mode="prompt", temperature="0", max_tokens="1500", repetition_penalty="1.3")
        await type_and_send(tab, "A very long story: once upon a time")
        # A browser may draw several tokens at once, but not the beginning of 1,500 five times.
        await tab.until(f"states.filter(state => state).length > 4 && ({ANSWER} ?? '').length > 20")
        await tab.run("document.getElementById('stop').click()")
        await tab.until(IDLE)
        after = smol.wait_until_idle()
        made = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
        assert 0 < made < 1000, made
        answer = await tab.run(ANSWER)
        assert len(answer) > 20 and not await tab.run("!!document.querySelector('.turn.error')")
        assert "stopped" in await tab.run("document.getElementById('rate').textContent")
        await keep(tab, "stopped")
        await asyncio.sleep(0.2)
        assert await tab.run(ANSWER) == answer

    start = time.monotonic()
    drive(smol, steps)
    assert time.monotonic() - start < 60


def test_clear_starts_another_talk_even_while_an_answer_comes(smol):
    async def steps(tab):
        await choose(tab, temperature="0", max_tokens="1500")
        await type_and_send(tab, "Tell a very long story about a dog.")
        await tab.until(f"({ANSWER} ?? '').length > 20")
        await tab.run("document.getElementById('clear').click()")
        await tab.until(IDLE)
        assert await tab.run("document.getElementById('rate').textContent") == ""
        await choose(tab, max_tokens="2", system="Be brief.")
        await type_and_send(tab, "Hello")
        await tab.until(f"document.querySelectorAll('.turn').length === 2 && {IDLE}")
        assert json.loads(tab.sent[-1])["messages"] == [{"role": "system", "content": "Be brief."},
                                                        {"role": "user", "content": "Hello"}]
        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        await keep(tab, "phone")

    drive(smol, steps)


def test_completion_mode_continues_a_text_with_the_parameters_of_the_form(opt):
    asked = dict(prompt="The herd", max_tokens=30, temperature=0.8, top_p=0.9, top_k=50, repetition_penalty=1.1, seed=7)

    async def steps(tab):
        await choose(tab, mode="prompt", **{key: str(value) for key, value in asked.items() if key != "prompt"})
        await type_and_send(tab, asked["prompt"])
        await tab.until(f"document.querySelectorAll('.turn').length === 2 && {IDLE}")
        assert await tab.run(ANSWER) == opt.complete(**asked)["choices"][0]["text"]
        assert await tab.run("document.getElementById('prompt').value") == asked["prompt"]
        await tab.run("document.getElementById('clear').click()")
        assert await tab.run("document.querySelectorAll('.turn').length") == 0

    drive(opt, steps)


def test_what_the_server_refuses_is_shown_and_the_page_goes_on(opt):
    async def steps(tab):
        await type_and_send(tab, "Hello")  # a chat, with a model that has no chat template
        await tab.until("document.querySelector('.turn.error')?.textContent.includes('template')")
        await keep(tab, "error")
        await choose(tab, mode="prompt", max_tokens="100000")
        await type_and_send(tab, "Hello")
        await tab.until("[...document.querySelectorAll('.turn.error')].pop()?.textContent.includes('max_model_len')")
        await choose(tab, max_tokens="5")
        await tab.run("document.getElementById('send').click()")
        await tab.until(f"document.querySelectorAll('.turn').length === 6 && {IDLE}")
        assert not await tab.run("[...document.querySelectorAll('.turn')].pop().classList.contains('error')")

    drive(opt, steps)
