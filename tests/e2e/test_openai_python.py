"""The unmodified openai-python client: completions, chat, streams, async, many at once, errors."""
import asyncio

import openai
import pytest
from conftest import DEFAULT_MODEL
from server import FIXTURES, RANKS, Server

PROMPT = "The herd grazes on the high plain"


def client_of(server, key="unused", kind=openai.OpenAI):
    return kind(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(params=["opt", "llama"])
def server(request):
    return request.getfixturevalue(request.param)


def test_a_completion_has_text_usage_and_a_finish_reason(server):
    answer = client_of(server).completions.create(model=server.name, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.object == "text_completion" and answer.model == server.name and answer.id.startswith("cmpl-")
    assert [choice.index for choice in answer.choices] == [0]
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 12


def test_a_stream_says_the_same_as_the_whole_answer(server):
    client = client_of(server)
    asked = dict(model=server.name, prompt=PROMPT, max_tokens=40, temperature=0)
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1


def test_several_prompts_and_choices_come_back_in_order(server):
    client = client_of(server)
    answer = client.completions.create(model=server.name, prompt=["One", "Two", "Three"], n=2, seed=5, max_tokens=6)
    assert [choice.index for choice in answer.choices] == list(range(6))
    alone = client.completions.create(model=server.name, prompt="Two", n=2, seed=5, max_tokens=6)
    assert alone.usage.completion_tokens <= 12


def test_a_seed_gives_the_same_text_whatever_else_runs(server):
    client = client_of(server)
    asked = dict(model=server.name, prompt=PROMPT, max_tokens=24, temperature=1.0, seed=11)
    first = client.completions.create(**asked).choices[0].text

    async def among_others():
        others = client_of(server, kind=openai.AsyncOpenAI)
        requests = [others.completions.create(model=server.name, prompt=f"other {i}", max_tokens=30, temperature=0.9)
                    for i in range(8)]
        mine = others.completions.create(**asked)
        return (await asyncio.gather(mine, *requests))[0].choices[0].text

    assert asyncio.run(among_others()) == first
    assert client.completions.create(**{**asked, "seed": 12}).choices[0].text != first


def test_many_at_once_get_bit_for_bit_what_each_gets_alone(server):
    prompts = [PROMPT[:length] for length in range(3, len(PROMPT))]
    asked = dict(model=server.name, max_tokens=24, temperature=0, logprobs=3)
    client = client_of(server)
    alone = [client.completions.create(prompt=prompt, **asked).choices[0] for prompt in prompts]

    async def together():
        many = client_of(server, kind=openai.AsyncOpenAI)
        return await asyncio.gather(*[many.completions.create(prompt=prompt, **asked) for prompt in prompts])

    for one, answer in zip(alone, asyncio.run(together())):
        assert answer.choices[0].text == one.text
        assert answer.choices[0].logprobs == one.logprobs


def test_async_streams_run_side_by_side(server):
    async def stream(client, prompt):
        pieces = []
        async for chunk in await client.completions.create(model=server.name, prompt=prompt, max_tokens=20,
                                                           temperature=0, stream=True):
            pieces.append(chunk.choices[0].text)
        return "".join(pieces)

    async def both():
        client = client_of(server, kind=openai.AsyncOpenAI)
        return await asyncio.gather(*[stream(client, f"Prompt {i}") for i in range(12)])

    texts = asyncio.run(both())
    assert texts == [server.complete(f"Prompt {i}", max_tokens=20)["choices"][0]["text"] for i in range(12)]


def test_echo_with_logprobs_cuts_the_text_at_its_offsets(server):
    answer = client_of(server).completions.create(model=server.name, prompt=PROMPT, max_tokens=4, temperature=0,
                                                  echo=True, logprobs=1)
    choice = answer.choices[0]
    values = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert len(values.tokens) == len(values.token_logprobs) == len(values.top_logprobs) == len(values.text_offset)
    assert len(values.tokens) == answer.usage.total_tokens
    assert values.token_logprobs[0] is None and values.top_logprobs[0] is None
    assert all(v <= 0 for v in values.token_logprobs[1:])
    assert values.text_offset == sorted(values.text_offset) and values.text_offset[-1] <= len(choice.text)


def test_chat_answers_and_streams_the_same(llama):
    client = client_of(llama)
    asked = dict(model=llama.name, messages=[{"role": "user", "content": "Where is the white one?"}], max_tokens=20,
                 temperature=0)
    whole = client.chat.completions.create(**asked)
    assert whole.object == "chat.completion" and whole.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content


def test_chat_logprobs_name_every_token(llama):
    answer = client_of(llama).chat.completions.create(
        model=llama.name, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, temperature=0, logprobs=True,
        top_logprobs=4)
    for entry in answer.choices[0].logprobs.content:
        assert len(entry.top_logprobs) == 4
        assert entry.logprob == pytest.approx(max(top.logprob for top in entry.top_logprobs))


def test_chat_without_a_template_is_an_error_on_that_route_only(opt):
    with pytest.raises(openai.BadRequestError):
        client_of(opt).chat.completions.create(model=opt.name, messages=[{"role": "user", "content": "Hi"}])
    assert opt.complete("Hi")["choices"]


def test_models_are_listed(server):
    assert [model.id for model in client_of(server).models.list()] == [server.name]


def test_errors_have_the_classes_that_clients_catch(server):
    client = client_of(server)
    with pytest.raises(openai.NotFoundError) as wrong_model:
        client.completions.create(model="no-such-model", prompt=PROMPT)
    assert wrong_model.value.status_code == 404 and wrong_model.value.param == "model"
    with pytest.raises(openai.BadRequestError) as bad_value:
        client.completions.create(model=server.name, prompt=PROMPT, temperature=-1)
    assert bad_value.value.param == "temperature"


def test_a_stream_that_the_client_leaves_frees_everything(server):
    client = client_of(server)
    for _ in range(5):
        stream = client.completions.create(model=server.name, prompt=PROMPT, max_tokens=300, temperature=0,
                                           stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    server.wait_until_idle()


def test_a_key_is_asked_for_on_every_route_but_the_health_checks():
    with Server(FIXTURES / "models" / "llama-bf16-text", "--api-key", "secret", name="m") as server:
        with pytest.raises(openai.AuthenticationError):
            client_of(server, key="wrong").models.list()
        assert [model.id for model in client_of(server, key="secret").models.list()] == ["m"]
        for route in ("/v1/completions", "/v1/models", "/metrics", "/tokenize", "/v1/../v1/models", "/V1/models"):
            assert server.request("GET", route).status == 401, route
        assert server.request("GET", "/health").status == 200


def asks_for_the_capital(server):
    answer = client_of(server).chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=30,
        temperature=0)
    return answer.choices[0].message.content


def test_the_default_model_knows_the_capital_of_france(smol):
    assert "Paris" in asks_for_the_capital(smol)


@pytest.mark.skipif(bool(RANKS), reason="the same kernels")
@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512vnni"])
def test_older_processors_find_it_too(isa):
    """Each has activations of its own for 4-bit weights (kernels/kernels.c), and the first token is nearly tied."""
    if not DEFAULT_MODEL.exists():
        pytest.skip(f"{DEFAULT_MODEL} is not there: ./run model")
    try:
        with Server(DEFAULT_MODEL, "--isa", isa, name="smol") as server:
            assert "Paris" in asks_for_the_capital(server)
    except RuntimeError as error:
        if f"this CPU has no {isa}" not in str(error):
            raise
        pytest.skip(f"this CPU has no {isa}")
