"""Nothing lost: requests that leave, are cancelled or make no sense, among ones that must be answered right.

CRIA_SOAK=10000 makes it the long run; by default it is short.
"""
import asyncio
import json
import os
import random

import aiohttp
from server import FIXTURES, Server

REQUESTS = int(os.environ.get("CRIA_SOAK", 600))
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
                assert (await answer.json())["choices"][0]["text"] == text
                self.answered += 1
        else:
            async with self.session.post("/v1/completions", json={**body, "stream": True}) as answer:
                payload = (await answer.read()).decode()
            assert payload.endswith("data: [DONE]\n\n")
            pieces = [json.loads(line[6:]) for line in payload.split("\n\n")[:-2]]
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == text
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
    chance = random.Random(4)
    # 40 blocks of 16 tokens for up to 24 sequences of up to 148: blocks run out, sequences are preempted
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", AT_ONCE, "--block-size", 16,
                "--kv-cache-memory", 40 * 16 * 2 * 2 * 32 * 4, name="m") as server:
        expected = [(prompt, server.complete(prompt, max_tokens=40, ignore_eos=True)["choices"][0]["text"])
                    for prompt in prompts_of(chance)]
        asyncio.run(soak(server, 100, chance, expected))  # buffers and arenas reach their size
        server.wait_until_idle()
        before = server.resident_bytes()
        client = asyncio.run(soak(server, REQUESTS, chance, expected))
        metrics = server.wait_until_idle()
        print(f"answered {client.answered}, left {client.left}, refused {client.refused}, "
              f"preempted {metrics['vllm:num_preemptions_total']:.0f}")
        assert client.answered > REQUESTS / 4 and client.left > 0 and client.refused > 0
        assert metrics["vllm:num_preemptions_total"] > 0, "the pool was large enough: the test shows too little"
        assert server.resident_bytes() - before < 8 << 20
        assert server.stop() == 0
