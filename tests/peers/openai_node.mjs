// OpenAI's own client for Node against costd.  Started by openai_node.py, which says where three daemons
// listen: one to talk to, one that asks for a key, one with a single slot and a queue of one, one to be sent
// SIGTERM.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { MAIN, KEYED, NARROW, DRAINED, DRAINED_PID } = process.env;
const PROMPT = "Once upon a time";
const LONG = { max_tokens: 240, temperature: 0, ignore_eos: true };
const clientOf = (base, options = {}) =>
  new OpenAI({ baseURL: base + "/v1", apiKey: "unused", maxRetries: 0, timeout: 60000, ...options });
const client = clientOf(MAIN);

const complete = (options = {}, request = {}) =>
  client.completions.create({ model: "small", prompt: PROMPT, max_tokens: 12, temperature: 0, ...options }, request);
const textOf = async (options) => (await complete(options)).choices[0].text;
const chunksOf = async (options) => {
  const chunks = [];
  for await (const chunk of await complete({ ...options, stream: true })) chunks.push(chunk);
  return chunks;
};
const joined = (chunks) => chunks.map((c) => c.choices[0]?.text ?? "").join("");

async function fails(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, String(error));
    return error;
  }
  assert.fail("no " + kind.name);
}

async function tokenize(content) {
  const reply = await fetch(MAIN + "/tokenize", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "small", content }),
  });
  return (await reply.json()).tokens;
}

// The sum of a family's samples whose labels contain a text.
async function metric(base, name, label = "") {
  const page = await (await fetch(base + "/metrics")).text();
  return page.split("\n").filter((l) => l.match(/^[a-z_]+/)?.[0] === name && l.includes(label))
    .reduce((sum, l) => sum + Number(l.slice(l.lastIndexOf(" ") + 1)), 0);
}

async function until(wanted, what) {
  for (const end = Date.now() + 20000; !(await wanted()); )
    assert.ok(Date.now() < end, what);
}

