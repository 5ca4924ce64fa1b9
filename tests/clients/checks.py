"""What the scripts share: the server, its answers without any client, and one line a check."""

import asyncio
import inspect
import json
import math
import os
import sys
import urllib.request

URL = os.environ["PANNIER_URL"]
# A server that has no place for any call: it answers 429.
BUSY_URL = os.environ["PANNIER_BUSY_URL"]
KEY = os.environ["PANNIER_KEY"]
# A model that puts something before queries and documents, does not scale its vectors, and allows 32 numbers of 64.
MODEL = os.environ["PANNIER_MODEL"]
DIM, SHORTER = 64, 32
# A model that is there and embeds nothing, one that is known and not installed, one that nobody knows.
NO_EMBEDDER, NOT_INSTALLED, UNKNOWN = os.environ["PANNIER_OTHER_MODEL"], "gte-small", "no/such-model"

TEXTS = ["c d", "a", "d, c b a"]
# Longer than the model reads.
LONG = "c " * 100
# As many as one request may hold, each another.
MANY = [" ".join("abcd"[n >> shift & 3] for shift in range(0, 12, 2)) for n in range(2048)]

failures = 0


def check(what):
    """Runs a function at once, as one check that passes where it raises nothing."""

    def run(function):
        global failures
        try:
            asyncio.run(function()) if inspect.iscoroutinefunction(function) else function()
            print(f"ok      {what}")
        except Exception as error:
            failures += 1
            print(f"FAILED  {what}: {type(error).__name__}: {error}")

    return run


def end():
    """Ends the process, with an error where a check failed."""
    sys.exit(1 if failures else 0)


def raises(kind, call):
    """The error of a call, which must be of this kind."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {answer!r:.200}")


def ask(path, **body):
    """Posts JSON without any client."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def vectors(texts, **more):
    """The server's own vectors: the model's, of documents."""
    return [item["embedding"] for item in ask("/v1/embeddings", model=MODEL, input=texts, **more)["data"]]


def tokens(text, **more):
    """Ids of the tokens of a text."""
    return [piece["id"] for piece in ask("/tokenize", inputs=text, **more)[0]]


def plain(texts, **more):
    """As `vectors`, with nothing before a text: those of its tokens."""
    return vectors([tokens(text) for text in texts], **more)


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def same(got, wanted):
    """Lists of vectors are the same but for rounding."""
    got, wanted = [list(map(float, vector)) for vector in got], list(wanted)
    assert [len(vector) for vector in got] == [len(vector) for vector in wanted], "other shapes"
    apart = max(abs(a - b) for one, other in zip(got, wanted) for a, b in zip(one, other))
    assert apart <= 1e-6, f"{apart} apart"
