"""The load generator against a fake server whose every token comes at a known moment of a clock that both share.

The event loop's clock is virtual: it jumps to the next timer whenever no socket has anything to say. A second of traffic
takes a millisecond and every latency comes out exactly.
"""

import asyncio
import json
import pathlib
import selectors
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench/load"))

import admission  # noqa: E402
import client  # noqa: E402
import schedule  # noqa: E402
import summary  # noqa: E402


class VirtualSelector(selectors.DefaultSelector):
    """Waiting moves the clock instead, once the sockets have been silent for a moment of real time."""

    now = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            events = super().select(0.02)
            if not events and timeout is not None:
                self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self):
        return self.virtual.now


def event(text):
    return {"choices": [{"index": 0, "text": text}]}


class FakeServer:
    """Answers each request by plan(number, body): a list of (delay in seconds, event), or an HTTP status."""

    def __init__(self, plan, chunked=True):
        self.plan, self.chunked, self.bodies = plan, chunked, []

    async def handle(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        steps = self.plan(len(self.bodies) - 1, body)
        if isinstance(steps, int):
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\n{}" % steps)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if self.chunked else b"\r\n"))
            for delay, what in steps:
                await asyncio.sleep(delay)
                text = b"data: " + (json.dumps(what).encode() if what else b"[DONE]") + b"\n\n"
                writer.write(b"%x\r\n%s\r\n" % (len(text), text) if self.chunked else text)
            if self.chunked:
                writer.write(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()


def exchange(server, requests, timeout=100, gate=None):
    loop = VirtualLoop()

    async def main():
        listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        outcomes = await client.run(client.Target(f"http://127.0.0.1:{port}", "toy"), requests, timeout, gate=gate)
        listener.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return outcomes

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def request(arrival, output=3):
    return client.Request(arrival, [1, 2, 3], 3, output)


def steady(first, gap, count):
    """A first token after `first`, further ones `gap` apart, then the usage."""
    usage = {"choices": [], "usage": {"completion_tokens": count, "prompt_tokens": 3}}
    return [(first, event("a"))] + [(gap, event("b"))] * (count - 1) + [(0, usage), (0, None)]


class Load(unittest.TestCase):
    def near(self, value, expected):
        self.assertAlmostEqual(value, expected, places=9)

    def test_latencies_are_those_of_the_server(self):
        for chunked in (True, False):
            outcomes = exchange(FakeServer(lambda i, body: steady(0.25 * (i + 1), 0.1, 3), chunked), [request(0.0), request(5.0)])
            report = summary.summarise(outcomes, 1, {})
            self.assertEqual((report["requests"], report["failed"], report["output_tokens"]), (2, 0, 6))
            self.near(report["ttft"]["p50"], 0.375)
            self.near(report["ttft"]["max"], 0.5)
            self.near(report["ttft"]["p90"], 0.25 + 0.9 * 0.25)
            self.near(report["inter_token"]["p50"], 0.1)
            self.near(report["end_to_end"]["max"], 0.7)
            self.near(report["duration"], 5.7)
            self.near(report["output_tokens_per_second"], 6 / 5.7)

    def test_the_loop_is_open_a_slow_answer_delays_no_other_request(self):
        outcomes = exchange(FakeServer(lambda i, body: steady(100.0 if i == 0 else 1.0, 0.5, 2)), [request(0.0), request(1.0)], 1000)
        self.near(outcomes[1].chunks[0] - outcomes[1].arrival, 1.0)
        self.near(outcomes[0].end - outcomes[0].arrival, 100.5)

    def ends_under(self, policy, outputs, pool):
        """When each of some requests of 3 prompt tokens ends that are due together; a token takes a second."""
        plans = {output: steady(1.0, 1.0, output) for output in outputs}
        server = FakeServer(lambda i, body: plans[body["max_tokens"]])
        outcomes = exchange(server, [request(0.0, output) for output in outputs], gate=admission.Gate(policy, pool, 20))
        return [round(outcome.end - outcome.arrival, 6) for outcome in outcomes]

    def test_each_memory_policy_lets_in_what_its_reservation_fits(self):
        outputs = [2, 5, 3, 5]
        self.assertEqual(self.ends_under("none", outputs, 40), [2, 5, 3, 5])
        # two at a time: the third goes when the first has ended, or, in a static batch, when the second has too
        self.assertEqual(self.ends_under("maximum", outputs, 40), [2, 5, 5, 10])
        self.assertEqual(self.ends_under("static", outputs, 40), [2, 5, 8, 10])
        # 3 + 2, 3 + 8, 3 + 4, 3 + 8 against 3 + 2, 3 + 5, 3 + 3, 3 + 5
        self.assertEqual(self.ends_under("power2", outputs, 23), [2, 5, 3, 8])
        self.assertEqual(self.ends_under("oracle", outputs, 27), [2, 5, 3, 5])
        self.assertEqual(self.ends_under("oracle", outputs, 26), [2, 5, 3, 7])

    def test_goodput_counts_what_kept_all_limits(self):
        plans = [steady(0.1, 0.01, 3), steady(0.9, 0.01, 3), steady(0.1, 0.2, 3)]
        outcomes = exchange(FakeServer(lambda i, body: plans[i]), [request(0.0), request(10.0), request(20.0)])
        good = lambda **limits: summary.summarise(outcomes, 1, limits)["good"]
        self.assertEqual((good(), good(ttft=0.5), good(tpot=0.1), good(ttft=0.5, tpot=0.1), good(e2e=0.3)), (3, 2, 2, 1, 1))

    def test_failures_are_counted_by_kind_and_never_as_fast_answers(self):
        plans = [503, [(0.1, {"error": {"message": "broken"}})], [(0.2, None)], steady(0.5, 0.1, 2), steady(50.0, 0.1, 2)]
        outcomes = exchange(FakeServer(lambda i, body: plans[i]), [request(10.0 * i) for i in range(5)], timeout=5)
        report = summary.summarise(outcomes, 1, {})
        self.assertEqual(report["failed"], 4)
        self.near(report["ttft"]["max"], 0.5)
        self.assertEqual(len(report["errors"]), 4)
        self.assertIn("ValueError: HTTP 503", report["errors"])

    def test_a_piece_with_two_events_gives_two_tokens_and_the_usage_gives_the_count(self):
        usage = {"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 3}}
        plan = [(1.0, event("a")), (0, event("b")), (0.5, event("")), (0.5, event("c")), (0, usage), (0, None)]
        outcome, = exchange(FakeServer(lambda i, body: plan), [request(0.0)])
        self.assertEqual((len(outcome.chunks), outcome.output_tokens), (3, 7))
        self.near(outcome.chunks[2] - outcome.chunks[0], 1.0)

    def test_requests_ask_for_a_stream_of_exactly_so_many_tokens(self):
        server = FakeServer(lambda i, body: steady(0.1, 0.1, 2))
        exchange(server, [request(0.0, output=17)])
        body = server.bodies[0]
        self.assertEqual((body["max_tokens"], body["stream"], body["ignore_eos"], body["prompt"]), (17, True, True, [1, 2, 3]))

    def test_percentiles_interpolate_between_ranks(self):
        self.assertEqual([summary.percentile([4, 1, 3, 2], p) for p in (0, 50, 100)], [1, 2.5, 4])
        self.near(summary.percentile(list(range(101)), 99), 99)
        self.assertIsNone(summary.percentile([], 50))

    def test_poisson_arrivals_have_the_rate_and_are_the_same_again(self):
        times = schedule.arrivals("poisson", 4.0, 4000, 7)
        self.assertEqual(times, schedule.arrivals("poisson", 4.0, 4000, 7))
        gaps = [b - a for a, b in zip(times, times[1:])]
        mean = sum(gaps) / len(gaps)
        self.assertAlmostEqual(mean, 0.25, delta=0.02)
        deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
        self.assertAlmostEqual(deviation, mean, delta=0.03)  # an exponential's deviation is its mean
        self.assertEqual(schedule.arrivals("even", 2.0, 3, 0), [0, 0.5, 1])
        self.assertEqual(schedule.arrivals("poisson", float("inf"), 2, 0), [0, 0])


if __name__ == "__main__":
    unittest.main()
