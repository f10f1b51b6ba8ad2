"""Nothing lost: requests that leave, are cancelled or make no sense, among ones that must be answered right.

CRIA_SOAK=10000 makes it the long run, CRIA_SEED another one; by default it is short:

    CRIA_SOAK=10000 build/venv/bin/python -m pytest -s tests/e2e/test_soak.py
"""
import asyncio
import json
import os
import random
import time

import aiohttp
from server import FIXTURES, Server

REQUESTS = int(os.environ.get("CRIA_SOAK", 600))
SEED = int(os.environ.get("CRIA_SEED", 4))
AT_ONCE = 24
NONSENSE = [b"", b"{", b"[]", b'{"prompt": 5}', b'{"prompt": "a", "max_tokens": -3}', b'{"prompt": [-1]}',
            b'{"prompt": "\xff\xfe"}', b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "a", "n": 99999999}',
            b'{"prompt": "a", "stop": [""]}', b"\x00" * 100, b'{"prompt": ' + b"[" * 5000,
            b'{"model": "other", "prompt": "a"}', b'{"prompt": "a", "logit_bias": {"x": 1}}']


def prompts_of(chance):
    """Twenty prompts, several with a long common start, so that blocks are shared, evicted and computed again."""
    common = [chance.randrange(4, 300) for _ in range(48)]
    return [common[:chance.randrange(1, 48)] + [chance.randrange(4, 300) for _ in range(chance.randrange(1, 60))]
            for _ in range(20)]


class Client:
    def __init__(self, server, session, chance, expected):
        self.server, self.session, self.chance, self.expected = server, session, chance, expected
        self.answered = self.left = self.refused = 0

    async def one(self):
        kind = self.chance.random()
        if kind < 0.15:
            async with self.session.post("/v1/completions", data=self.chance.choice(NONSENSE),
                                         headers={"Content-Type": "application/json"}) as answer:
                assert 400 <= answer.status < 500, (answer.status, await answer.text())
                self.refused += 1
            return
        index = self.chance.randrange(len(self.expected))
        prompt, text = self.expected[index]
        body = {"model": "m", "prompt": prompt, "max_tokens": 40, "temperature": 0, "ignore_eos": True}
        if kind < 0.5:
            await self.leave(body)
        elif kind < 0.75:
            async with self.session.post("/v1/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                whole = await answer.json()
            assert whole["choices"][0]["text"] == text and whole["choices"][0]["finish_reason"] == "length"
            assert whole["usage"]["completion_tokens"] == 40 and whole["usage"]["prompt_tokens"] == len(prompt)
            self.answered += 1
        else:
            async with self.session.post("/v1/completions", json={**body, "stream": True}) as answer:
                payload = (await answer.read()).decode()
            assert payload.endswith("data: [DONE]\n\n")
            pieces = [json.loads(line[6:]) for line in payload.split("\n\n")[:-2]]
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == text
            assert pieces[-1]["choices"][0]["finish_reason"] == "length"
            self.answered += 1

    async def leave(self, body):
        """Goes away before the answer, in the middle of it, or while the request is still being sent."""
        body["stream"] = self.chance.random() < 0.5
        try:
            async with asyncio.timeout(self.chance.choice([0.0, 0.001, 0.005, 0.02])):
                async with self.session.post("/v1/completions", json=body) as answer:
                    await answer.content.read(self.chance.randrange(1, 600))
                    answer.close()
        except TimeoutError:
            pass
        self.left += 1


async def soak(server, count, chance, expected):
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        client = Client(server, session, chance, expected)
        remaining = iter(range(count))

        async def worker():
            for _ in remaining:
                await client.one()

        await asyncio.gather(*[worker() for _ in range(AT_ONCE)])
        return client


def test_after_disconnects_cancels_and_nonsense_all_blocks_are_free_and_every_answer_was_right():
    chance = random.Random(SEED)
    # 40 blocks of 16 tokens for up to 24 sequences of up to 148: blocks run out, sequences are preempted
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", AT_ONCE, "--block-size", 16,
                "--kv-cache-memory", 40 * 16 * 2 * 2 * 32 * 2, "--kv-cache-dtype", "bf16", name="m") as server:
        expected = [(prompt, server.complete(prompt, max_tokens=40, ignore_eos=True)["choices"][0]["text"])
                    for prompt in prompts_of(chance)]
        asyncio.run(soak(server, 100, chance, expected))  # buffers and arenas reach their size
        server.wait_until_idle()
        memory, files, start = server.resident_bytes(), server.open_files(), time.monotonic()
        client = asyncio.run(soak(server, REQUESTS, chance, expected))
        seconds = time.monotonic() - start
        metrics = server.wait_until_idle()
        grown = server.resident_bytes() - memory
        print(f"\n{REQUESTS} requests in {seconds:.1f} s: {client.answered} answered and right, {client.left} left, "
              f"{client.refused} refused; {metrics['vllm:num_preemptions_total']:.0f} preemptions; "
              f"resident memory {memory / 1e6:.1f} MB before, {grown / 1e6:+.1f} MB after")
        assert client.answered + client.left + client.refused == REQUESTS
        assert client.answered > REQUESTS / 4 and client.left > 0 and client.refused > 0
        assert metrics["vllm:num_preemptions_total"] > 0, "the pool was large enough: the test shows too little"
        assert grown < 8 << 20
        end = time.monotonic() + 5  # the last connection may still be on its way out
        while server.open_files() > files:
            assert time.monotonic() < end, (server.open_files(), files)
            time.sleep(0.05)
        for prompt, text in expected:  # and it still answers as in the beginning
            assert server.complete(prompt, max_tokens=40, ignore_eos=True)["choices"][0]["text"] == text
        assert server.stop() == 0
