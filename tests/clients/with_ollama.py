"""The client `ollama` of Python."""

import asyncio
from importlib.metadata import version

import ollama
from checks import *
from ollama import AsyncClient, Client, ResponseError

print(f"ollama {version('ollama')}")
headers = {"authorization": f"Bearer {KEY}"}
client = Client(host=URL, headers=headers, timeout=60)
embed = lambda **more: client.embed(**{"model": MODEL, "input": TEXTS, **more})


def refused(status, call, words=""):
    error = raises(ResponseError, call)
    assert error.status_code == status and words in error.error, (error.status_code, error.error)
    assert "{" not in error.error, f"the client found no sentence in {error.error}"


@check("one text")
def _():
    one = embed(input=TEXTS[0])
    same(one.embeddings, map(unit, plain(TEXTS[:1])))
    assert one.model == MODEL and one["model"] == MODEL


@check("texts, in their order")
def _():
    same(embed().embeddings, map(unit, plain(TEXTS)))


@check("counts and times")
def _():
    answer = embed()
    assert answer.prompt_eval_count == sum(len(tokens(text)) for text in TEXTS), answer.prompt_eval_count
    assert answer.total_duration >= answer.load_duration >= 0


@check("names of models as Ollama writes them")
def _():
    same(embed(model=f"{MODEL}:latest").embeddings, embed().embeddings)
    refused(503, lambda: embed(model="All-MiniLM:33m"), "all-MiniLM-L12-v2")


@check("options and keep_alive are taken")
def _():
    same(embed(options={"num_ctx": 512}, keep_alive="5m").embeddings, embed().embeddings)


@check("no text is no error")
def _():
    assert embed(input=[]).embeddings == [] and embed(input="").embeddings == []


@check("dimensions")
def _():
    same(embed(dimensions=SHORTER).embeddings, [unit(vector[:SHORTER]) for vector in plain(TEXTS)])
    refused(400, lambda: embed(dimensions=DIM + 1), "dimensions")


@check("truncate")
def _():
    same(embed(input=LONG, truncate=True).embeddings, embed(input=LONG).embeddings)
    refused(400, lambda: embed(input=LONG, truncate=False), "tokens")


@check("embeddings, the older call")
def _():
    same([client.embeddings(model=MODEL, prompt=TEXTS[0]).embedding], plain(TEXTS[:1]))


@check("list")
def _():
    model = next(model for model in client.list().models if model.model == MODEL)
    assert model.size > 0 and model.modified_at and model.details.format == "safetensors", model


@check("400, 401, 404, 503, 429")
def _():
    refused(400, lambda: embed(model=NO_EMBEDDER), "cross-encoder")
    refused(401, lambda: Client(host=URL).embed(model=MODEL, input="a"), "key")
    refused(404, lambda: embed(model=UNKNOWN), UNKNOWN)
    refused(503, lambda: embed(model="nomic-embed-text"), "nomic")
    refused(429, lambda: Client(host=BUSY_URL, headers=headers).embed(model=MODEL, input="a"))


@check("many texts")
def _():
    same(embed(input=MANY).embeddings, map(unit, plain(MANY)))


@check("async: many requests at once")
async def _():
    many = AsyncClient(host=URL, headers=headers, timeout=60)
    parts = [MANY[at : at + 64] for at in range(0, len(MANY), 64)]
    answers = await asyncio.gather(*(many.embed(model=MODEL, input=part) for part in parts))
    same([vector for answer in answers for vector in answer.embeddings], map(unit, plain(MANY)))


end()
