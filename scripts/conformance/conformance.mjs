// The master's part, played in front of one worker in another language.
import { randomUUID } from "node:crypto";
import { connect } from "amqplib";
import { AmqpTap } from "./amqp-tap.mjs";
import { CASES } from "./cases.mjs";
import { startSite } from "./site.mjs";
import { submissionFault } from "./submission.mjs";

/** How long an answer is held back, to see whether the worker waits for it, in milliseconds. */
const HELD_BACK_MS = 400;
/** How soon after the answer a task has to be acknowledged, in milliseconds. */
const SETTLE_MS = 10_000;
/** How soon a worker has to be back after its connection was cut, or a result could not be taken, in ms. */
const RETURN_MS = 45_000;
/** By how much a call may be seen later than what its sender did after it, in milliseconds. */
const LATE_MS = 1_000;
const MAX_PREFETCH = 1_000;

export class Conformance {
  #options;
  #tap;
  #site;
  #connection;
  #channel;
  /** What happened to each task, by its name. */
  #tasks = new Map();
  #consumed = [];
  #faultsOfCalls = [];
  #wake = () => {};

  /** @param {{ amqpUrl: string, namespace: string, spider: string, only: string, patienceMs: number }} options */
  constructor(options) {
    this.#options = options;
  }

  get #queue() {
    return `${this.#options.namespace}.tasks.${this.#options.spider}`;
  }

  get #masterQueue() {
    return `${this.#options.namespace}.master`;
  }

  /** @returns what the worker's environment has to hold */
  async start() {
    const { amqpUrl, namespace } = this.#options;
    this.#site = await startSite();
    this.#connection = await connect(amqpUrl, { noDelay: true });
    this.#connection.on("error", () => {});
    this.#channel = await this.#connection.createConfirmChannel();
    await this.#channel.assertQueue(this.#queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
    await this.#channel.assertQueue(this.#masterQueue, { durable: true });
    await this.#channel.consume(this.#masterQueue, (message) => message !== null && this.#called(message), {
      noAck: true,
    });
    this.#tap = new AmqpTap(amqpUrl);
    this.#tap.on("consuming", (consumer) => {
      if (consumer.queue === this.#queue) this.#consumed.push(consumer);
      this.#wake();
    });
    this.#tap.on("settled", ({ how, body }) => this.#settled(how, body));
    return { AMQP_URL: await this.#tap.open(), WARREN_NAMESPACE: namespace };
  }

  async stop() {
    await this.#tap?.close();
    for (const queue of [this.#queue, this.#masterQueue])
      await this.#channel?.deleteQueue(queue).catch(() => {});
    await this.#connection?.close().catch(() => {});
    await this.#site?.stop();
  }

  /** Runs the cases, one after the other, and says of each what is wrong. */
  async *results() {
    const { only, patienceMs } = this.#options;
    const came = await this.#until(() => this.#consumed.length > 0, patienceMs);
    const [consumer] = this.#consumed;
    const name = `takes tasks from ${this.#queue}, a bounded number at once`;
    if (!came) {
      yield { name, fault: `no worker consumed from it within ${patienceMs / 1_000} s` };
      return;
    }
    const { prefetch } = consumer;
    const isBounded = prefetch >= 1 && prefetch <= MAX_PREFETCH;
    const unbounded = `its prefetch is ${prefetch === 0 ? "unlimited" : prefetch}; it should be from 1 to ${MAX_PREFETCH}`;
    yield { name, ...(isBounded ? {} : { fault: unbounded }) };
    for (const each of CASES) {
      if (!each.name.includes(only)) continue;
      yield { name: each.name, fault: await this.#run(each) };
    }
    yield { name: "calls masters as their callers should", fault: this.#faultsOfCalls[0] };
  }

  /** @returns what the worker got wrong, if anything */
  async #run({ path, task: more, fault, answer = "ok" }) {
    const { patienceMs, spider } = this.#options;
    const id = randomUUID();
    const task = {
      task: id,
      crawl: "conformance",
      spider,
      url: `${this.#site.origin}${path ?? ""}`,
      depth: 0,
      attempt: 1,
      notAfter: Date.now() + 60_000,
      ...more?.(),
    };
    const state = { submissions: [], settled: [] };
    this.#tasks.set(id, state);
    this.#channel.sendToQueue(this.#queue, Buffer.from(JSON.stringify(task)), {
      contentType: "application/json",
      persistent: true,
      messageId: id,
    });
    const submitted = async (count, withinMs) => {
      const isThere = () => state.submissions.length >= count;
      await this.#until(() => isThere() || hasEnded(state), withinMs);
      // What was sent before the acknowledgement may be seen after it: it has come a longer way.
      return this.#until(isThere, LATE_MS);
    };
    if (!(await submitted(1, patienceMs))) {
      const [how] = state.settled;
      return how === undefined
        ? `no result came within ${patienceMs / 1_000} s`
        : `it settled the task (${how}) without handing in a result`;
    }
    const [first] = state.submissions;
    const wrong =
      submissionFault(first.result) ??
      fault?.(first.result, { url: task.url, requests: this.#site.requests });
    const settledFault = await this.#answer(answer, state, submitted);
    return wrong ?? settledFault;
  }

  /** Answers the last submission, and sees whether the task is acknowledged then, and not before. */
  async #answer(how, state, submitted) {
    if (how === "stray") this.#reply(state, { ok: true, result: null }, randomUUID());
    if (await this.#until(() => state.settled.length > 0, HELD_BACK_MS)) {
      return `it settled the task (${state.settled[0]}) before its call was answered`;
    }
    if (how === "cut") {
      this.#tap.cut();
      const count = state.submissions.length;
      if (!(await submitted(count + 1, RETURN_MS))) {
        return `it did not hand in the result of the task that came again within ${RETURN_MS / 1_000} s`;
      }
    }
    if (how === "unavailable") {
      const count = state.submissions.length;
      this.#reply(state, { ok: false, error: { code: "unavailable", message: "MongoDB is away" } });
      if (!(await submitted(count + 1, RETURN_MS))) {
        const settled = state.settled.length > 0 ? `; it settled the task (${state.settled[0]})` : "";
        return `it did not hand the result in again within ${RETURN_MS / 1_000} s${settled}`;
      }
      state.settled = [];
    }
    if (how === "conflict") {
      this.#reply(state, {
        ok: false,
        error: { code: "conflict", message: "the task's result is not waited for" },
      });
    } else this.#reply(state, { ok: true, result: { task: "", accepted: true } });
    if (!(await this.#until(() => state.settled.length > 0, SETTLE_MS))) {
      return `it did not acknowledge the task within ${SETTLE_MS / 1_000} s of the answer`;
    }
    return state.settled[0] === "ack" ? undefined : `it settled the task with ${state.settled[0]}, not ack`;
  }

  #called({ content, properties }) {
    let call;
    try {
      call = JSON.parse(content.toString("utf8"));
    } catch {
      this.#faultsOfCalls.push(`a message to ${this.#masterQueue} is not JSON`);
      return;
    }
    const { replyTo, correlationId } = properties;
    if (call?.type !== "submit-result" || typeof call.args !== "object" || call.args === null) {
      this.#faultsOfCalls.push(
        `a call is not {"type": "submit-result", "args": {…}}: ${content.toString().slice(0, 200)}`,
      );
      if (replyTo === undefined) return;
      const error = { code: "invalid", message: "only submit-result is answered here" };
      this.#send(replyTo, correlationId, { ok: false, error });
      return;
    }
    if (replyTo === undefined)
      this.#faultsOfCalls.push("a call has no reply_to, so its answer cannot be waited for");
    else if (correlationId === undefined) this.#faultsOfCalls.push("a call has no correlation_id");
    const state = this.#tasks.get(call.args.task);
    if (state === undefined) {
      this.#faultsOfCalls.push(
        `a result is for a task that was not given out: ${JSON.stringify(call.args.task)}`,
      );
      if (replyTo !== undefined) {
        this.#send(replyTo, correlationId, {
          ok: false,
          error: { code: "invalid", message: "task: is not known" },
        });
      }
      return;
    }
    state.submissions.push({ result: call.args, replyTo, correlationId });
    this.#wake();
  }

  #settled(how, body) {
    let task;
    try {
      ({ task } = JSON.parse(body));
    } catch {
      return;
    }
    this.#tasks.get(task)?.settled.push(how);
    this.#wake();
  }

  /** Answers all that was handed in for a task: to a worker that calls twice either answer will do. */
  #reply(state, body, otherId) {
    const last = state.submissions.at(-1);
    if (last.replyTo !== undefined) this.#send(last.replyTo, otherId ?? last.correlationId, body);
  }

  #send(replyTo, correlationId, body) {
    this.#channel.sendToQueue(replyTo, Buffer.from(JSON.stringify(body)), {
      correlationId,
      contentType: "application/json",
    });
  }

  /** Whether this became true in time. */
  async #until(holds, withinMs) {
    const deadline = Date.now() + withinMs;
    while (!holds()) {
      const leftMs = deadline - Date.now();
      if (leftMs <= 0) return false;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  }
}

function hasEnded({ settled }) {
  return settled.includes("ack") || settled.length > 5;
}
