import { randomBytes } from "node:crypto";
import { type Channel, type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import { Bus, type BusDeps, type BusOptions } from "../../src/bus/index.js";
import { Names } from "../../src/bus/topology.js";
import { systemClock } from "../../src/lib/clock.js";
import { createLogger, type Logger, silentLogger } from "../../src/lib/logger.js";
import { Metrics } from "../../src/lib/metrics.js";
import { TcpProxy } from "./tcp-proxy.js";

export function amqpUrl(): string {
  const { AMQP_URL } = process.env;
  if (AMQP_URL === undefined) throw new Error("AMQP_URL is not set: run these tests with `npm test`");
  return AMQP_URL.split(",")[0] ?? AMQP_URL;
}

/** Buses on a real broker, in a namespace of their own, of which nothing is left behind. */
export class BusUnderTest {
  readonly namespace = `test-bus-${randomBytes(5).toString("hex")}`;
  readonly names = new Names(this.namespace);
  readonly metrics = new Metrics();
  readonly #buses: Bus[] = [];
  readonly #proxies: TcpProxy[] = [];
  readonly #nodes = new Set<string>();
  #stranger: ChannelModel | undefined;

  /** A bus that has not been started; it is stopped in the end. */
  bus(options: Partial<BusOptions> = {}, deps: Partial<BusDeps> = {}): Bus {
    const bus = new Bus(
      {
        urls: [amqpUrl()],
        namespace: this.namespace,
        identity: { role: "tool", id: `${this.namespace}-${this.#buses.length}`, version: "0" },
        reconnect: { minMs: 10, maxMs: 100 },
        ...options,
      },
      { logger: silentLogger, clock: systemClock, metrics: this.metrics, ...deps },
    );
    this.#buses.push(bus);
    return bus;
  }

  async started(options: Partial<BusOptions> = {}, deps: Partial<BusDeps> = {}): Promise<Bus> {
    const bus = this.bus(options, deps);
    await bus.start();
    return bus;
  }

  /** A way to the broker that can be disturbed. */
  async proxy(): Promise<TcpProxy> {
    const proxy = await new TcpProxy(amqpUrl()).open();
    this.#proxies.push(proxy);
    return proxy;
  }

  /** A node's id; its exchange is removed in the end. */
  node(name: string): string {
    this.#nodes.add(name);
    return name;
  }

  /** A channel of some program that is not Warren. */
  async stranger(): Promise<Channel> {
    this.#stranger ??= await connect(amqpUrl(), { noDelay: true });
    const channel = await this.#stranger.createChannel();
    channel.on("error", () => {});
    return channel;
  }

  /** The same, where the broker says of each message whether it took it. */
  async strangerWithConfirms(): Promise<ConfirmChannel> {
    this.#stranger ??= await connect(amqpUrl(), { noDelay: true });
    const channel = await this.#stranger.createConfirmChannel();
    channel.on("error", () => {});
    return channel;
  }

  /** Messages in a queue that no consumer has in its hands. */
  async ready(queue: string): Promise<number> {
    const channel = await this.stranger();
    const { messageCount } = await channel.checkQueue(queue);
    await channel.close();
    return messageCount;
  }

  /** Stops the buses and removes what they declared. */
  async dispose(): Promise<void> {
    for (const proxy of this.#proxies) proxy.thaw();
    await Promise.all(this.#buses.map((bus) => bus.stop()));
    await Promise.all(this.#proxies.map((proxy) => proxy.close()));
    const channel = await this.stranger();
    const { names } = this;
    for (const queue of [names.tasks(), names.rejected(), names.dead(), names.master()]) {
      await channel.deleteQueue(queue);
    }
    for (const exchange of [
      names.events(),
      names.broadcast(),
      names.cancels(),
      names.items(),
      names.dead(),
      names.rejected(),
    ]) {
      await channel.deleteExchange(exchange);
    }
    for (const node of this.#nodes) await channel.deleteExchange(names.node(node));
    await this.#stranger?.close();
  }
}

/** A logger whose lines from `warn` on can be looked at. */
export function heedingLogger(): { readonly logger: Logger; readonly lines: readonly string[] } {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  return { logger: createLogger({ level: "warn", destination }), lines };
}

/** Resolves with what `look` finds as soon as it finds something. */
export async function found<Value>(
  what: string,
  look: () => Value | undefined | Promise<Value | undefined>,
  timeoutMs = 20_000,
): Promise<Value> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await look();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Resolves as soon as something is true. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  await found(what, async () => ((await holds()) ? true : undefined));
}
