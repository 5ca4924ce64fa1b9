// The client `openai` of npm.

const assert = require("node:assert/strict");
const OpenAI = require("openai");
const { VERSION } = require("openai/version");

// As in checks.py.
const { PANNIER_URL: url, PANNIER_BUSY_URL: busyUrl, PANNIER_KEY: apiKey, PANNIER_MODEL: model } = process.env;
const [dim, shorter, unknown] = [64, 32, "no/such-model"];
const texts = ["c d", "a", "d, c b a"];
const letters = (n) => [0, 2, 4, 6, 8, 10].map((shift) => "abcd"[(n >> shift) & 3]).join(" ");
const many = Array.from({ length: 2048 }, (_, n) => letters(n));

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
const create = (more) => client.embeddings.create({ model, input: texts, ...more });
const embeddings = (answer) => answer.data.map((item) => item.embedding);
const checks = [];
const check = (what, run) => checks.push([what, run]);

/** Posts JSON without any client. */
async function ask(path, body) {
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  return answer.json();
}

/** The server's own vectors. */
const vectors = async (input, more) => embeddings(await ask("/v1/embeddings", { model, input, ...more }));
const tokens = async (text, more) => (await ask("/tokenize", { inputs: text, ...more }))[0].map((piece) => piece.id);

/** Lists of vectors are the same but for rounding. */
function same(got, wanted) {
  assert.deepEqual(Array.from(got, (vector) => vector.length), Array.from(wanted, (vector) => vector.length));
  got.forEach((vector, row) => vector.forEach((x, at) => assert.ok(Math.abs(x - wanted[row][at]) <= 1e-6)));
}

/** The error of a call, which must be of this kind. */
async function raises(kind, call) {
  const error = await call().then(() => new Error("no error"), (error) => error);
  assert.ok(error instanceof kind, `${error} is no ${kind.name}`);
  return error;
}

check("one text", async () => {
  const answer = await create({ input: texts[0] });
  same(embeddings(answer), await vectors(texts.slice(0, 1)));
  assert.deepEqual([answer.object, answer.model], ["list", model]);
});

check("texts, in their order", async () => {
  const answer = await create();
  same(embeddings(answer), await vectors(texts));
  assert.deepEqual(answer.data.map((item) => item.index), [0, 1, 2]);
});

check("usage is the tokens that the model read", async () => {
  const lists = await Promise.all(texts.map((text) => tokens(text, { prompt_name: "document" })));
  const read = lists.flat().length;
  assert.deepEqual((await create()).usage, { prompt_tokens: read, total_tokens: read });
});

check("encoding_format float and base64", async () => {
  same(embeddings(await create({ encoding_format: "float" })), await vectors(texts));
  const coded = embeddings(await create({ encoding_format: "base64" })).map((text) => Buffer.from(text, "base64"));
  const numbers = coded.map((data) => Array.from({ length: dim }, (_, at) => data.readFloatLE(4 * at)));
  same(numbers, await vectors(texts));
});

check("dimensions", async () => {
  same(embeddings(await create({ dimensions: shorter })), await vectors(texts, { dimensions: shorter }));
  const error = await raises(OpenAI.BadRequestError, () => create({ dimensions: dim + 1 }));
  assert.deepEqual([error.param, error.code], ["dimensions", "dimensions_not_supported"]);
});

check("tokens of the model, one list or several", async () => {
  const lists = await Promise.all(texts.map((text) => tokens(text)));
  const wanted = await ask("/embed", { inputs: texts, normalize: false });
  same(embeddings(await create({ input: lists[0] })), wanted.slice(0, 1));
  same(embeddings(await create({ input: lists })), wanted);
});

check("400: tokens of another tokenizer, no input, too many", async () => {
  for (const input of [[[1, 5, 7]], "", [], [...many, "a"]]) {
    const error = await raises(OpenAI.BadRequestError, () => create({ input }));
    assert.deepEqual([error.status, error.param, error.type], [400, "input", "invalid_request_error"]);
  }
});

check("401: another key", async () => {
  const other = client.withOptions({ apiKey: "a".repeat(20) });
  await raises(OpenAI.AuthenticationError, () => other.embeddings.create({ model, input: texts }));
});

check("404 and 503: models that are not there", async () => {
  const error = await raises(OpenAI.NotFoundError, () => create({ model: unknown }));
  assert.deepEqual([error.param, error.code], ["model", "model_not_found"]);
  const missing = await raises(OpenAI.InternalServerError, () => create({ model: "gte-small" }));
  assert.deepEqual([missing.status, missing.code], [503, "model_not_installed"]);
});

check("404: an address without /v1", async () => {
  const bare = client.withOptions({ baseURL: url });
  const error = await raises(OpenAI.NotFoundError, () => bare.embeddings.create({ model, input: "a" }));
  assert.match(error.message, /\/v1/);
});

check("429, tried again when the server says", async () => {
  let sent = 0;
  const counted = (...request) => (sent++, fetch(...request));
  const busy = new OpenAI({ baseURL: `${busyUrl}/v1`, apiKey, maxRetries: 1, fetch: counted });
  const error = await raises(OpenAI.RateLimitError, () => busy.embeddings.create({ model, input: "a" }));
  assert.deepEqual([error.code, error.type, sent], ["overloaded", "rate_limit_error", 2]);
});

check("models", async () => {
  const names = [];
  for await (const found of client.models.list()) names.push(found.id);
  assert.ok(names.includes(model), names);
  assert.equal((await client.models.retrieve(model)).id, model);
  await raises(OpenAI.NotFoundError, () => client.models.retrieve(unknown));
});

check("as many texts as a request may hold, and many requests at once", async () => {
  const wanted = await vectors(many);
  same(embeddings(await create({ input: many })), wanted);
  const parts = Array.from({ length: 32 }, (_, part) => many.slice(64 * part, 64 * (part + 1)));
  const answers = await Promise.all(parts.map((input) => create({ input })));
  same(answers.flatMap(embeddings), wanted);
});

(async () => {
  console.log(`openai ${VERSION}, node ${process.version}`);
  for (const [what, run] of checks) {
    try {
      await run();
      console.log(`ok      ${what}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`FAILED  ${what}: ${error}`);
    }
  }
})();
