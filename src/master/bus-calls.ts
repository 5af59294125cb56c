import { randomUUID } from "node:crypto";
import type { CallContext, HandlersOf, Stop } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import type { MasterCalls, WarrenBus } from "../protocol/index.js";
import type { Store } from "../store/index.js";
import type { CrawlService } from "./crawl-service.js";
import { asCallError, invalid, RequestError } from "./errors.js";
import type { ForeignWorkers } from "./foreign-workers.js";
import type { NodeMonitor } from "./node-monitor.js";

type Handlers = HandlersOf<MasterCalls>;

export const HEARTBEAT_MS = 2_000;

export type BusCallsParts = {
  readonly masterId: string;
  readonly bus: Pick<WarrenBus, "calls" | "events">;
  readonly crawls: CrawlService;
  readonly nodes: NodeMonitor;
  readonly foreign: ForeignWorkers;
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
    const { crawls, foreign } = parts;
    this.#handlers = withCallErrors({
      ping: async () => ({ master: parts.masterId, at: this.#now() }),
      // A message id is unique by its nature, so a call that comes twice makes one crawl.
      "create-crawl": async (args, { messageId }) =>
        (await crawls.create(args, messageId && `call:${messageId}`)).crawl,
      "get-crawl": ({ crawl }) => crawls.get(crawl),
      "list-crawls": (args) => crawls.list(args),
      "pause-crawl": ({ crawl }) => crawls.pause(crawl),
      "resume-crawl": ({ crawl }) => crawls.resume(crawl),
      "close-crawl": ({ crawl }) => crawls.close(crawl),
      "add-urls": ({ crawl, ...request }) => crawls.addUrls(crawl, request),
      "register-node": (args) => this.#register(args),
      heartbeat: (args) => this.#heartbeat(args),
      "fetch-task": async ({ spider }, { signal }) => (await foreign.fetch(spider, signal)) ?? null,
      "submit-result": ({ task, error, ...found }) =>
        foreign.submit(task, {
          ...found,
          ...(error !== undefined && {
            error: typeof error === "string" ? { code: "spider-error" as const, message: error } : error,
          }),
        }),
      "send-notification": (args, { messageId }) => this.#notify(args, messageId),
    });
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

  async #register({ capacity, concurrency, ...node }: ArgsOfCall<"register-node">) {
    const tasks = concurrency ?? capacity;
    if (tasks === undefined) throw invalid("capacity", "is missing: how many tasks the node runs at once");
    const registered = await this.#parts.nodes.register({ ...node, concurrency: tasks });
    if (registered === undefined) {
      throw new RequestError(
        "conflict",
        `a later start of node "${node.id}" than ${node.epoch} is known: this one should leave`,
      );
    }
    const { wanted } = registered;
    return {
      closed: await this.#parts.store.crawls.closed(),
      config: { heartbeatMs: HEARTBEAT_MS },
      ...(wanted !== undefined && { wanted }),
    };
  }

  async #heartbeat({ status, capacity, revision = 0, ...beat }: ArgsOfCall<"heartbeat">) {
    if (status === "offline") {
      await this.#parts.nodes.leave(beat.id, beat.epoch);
      return { outcome: "left" as const };
    }
    const concurrency = beat.concurrency ?? capacity;
    const { outcome, wanted } = await this.#parts.nodes.heartbeat({
      ...{ ...beat, status },
      ...(concurrency !== undefined && { concurrency }),
    });
    return { outcome, ...(wanted !== undefined && wanted.revision !== revision && { wanted }) };
  }

  async #notify(args: ArgsOfCall<"send-notification">, messageId: string | undefined) {
    const { store, bus, clock } = this.#parts;
    const id = messageId ?? randomUUID();
    const { crawl, ...data } = args;
    if (await store.notifications.add({ id, ...args, at: clock.now() })) {
      const type = `notification.${args.level}`;
      const event = { type, at: this.#now(), ...(crawl !== undefined && { crawl }), data: { id, ...data } };
      bus.events.publish(type, [event]);
    }
    return { id };
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString();
  }
}

type ArgsOfCall<Type extends keyof Handlers> = Parameters<Handlers[Type]>[0];

/** What fails is told in the codes that go over AMQP, and what nobody foresaw is not told in detail. */
function withCallErrors(handlers: Handlers): Handlers {
  const wrapped = Object.entries(handlers).map(([type, handle]) => [
    type,
    async (args: never, context: CallContext) => {
      try {
        return await handle(args, context);
      } catch (error) {
        throw asCallError(error);
      }
    },
  ]);
  return Object.fromEntries(wrapped) as Handlers;
}
