import { z } from "zod";
import type { Bus, Handlers, Stop } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import type { HeartbeatOutcome, Store } from "../store/index.js";
import { parse } from "./crawl-request.js";
import type { CrawlService } from "./crawl-service.js";
import { asCallError, invalid, RequestError } from "./errors.js";
import type { NodeMonitor } from "./node-monitor.js";

const id = z.string().min(1).max(100);
const nodeId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "must be a node's id");
const whole = z.int().min(0);

const ofCrawl = z.object({ crawl: id });
const list = z.object({
  limit: z.int().min(1).max(1_000).default(100),
  cursor: z.string().max(600).exactOptional(),
});
const registration = z.object({
  id: nodeId,
  epoch: whole,
  version: z.string().max(100).default("unknown"),
  /** Tasks at once. */
  capacity: whole.max(100_000).exactOptional(),
  concurrency: whole.max(100_000).exactOptional(),
  host: z.string().max(255).default("unknown"),
  pid: whole.default(0),
  labels: z.record(z.string().max(63), z.string().max(200)).exactOptional(),
});
const heartbeat = z.object({
  id: nodeId,
  epoch: whole,
  active: whole,
  status: z.enum(["online", "paused", "draining", "offline"]).default("online"),
  concurrency: whole.max(100_000).exactOptional(),
});

/** What a node should know when it starts. */
export type NodeWelcome = {
  /** Crawls that are closed, with their generations: tasks of those are not to be begun. */
  readonly closed: readonly { readonly id: string; readonly generation: number }[];
  readonly config: { readonly heartbeatMs: number };
};

export const HEARTBEAT_MS = 2_000;

export type BusCallsParts = {
  readonly masterId: string;
  readonly bus: Pick<Bus, "calls">;
  readonly crawls: CrawlService;
  readonly nodes: NodeMonitor;
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
};

/**
 * The calls that any master answers, off the queue that all of them share: the same as over HTTP, by the same
 * service. Which master answers does not matter, and a call that is delivered twice does no harm.
 */
export class BusCalls implements Service {
  readonly name = "bus calls";
  readonly #parts: BusCallsParts;
  readonly #handlers: Handlers;

  #stopServing: Stop | undefined;

  constructor(parts: BusCallsParts) {
    this.#parts = parts;
    const { crawls } = parts;
    const answers: Handlers = {
      ping: async () => ({ master: parts.masterId, at: new Date(parts.clock.now()).toISOString() }),
      // A message id is unique by its nature, so a call that comes twice makes one crawl.
      "create-crawl": async (args, { messageId }) =>
        (await crawls.create(args, messageId && `call:${messageId}`)).crawl,
      "get-crawl": (args) => crawls.get(parse(ofCrawl, args).crawl),
      "list-crawls": (args) => crawls.list(parse(list, args)),
      "pause-crawl": (args) => crawls.pause(parse(ofCrawl, args).crawl),
      "resume-crawl": (args) => crawls.resume(parse(ofCrawl, args).crawl),
      "close-crawl": (args) => crawls.close(parse(ofCrawl, args).crawl),
      "add-urls": (args) => {
        const { crawl } = parse(ofCrawl, args);
        const { crawl: _crawl, ...request } = args;
        return crawls.addUrls(crawl, request);
      },
      "register-node": (args) => this.#register(args),
      heartbeat: (args) => this.#heartbeat(args),
    };
    this.#handlers = Object.fromEntries(
      Object.entries(answers).map(([type, answer]) => [
        type,
        async (args, context) => {
          try {
            return await answer(args, context);
          } catch (error) {
            throw asCallError(error);
          }
        },
      ]),
    );
  }

  async start(): Promise<void> {
    const { bus, masterId } = this.#parts;
    this.#stopServing = await bus.calls.serveMaster(masterId, this.#handlers);
  }

  async stop(): Promise<void> {
    const stopServing = this.#stopServing;
    this.#stopServing = undefined;
    await stopServing?.();
  }

  async #register(args: unknown): Promise<NodeWelcome> {
    const { capacity, concurrency, ...node } = parse(registration, args);
    const tasks = concurrency ?? capacity;
    if (tasks === undefined) throw invalid("capacity", "is missing: how many tasks the node runs at once");
    if (!(await this.#parts.nodes.register({ ...node, concurrency: tasks }))) {
      throw new RequestError(
        "conflict",
        `a later start of node "${node.id}" than ${node.epoch} is known: this one should leave`,
      );
    }
    return { closed: await this.#parts.store.crawls.closed(), config: { heartbeatMs: HEARTBEAT_MS } };
  }

  async #heartbeat(args: unknown): Promise<{ readonly outcome: HeartbeatOutcome | "left" }> {
    const { status, ...beat } = parse(heartbeat, args);
    if (status === "offline") {
      await this.#parts.nodes.leave(beat.id, beat.epoch);
      return { outcome: "left" };
    }
    return { outcome: await this.#parts.nodes.heartbeat({ ...beat, status }) };
  }
}
