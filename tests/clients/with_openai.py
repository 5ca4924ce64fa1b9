"""The client `openai` of Python."""

import asyncio
import base64
import json
import struct

import openai
from checks import *
from openai import AsyncOpenAI, OpenAI

print(f"openai {openai.__version__}")
client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=60)
create = lambda **more: client.embeddings.create(**{"model": MODEL, "input": TEXTS, **more})
embeddings = lambda answer: [item.embedding for item in answer.data]


@check("one text")
def _():
    answer = create(input=TEXTS[0])
    same(embeddings(answer), vectors(TEXTS[:1]))
    assert (answer.object, answer.model, answer.data[0].object) == ("list", MODEL, "embedding"), answer.model
    assert answer._request_id


@check("texts, in their order")
def _():
    answer = create()
    same(embeddings(answer), vectors(TEXTS))
    assert [item.index for item in answer.data] == [0, 1, 2]


@check("usage is the tokens that the model read")
def _():
    read = sum(len(tokens(text, prompt_name="document")) for text in TEXTS)
    usage = create().usage
    assert (usage.prompt_tokens, usage.total_tokens) == (read, read), (usage, read)


@check("encoding_format float and base64")
def _():
    same(embeddings(create(encoding_format="float")), vectors(TEXTS))
    coded = [base64.b64decode(text) for text in embeddings(create(encoding_format="base64"))]
    same([struct.unpack(f"<{DIM}f", data) for data in coded], vectors(TEXTS))


@check("dimensions")
def _():
    short = embeddings(create(dimensions=SHORTER))
    same(short, [unit(vector[:SHORTER]) for vector in vectors(TEXTS)])
    error = raises(openai.BadRequestError, lambda: create(dimensions=DIM + 1))
    assert (error.param, error.code) == ("dimensions", "dimensions_not_supported"), error.body


@check("tokens of the model, one list or several")
def _():
    same(embeddings(create(input=tokens(TEXTS[0]))), plain(TEXTS[:1]))
    same(embeddings(create(input=[tokens(text) for text in TEXTS])), plain(TEXTS))


@check("400: tokens of another tokenizer")
def _():
    error = raises(openai.BadRequestError, lambda: create(input=[[1, 5, 7], [4]]))
    assert (error.status_code, error.param, error.code) == (400, "input", "invalid_input"), error.body


@check("input_type and user")
def _():
    queries = create(user="me", extra_body={"input_type": "query"})
    same(embeddings(queries), ask("/embed", inputs=TEXTS, prompt_name="query", normalize=False))


@check("a text that is cut is told")
def _():
    cut = create(input=[LONG, TEXTS[0]]).data
    assert (cut[0].truncated, hasattr(cut[1], "truncated")) == (True, False), cut


@check("400: no input, too many inputs, an unknown field")
def _():
    for input, code in [("", "invalid_input"), ([], "invalid_input"), (MANY + ["a"], "too_many_inputs")]:
        error = raises(openai.BadRequestError, lambda: create(input=input))
        assert (error.param, error.code, error.type) == ("input", code, "invalid_request_error"), error.body
    error = raises(openai.BadRequestError, lambda: create(extra_body={"surprise": 1}))
    assert error.code == "unknown_field" and "surprise" in error.message, error.body
    error = raises(openai.BadRequestError, lambda: create(model=NO_EMBEDDER))
    assert (error.param, error.code) == ("model", "model_not_supported"), error.body


@check("401: another key")
def _():
    raises(openai.AuthenticationError, lambda: client.with_options(api_key="a" * 20).models.list())


@check("404 and 503: models that are not there")
def _():
    error = raises(openai.NotFoundError, lambda: create(model=UNKNOWN))
    assert (error.param, error.code) == ("model", "model_not_found") and UNKNOWN in error.message, error.body
    error = raises(openai.InternalServerError, lambda: create(model=NOT_INSTALLED))
    assert (error.status_code, error.code) == (503, "model_not_installed"), error.body


@check("404: an address without /v1, a route that is not there")
def _():
    bare = client.with_options(base_url=URL)
    error = raises(openai.NotFoundError, lambda: bare.embeddings.create(model=MODEL, input="a"))
    assert "/v1" in error.message, error
    error = raises(openai.NotFoundError, lambda: client.responses.create(model=MODEL, input="a"))
    assert "/v1/responses" in error.message and error.code == "route_not_found", error


@check("429, tried again when the server says")
def _():
    sent = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    busy = OpenAI(base_url=f"{BUSY_URL}/v1", api_key=KEY, max_retries=1, http_client=http)
    error = raises(openai.RateLimitError, lambda: busy.embeddings.create(model=MODEL, input="a"))
    assert (error.code, error.type, len(sent)) == ("overloaded", "rate_limit_error", 2), (error.body, len(sent))
    assert int(error.response.headers["retry-after-ms"]) > 0


@check("models")
def _():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    raises(openai.NotFoundError, lambda: client.models.retrieve(UNKNOWN))


@check("as many texts as a request may hold")
def _():
    same(embeddings(create(input=MANY)), vectors(MANY))


@check("an answer that is read as it comes")
def _():
    with client.embeddings.with_streaming_response.create(model=MODEL, input=MANY) as answer:
        data = json.loads(b"".join(answer.iter_bytes(1000)))["data"]
    same([struct.unpack(f"<{DIM}f", base64.b64decode(item["embedding"])) for item in data], vectors(MANY))


@check("async: many requests at once")
async def _():
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=60) as many:
        parts = [MANY[at : at + 64] for at in range(0, len(MANY), 64)]
        answers = await asyncio.gather(*(many.embeddings.create(model=MODEL, input=part) for part in parts))
    same([vector for answer in answers for vector in embeddings(answer)], vectors(MANY))


end()
