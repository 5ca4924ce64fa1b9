"""The `InferenceClient` of Python's `huggingface-hub`, as it asks text-embeddings-inference."""

import asyncio

import huggingface_hub
import numpy
from checks import *
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

print(f"huggingface-hub {huggingface_hub.__version__}")
client = InferenceClient(f"{URL}/embed", token=KEY, timeout=60)
embed = client.feature_extraction


def refused(status, call, words=""):
    error = raises(HfHubHTTPError, call)
    assert error.response.status_code == status and words in str(error), (error.response.status_code, str(error))


@check("one text")
def _():
    one = embed(TEXTS[0])
    assert (one.shape, one.dtype) == ((1, DIM), numpy.float32), (one.shape, one.dtype)
    same(one, map(unit, plain(TEXTS[:1])))


@check("texts, in their order")
def _():
    same(embed(TEXTS), map(unit, plain(TEXTS)))


@check("the server's address alone")
def _():
    same(InferenceClient(URL, token=KEY).feature_extraction(TEXTS), embed(TEXTS))
    same(InferenceClient(base_url=f"{URL}/embed", api_key=KEY).feature_extraction(TEXTS), embed(TEXTS))
    same(InferenceClient(token=KEY).feature_extraction(TEXTS, model=f"{URL}/embed"), embed(TEXTS))


@check("the server's model and health")
def _():
    server = InferenceClient(URL, provider="hf-inference", token=KEY)
    info = server.get_endpoint_info()
    assert (info["model_id"], info["max_client_batch_size"]) == (MODEL, len(MANY)), info
    assert server.health_check() is True


@check("normalize")
def _():
    same(embed(TEXTS, normalize=True), map(unit, plain(TEXTS)))
    same(embed(TEXTS, normalize=False), plain(TEXTS))


@check("prompt_name")
def _():
    same(embed(TEXTS, prompt_name="document", normalize=False), vectors(TEXTS))
    same(embed(TEXTS, prompt_name="query", normalize=False), vectors(TEXTS, input_type="query"))
    refused(422, lambda: embed(TEXTS, prompt_name="s2p"), "prompt_name")


@check("dimensions")
def _():
    same(embed(TEXTS, dimensions=SHORTER), [unit(vector[:SHORTER]) for vector in plain(TEXTS)])
    refused(422, lambda: embed(TEXTS, dimensions=DIM + 1), "dimensions")


@check("encoding_format, which this wire does not have, changes nothing")
def _():
    same(embed(TEXTS, encoding_format="float"), embed(TEXTS))
    same(embed(TEXTS, encoding_format="base64"), embed(TEXTS))


@check("truncate and truncation_direction")
def _():
    same(embed(TEXTS, truncate=False, truncation_direction="left"), embed(TEXTS))
    same(embed(LONG, truncate=True, truncation_direction="right"), embed(LONG))
    refused(422, lambda: embed(LONG, truncate=False), "tokens")
    refused(422, lambda: embed(LONG, truncate=True, truncation_direction="left"), "left")


@check("many texts")
def _():
    same(embed(MANY), map(unit, plain(MANY)))
    refused(413, lambda: embed(MANY + ["a"]))


@check("422: no text")
def _():
    refused(422, lambda: embed(""))
    refused(422, lambda: embed([]))


@check("401: another key")
def _():
    refused(401, lambda: InferenceClient(f"{URL}/embed", token="a" * 20).feature_extraction(TEXTS))


@check("404: no such route")
def _():
    refused(404, lambda: client.sentence_similarity("a", TEXTS, model=f"{URL}/similarity"), "no route")


@check("429: no place")
def _():
    refused(429, lambda: client.feature_extraction(TEXTS, model=f"{BUSY_URL}/embed"))


@check("async: many requests at once")
async def _():
    async with AsyncInferenceClient(f"{URL}/embed", token=KEY, timeout=60) as many:
        parts = [MANY[at : at + 64] for at in range(0, len(MANY), 64)]
        answers = await asyncio.gather(*map(many.feature_extraction, parts))
    same(numpy.concatenate(answers), map(unit, plain(MANY)))


end()
