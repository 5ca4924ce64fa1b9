"""LangChain's `OpenAIEmbeddings` of Python, which sends texts with `check_embedding_ctx_length=False`."""

from importlib.metadata import version

import openai
from checks import *
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

print(f"langchain-openai {version('langchain-openai')}, openai {openai.__version__}")
settings = dict(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False, max_retries=0)
embedder = OpenAIEmbeddings(**settings)


@check("a query")
def _():
    same([embedder.embed_query(TEXTS[0])], vectors(TEXTS[:1]))


@check("documents, in chunks")
def _():
    same(embedder.embed_documents(MANY, chunk_size=300), vectors(MANY))


@check("dimensions")
def _():
    shorter = OpenAIEmbeddings(**settings, dimensions=SHORTER)
    same(shorter.embed_documents(TEXTS), [unit(vector[:SHORTER]) for vector in vectors(TEXTS)])


@check("input_type")
def _():
    queries = OpenAIEmbeddings(**settings, model_kwargs={"extra_body": {"input_type": "query"}})
    same([queries.embed_query(TEXTS[0])], ask("/embed", inputs=TEXTS[0], prompt_name="query", normalize=False))


@check("async")
async def _():
    same(await embedder.aembed_documents(TEXTS), vectors(TEXTS))
    same([await embedder.aembed_query(TEXTS[0])], vectors(TEXTS[:1]))


@check("a vector store finds its texts")
def _():
    store = InMemoryVectorStore.from_texts(TEXTS, embedder)
    assert [store.similarity_search(text, k=1)[0].page_content for text in TEXTS] == TEXTS


@check("400, 401, 404, 429")
def _():
    wrong = lambda **more: lambda: OpenAIEmbeddings(**{**settings, **more}).embed_query(TEXTS[0])
    raises(openai.BadRequestError, wrong(dimensions=DIM + 1))
    raises(openai.AuthenticationError, wrong(api_key="a" * 20))
    raises(openai.NotFoundError, wrong(model=UNKNOWN))
    raises(openai.RateLimitError, wrong(base_url=f"{BUSY_URL}/v1"))


end()