const scenarios = {
  async modelsAreListed() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["small", "large"]);
  },

  async aModelIsRetrieved() {
    const model = await client.models.retrieve("large");
    assert.deepEqual([model.id, model.object], ["large", "model"]);
  },

  async unknownModelsAreNotFound() {
    for (const call of [() => client.models.retrieve("none"), () => complete({ model: "none" })]) {
      const error = await fails(OpenAI.NotFoundError, call);
      assert.deepEqual([error.code, error.param, error.type], ["model_not_found", "model", "invalid_request_error"]);
      assert.match(error.requestID, /^req-/);
    }
  },

  async aCompletion() {
    const reply = await complete();
    const [choice] = reply.choices;
    assert.deepEqual([reply.object, reply.model, reply.choices.length], ["text_completion", "small", 1]);
    assert.deepEqual([choice.index, choice.finish_reason, choice.logprobs], [0, "length", null]);
    assert.match(reply.id, /^cmpl-/);
    assert.equal(reply.usage.completion_tokens, 12);
    assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + 12);
    assert.match(reply._request_id, /^req-/);
  },

  async theCostIsTold() {
    const { cost } = await complete({ max_tokens: 40 });
    assert.ok(cost.dollars > 0);
    assert.ok(Math.abs(cost.dollars - (cost.device_seconds * 0.1) / 3600) < 1e-12);
  },

  async aStreamIsTheSameText() {
    const chunks = await chunksOf({ max_tokens: 40 });
    assert.equal(joined(chunks), await textOf({ max_tokens: 40 }));
    assert.ok(chunks.length > 10, "not streamed");
    assert.deepEqual(new Set(chunks.slice(0, -1).map((c) => c.choices[0].finish_reason)), new Set([null]));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  },

  async aStreamEndsWithUsage() {
    const chunks = await chunksOf({ max_tokens: 20, stream_options: { include_usage: true } });
    const last = chunks.pop();
    const { usage } = await complete({ max_tokens: 20 });
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 20);
    assert.equal(last.usage.total_tokens, usage.total_tokens);
    assert.ok(chunks.every((c) => c.usage === null && c.choices.length === 1));
  },

  async stopStringsAreNotEmitted() {
    const whole = await textOf({ max_tokens: 60 });
    const word = " " + whole.trim().split(/\s+/)[6];
    for (const stop of [word, [word, "never said"]]) {
      const [choice] = (await complete({ max_tokens: 60, stop })).choices;
      assert.deepEqual([choice.text, choice.finish_reason], [whole.slice(0, whole.indexOf(word)), "stop"]);
      assert.equal(joined(await chunksOf({ max_tokens: 60, stop })), choice.text);
    }
  },

  async severalChoices() {
    const several = { n: 3, temperature: 1, seed: 5, max_tokens: 20 };
    const { choices } = await complete(several);
    assert.deepEqual(choices.map((c) => c.index), [0, 1, 2]);
    assert.equal(new Set(choices.map((c) => c.text)).size, 3);
    const parts = ["", "", ""];
    for (const chunk of await chunksOf(several)) parts[chunk.choices[0].index] += chunk.choices[0].text;
    assert.deepEqual(parts, choices.map((c) => c.text));
  },

  async logprobsOfPromptAndCompletion() {
    const [choice] = (await complete({ echo: true, logprobs: 3, max_tokens: 4 })).choices;
    const l = choice.logprobs;
    assert.equal(l.tokens.join(""), choice.text);
    assert.deepEqual([l.token_logprobs[0], l.top_logprobs[0]], [null, null]);
    l.tokens.forEach((token, i) => assert.ok(i === 0 || l.top_logprobs[i][token] === l.token_logprobs[i]));
    const scored = (await complete({ echo: true, logprobs: 0, max_tokens: 0 })).choices[0];
    assert.equal(scored.text, PROMPT);
    scored.logprobs.token_logprobs.forEach(
      (value, i) => assert.ok(i === 0 || Math.abs(value - l.token_logprobs[i]) < 1e-3));
  },

  async badRequestsNameTheirField() {
    for (const [field, value] of [["temperature", -1], ["max_tokens", -5], ["n", 0], ["logprobs", 1000],
      ["top_p", 7], ["stop", Array(17).fill("a")], ["logit_bias", { x: 1 }], ["prompt", { a: 1 }], ["top_k", -7]]) {
      const error = await fails(OpenAI.BadRequestError, () => complete({ [field]: value }));
      assert.deepEqual([error.status, error.param, error.type], [400, field, "invalid_request_error"]);
    }
  },

  async keysAreAskedFor() {
    const error = await fails(OpenAI.AuthenticationError, () => clientOf(KEYED, { apiKey: "wrong" }).models.list());
    assert.equal(error.status, 401);
    assert.match(error.requestID, /^req-/);
    const right = clientOf(KEYED, { apiKey: "secret-key" });
    assert.equal((await right.completions.create({ model: "small", prompt: "a", max_tokens: 3 })).usage.completion_tokens, 3);
  },

  async unknownRoutesSayWhy() {
    const error = await fails(OpenAI.NotFoundError, () =>
      client.chat.completions.create({ model: "small", messages: [{ role: "user", content: "hello" }] }));
    assert.match(error.message, /chat/);
  },

  async aFullQueueIsRetried() {
    const impatient = clientOf(NARROW), patient = clientOf(NARROW, { maxRetries: 20 });
    let stop = false, refused;
    const occupy = async () => {
      while (!stop)
        await impatient.completions.create({ model: "large", prompt: PROMPT, ...LONG }).catch((e) => (refused = e));
    };
    const occupied = [occupy(), occupy(), occupy(), occupy()];
    await until(() => refused || new Promise((done) => setTimeout(done, 5, false)), "the queue is never full");
    setTimeout(() => (stop = true), 500);
    const reply = await patient.completions.create({ model: "large", prompt: PROMPT, max_tokens: 2 });
    assert.equal(reply.usage.completion_tokens, 2);
    await Promise.all(occupied);
    assert.equal(refused.constructor.name, "RateLimitError");
    assert.deepEqual([refused.status, refused.code, refused.type], [429, "queue_full", "rate_limit_error"]);
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
  },

  async drainingIs503() {
    const there = clientOf(DRAINED);
    const stream = await there.completions.create({ model: "large", prompt: PROMPT, n: 16, stream: true, ...LONG });
    let finished = 0, error;
    for await (const chunk of stream) {
      if (!error) {
        process.kill(Number(DRAINED_PID), "SIGTERM");
        await until(async () => (await fetch(DRAINED + "/ready")).status === 503, "it does not drain");
        error = await fails(OpenAI.InternalServerError, () => there.completions.create({ model: "large", prompt: "a" }));
      }
      finished += chunk.choices[0].finish_reason === "length";
    }
    assert.deepEqual([error.status, error.code], [503, "shutting_down"]);
    assert.equal(finished, 16);
  },

  async anAbandonedStreamStopsTheEngine() {
    const gone = () => metric(MAIN, "model_requests_finished_total", 'finish_reason="client_gone"');
    const before = await gone();
    const stream = await complete({ model: "large", n: 8, stream: true, ...LONG });
    let seen = 0;
    for await (const _ of stream) if (++seen === 5) break;
    await until(async () => (await gone()) === before + 1, "the stream that was left goes on");
    const controller = new AbortController();
    const call = fails(OpenAI.APIUserAbortError, () =>
      complete({ model: "large", prompt: Array(4).fill(PROMPT), n: 16, ...LONG }, { signal: controller.signal }));
    setTimeout(() => controller.abort(), 50);
    await call;
    await until(async () => (await gone()) > before + 1, "the call that was aborted goes on");
  },

  async seedsRepeat() {
    const drawn = (seed) => textOf({ temperature: 1, seed, max_tokens: 30 });
    assert.equal(await drawn(7), await drawn(7));
    assert.ok(new Set(await Promise.all([0, 1, 2, 3, 4].map(drawn))).size > 1);
  },

  async tokensAreBiased() {
    const first = await textOf({ max_tokens: 1 });
    const [token] = await tokenize(first);
    assert.notEqual(await textOf({ max_tokens: 1, logit_bias: { [token]: -100 } }), first);
  },

  async promptsMayBeTokens() {
    const ids = await tokenize(PROMPT);
    assert.equal(await textOf({ prompt: ids }), await textOf());
    const { choices } = await complete({ prompt: [ids, ids.slice(0, 2)] });
    assert.deepEqual(choices.map((c) => c.text), [await textOf(), await textOf({ prompt: ids.slice(0, 2) })]);
  },

  async extensionsAreHeard() {
    assert.equal(await textOf({ temperature: 1, top_k: 1 }), await textOf());
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  const start = Date.now();
  await scenario();
  console.log(`${name.padEnd(50)} ${((Date.now() - start) / 1000).toFixed(2).padStart(6)} s`);
}
