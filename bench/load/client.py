"""One streaming request to an OpenAI server over a bare asyncio connection, and the times at which its tokens came."""

import asyncio
import dataclasses
import json
import urllib.parse


@dataclasses.dataclass
class Target:
    url: str
    model: str
    chat: bool = False
    key: str = ""

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.path = parts.path.rstrip("/") + ("/v1/chat/completions" if self.chat else "/v1/completions")


@dataclasses.dataclass
class Request:
    arrival: float  # seconds after the start of the run
    prompt: object  # token ids or text
    prompt_tokens: int
    output_tokens: int
    extra: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """Times are the loop's, in seconds. `arrival` is when the request was due, so that a late client counts against the
    latency instead of hiding it."""

    arrival: float
    sent: float = 0.0
    chunks: list = dataclasses.field(default_factory=list)  # when each piece of the answer came
    end: float = 0.0
    output_tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""


def body_of(target, request):
    body = {"model": target.model, "max_tokens": request.output_tokens, "temperature": 0, "stream": True, "ignore_eos": True,
            "stream_options": {"include_usage": True}, **request.extra}
    if target.chat:
        body["messages"] = [{"role": "user", "content": request.prompt}]
    else:
        body["prompt"] = request.prompt
    return json.dumps(body).encode()


def head_of(target, length):
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}", "Content-Type: application/json",
             f"Content-Length: {length}", "Accept: text/event-stream", "Connection: close"]
    if target.key:
        lines.append(f"Authorization: Bearer {target.key}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(":", 1) for line in head[1:] if ":" in line)
    return int(head[0].split(" ")[1]), {name: value.strip() for name, value in headers.items()}


async def pieces(reader, headers):
    """The body as it comes: chunked, of a given length, or until the connection ends."""
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        return
    while piece := await reader.read(65536):
        yield piece


def take_event(line, outcome, now):
    """One `data:` line. Only pieces that carry text count as tokens' times; the last one tells how many tokens it was."""
    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
        return
    event = json.loads(line[5:])
    if "error" in event:
        raise ValueError(str(event["error"])[:200])
    if usage := event.get("usage"):
        outcome.output_tokens, outcome.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    for choice in event.get("choices", ()):
        text = choice.get("text") or (choice.get("delta") or {}).get("content")
        if text:
            outcome.chunks.append(now)


async def exchange(target, request, outcome, clock):
    body = body_of(target, request)
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=1 << 20)
    try:
        writer.write(head_of(target, len(body)) + body)
        outcome.sent = clock()
        status, headers = await read_head(reader)
        rest = b""
        async for piece in pieces(reader, headers):
            now, lines = clock(), (rest + piece).split(b"\n")
            rest = lines.pop()
            if status == 200:
                for line in lines:
                    take_event(line, outcome, now)
        if status != 200:
            raise ValueError(f"HTTP {status}")
    finally:
        writer.close()


async def send(target, request, start, timeout, gate=None):
    """Waits until the request is due and the gate lets it in, sends it, and tells what came; never raises for what the
    server does."""
    loop = asyncio.get_running_loop()
    outcome = Outcome(arrival=start + request.arrival)
    await asyncio.sleep(outcome.arrival - loop.time())
    if gate:
        await gate.enter(request)
    try:
        await asyncio.wait_for(exchange(target, request, outcome, loop.time), timeout)
        if not outcome.chunks:
            outcome.error = "no tokens"
    except (OSError, ValueError, KeyError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
        outcome.error = f"{type(error).__name__}: {error}" or type(error).__name__
    finally:
        if gate:
            gate.leave(request)
    outcome.end = outcome.chunks[-1] if outcome.chunks and not outcome.error else loop.time()
    outcome.output_tokens = outcome.output_tokens or len(outcome.chunks)
    return outcome


async def run(target, requests, timeout, done=None, gate=None):
    """All requests, each at its time whatever the others do, except as `gate` (admission.py) holds them back.
    done(outcome) is called as each of them ends."""
    start = asyncio.get_running_loop().time()

    async def one(request):
        outcome = await send(target, request, start, timeout, gate)
        if done:
            done(outcome)
        return outcome

    return await asyncio.gather(*(one(request) for request in requests))
