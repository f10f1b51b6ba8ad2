"""When a request may go to the server: the memory policies that paged KV blocks replaced, played by the client.

The server pages its KV cache in any case. Here a request is held back until what the policy would reserve for it fits
into the pool, in order of arrival, so that one engine is measured under the policies of Orca (OSDI'22) as the paper on
paged attention (SOSP'23) compares them. Its latency counts from when it was due.
"""

import asyncio

POLICIES = ("none", "static", "maximum", "power2", "oracle")


def reserved(policy, request, longest):
    """Tokens of KV memory that the policy keeps for a request from its start to its end."""
    if policy == "oracle":
        return request.prompt_tokens + request.output_tokens
    if policy == "power2":
        return min(longest, request.prompt_tokens + (1 << (request.output_tokens - 1).bit_length()))
    return longest


class Gate:
    """`static`: as many requests as fit go together, the next ones when the last of them has ended."""

    def __init__(self, policy, pool, longest):
        self.policy, self.pool, self.longest = policy, pool, longest
        self.used, self.inside, self.closed, self.waiting = 0, 0, False, []

    def admit(self):
        while self.waiting and not self.closed:
            request, turn = self.waiting[0]
            need = reserved(self.policy, request, self.longest)
            if self.inside and self.used + need > self.pool:
                self.closed = self.policy == "static"
                return
            self.waiting.pop(0)
            self.used += need
            self.inside += 1
            turn.set_result(None)

    async def enter(self, request):
        if self.policy == "none":
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((request, turn))
        if self.policy != "static" or not self.inside:
            # a batch is made of what has come by the time the loop is free: of all that are due together
            asyncio.get_running_loop().call_soon(self.admit)
        await turn

    def leave(self, request):
        if self.policy == "none":
            return
        self.used -= reserved(self.policy, request, self.longest)
        self.inside -= 1
        if self.policy != "static" or not self.inside:
            self.closed = False
            self.admit()
