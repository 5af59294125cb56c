import { type Channel, type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { type Logger, withoutPassword } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { topologyError } from "./topology.js";

export type ConnectionOptions = {
  /** `amqp://` or `amqps://`, tried in turn. */
  readonly urls: readonly string[];
  readonly identity: Identity;
  /** What the connection is for, part of its name on the broker. */
  readonly purpose: "publish" | "consume";
  /** A peer that is silent for two of these is gone, in seconds. @default 10 */
  readonly heartbeatSeconds: number;
  /** Longest time for one attempt, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs: number;
  /** Waits between attempts grow from the first to the second, with jitter, in milliseconds. */
  readonly reconnect: { readonly minMs: number; readonly maxMs: number };
};

/** Who connects: shown on the broker's management page. */
export type Identity = {
  readonly role: "master" | "worker" | "tool";
  readonly id: string;
  readonly version: string;
};

export type ConnectionDeps = {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metrics?: Metrics;
  readonly random: () => number;
  /** Declares what must exist, on every connect, before anything else is done. */
  readonly declare: (channel: Channel) => Promise<void>;
};

/** A channel as it is now: the number of its opening, and a signal that is aborted when it is lost. */
export type OpenChannel<Kind extends Channel = Channel> = {
  readonly channel: Kind;
  readonly epoch: number;
  readonly signal: AbortSignal;
};

/**
 * One connection to the broker, kept up.
 *
 *   down ──attempt──▶ connecting ──declared──▶ up ──lost──▶ down, and again after a growing wait with jitter
 *                          └─────failed──────────▶ down
 *
 * Each of its channels is kept open by itself while the connection is up:
 *
 *   closed ──connection up──▶ opening ──set up──▶ open ──closed by the broker, or its consumer cancelled──▶ closed
 *
 * so an error on one channel (404, 406, a consumer's time-out) costs that channel only. Channels have
 * listeners for errors the instant they exist: without, amqplib takes the whole connection down.
 */
export class SupervisedConnection {
  readonly #options: ConnectionOptions;
  readonly #deps: ConnectionDeps;
  readonly #channels = new Set<Supervised>();
  #model: ChannelModel | undefined;
  #running: Promise<void> | undefined;
  #isStopped = false;
  #isBlocked = false;
  #failures = 0;
  #nextUrl = 0;
  #wake: () => void = () => {};
  readonly #onUnblocked = new Set<() => void>();

  constructor(options: ConnectionOptions, deps: ConnectionDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get isUp(): boolean {
    return this.#model !== undefined;
  }

  /** The broker takes no messages for now: one of its alarms has gone off. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  onUnblocked(listener: () => void): void {
    this.#onUnblocked.add(listener);
  }

  /**
   * Resolves when the connection is up for the first time; from then on it is kept up until `stop`.
   * @throws ConfigError when trying again cannot help
   */
  async start(): Promise<void> {
    let isFirst = true;
    await new Promise<void>((resolve, reject) => {
      this.#running = this.#keepUp(
        () => {
          isFirst = false;
          resolve();
        },
        (error) => {
          if (isFirst && error instanceof ConfigError) {
            reject(error);
            return true;
          }
          return false;
        },
      ).then(resolve, reject);
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#wake();
    for (const channel of this.#channels) channel.stop();
    try {
      await this.#model?.close();
    } catch {
      // It was lost on the way: closed all the same.
    }
    await this.#running?.catch(() => {});
  }

  /** A channel that is set up anew each time it opens. */
  channel(name: string, setUp: (open: OpenChannel) => Promise<void>): SupervisedChannel {
    return this.#supervise(name, (model) => model.createChannel(), setUp);
  }

  /** The same, on which the broker confirms what is published. */
  confirmChannel(
    name: string,
    setUp: (open: OpenChannel<ConfirmChannel>) => Promise<void>,
  ): SupervisedChannel<ConfirmChannel> {
    return this.#supervise(name, (model) => model.createConfirmChannel(), setUp);
  }

  #supervise<Kind extends Channel>(
    name: string,
    create: (model: ChannelModel) => Promise<Kind>,
    setUp: (open: OpenChannel<Kind>) => Promise<void>,
  ): SupervisedChannel<Kind> {
    const channel = new SupervisedChannel<Kind>(name, create, setUp, {
      ...this.#deps,
      reconnect: this.#options.reconnect,
      onGone: (gone) => this.#channels.delete(gone),
    });
    this.#channels.add(channel);
    if (this.#model !== undefined) void channel.attach(this.#model);
    return channel;
  }

  async #keepUp(onUp: () => void, isFatal: (error: unknown) => boolean): Promise<void> {
    const { logger, metrics } = this.#deps;
    const { purpose } = this.#options;
    let wasUp = false;
    while (!this.#isStopped) {
      try {
        const [model, lost] = await this.#connect();
        this.#model = model;
        if (this.#failures > 0 || wasUp) logger.info({ purpose }, "connected to RabbitMQ again");
        if (wasUp) metrics?.busReconnects.inc();
        this.#failures = 0;
        wasUp = true;
        await Promise.all([...this.#channels].map((channel) => channel.attach(model)));
        onUp();
        const reason = await lost;
        this.#model = undefined;
        this.#isBlocked = false;
        for (const listener of this.#onUnblocked) listener();
        for (const channel of this.#channels) channel.detach();
        if (!this.#isStopped) logger.warn({ purpose, error: reason }, "lost the connection to RabbitMQ");
      } catch (error) {
        this.#model = undefined;
        if (isFatal(error)) return;
        this.#failures += 1;
        await this.#pause(error);
      }
    }
  }

  async #pause(error: unknown): Promise<void> {
    const { logger, clock, random } = this.#deps;
    const { minMs, maxMs } = this.#options.reconnect;
    const waitMs = Math.round(random() * Math.min(maxMs, minMs * 2 ** Math.min(this.#failures, 16)));
    // Said at once and then less and less often: the first time matters, the hundredth does not.
    const isWorthSaying = (this.#failures & (this.#failures - 1)) === 0;
    const level = isWorthSaying && this.#options.purpose === "consume" ? "warn" : "debug";
    const urls = this.#options.urls.map(withoutPassword);
    logger[level](
      { urls, attempt: this.#failures, waitMs, error: messageOf(error) },
      "RabbitMQ is away: trying again",
    );
    await new Promise<void>((resolve) => {
      const stopTimer = clock.after(waitMs, resolve);
      this.#wake = () => {
        stopTimer();
        resolve();
      };
    });
  }

  async #connect(): Promise<[ChannelModel, Promise<string>]> {
    const { heartbeatSeconds, connectTimeoutMs, identity, purpose, urls } = this.#options;
    const url = urls[this.#nextUrl % urls.length] ?? "";
    this.#nextUrl += 1;
    let model: ChannelModel;
    try {
      const target = new URL(url);
      target.searchParams.set("heartbeat", String(heartbeatSeconds));
      model = await connect(target.href, {
        // Without, small frames wait for the peer's delayed acknowledgement: 40 ms a call.
        noDelay: true,
        timeout: connectTimeoutMs,
        clientProperties: {
          connection_name: `${identity.id} (${purpose})`,
          product: "Warren",
          version: identity.version,
          node: identity.id,
          role: identity.role,
        },
      });
    } catch (error) {
      throw refusalOf(error, url) ?? error;
    }
    let reportLoss: (reason: string) => void = () => {};
    const lost = new Promise<string>((resolve) => {
      reportLoss = resolve;
    });
    let lastError = "closed";
    model.on("error", (error: unknown) => {
      lastError = messageOf(error);
    });
    model.on("close", () => reportLoss(lastError));
    model.on("blocked", (reason: unknown) => {
      this.#isBlocked = true;
      this.#deps.logger.warn({ reason: String(reason) }, "RabbitMQ takes no messages for now");
    });
    model.on("unblocked", () => {
      this.#isBlocked = false;
      this.#deps.logger.info("RabbitMQ takes messages again");
      for (const listener of this.#onUnblocked) listener();
    });
    try {
      const channel = await model.createChannel();
      channel.on("error", () => {});
      await this.#deps.declare(channel);
      await channel.close();
    } catch (error) {
      model.close().catch(() => {});
      throw topologyError(error) ?? error;
    }
    return [model, lost];
  }
}

/** What a connection does with its channels, of whatever kind. */
type Supervised = { attach(model: ChannelModel): Promise<void>; detach(): void; stop(): void };

type ChannelDeps = Pick<ConnectionDeps, "logger" | "clock" | "random"> & {
  readonly reconnect: ConnectionOptions["reconnect"];
  readonly onGone: (channel: Supervised) => void;
};

/** A channel of a supervised connection; see there. */
export class SupervisedChannel<Kind extends Channel = Channel> {
  readonly #name: string;
  readonly #create: (model: ChannelModel) => Promise<Kind>;
  readonly #setUp: (open: OpenChannel<Kind>) => Promise<void>;
  readonly #deps: ChannelDeps;
  #model: ChannelModel | undefined;
  #open: OpenChannel<Kind> | undefined;
  #epoch = 0;
  #failures = 0;
  #isOpening = false;
  #isStopped = false;
  readonly #waiting = new Set<(open: OpenChannel<Kind> | undefined) => void>();

  constructor(
    name: string,
    create: (model: ChannelModel) => Promise<Kind>,
    setUp: (open: OpenChannel<Kind>) => Promise<void>,
    deps: ChannelDeps,
  ) {
    this.#name = name;
    this.#create = create;
    this.#setUp = setUp;
    this.#deps = deps;
  }

  /** The channel, if it is open. */
  get current(): OpenChannel<Kind> | undefined {
    return this.#open;
  }

  /** Resolves once it is open; with undefined when it is stopped or the signal is aborted before. */
  opened(signal?: AbortSignal): Promise<OpenChannel<Kind> | undefined> {
    if (this.#open !== undefined) return Promise.resolve(this.#open);
    if (this.#isStopped || signal?.aborted === true) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const finish = (open: OpenChannel<Kind> | undefined) => {
        this.#waiting.delete(finish);
        signal?.removeEventListener("abort", onAbort);
        resolve(open);
      };
      const onAbort = () => finish(undefined);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(finish);
    });
  }

  /** Opens it on a connection that is up. Resolves when that was tried once; it goes on being tried. */
  async attach(model: ChannelModel): Promise<void> {
    this.#model = model;
    await this.#tryToOpen();
  }

  /** The connection is gone. */
  detach(): void {
    this.#model = undefined;
  }

  /** Closes the channel as it is now; it opens anew. */
  renew(): void {
    void this.#open?.channel.close().catch(() => {});
  }

  /** Closes it for good. */
  async close(): Promise<void> {
    this.stop();
    try {
      await this.#open?.channel.close();
    } catch {
      // Closed already.
    }
  }

  /** It will not open again. */
  stop(): void {
    this.#isStopped = true;
    this.#deps.onGone(this);
    for (const finish of this.#waiting) finish(undefined);
  }

  async #tryToOpen(): Promise<void> {
    const model = this.#model;
    if (model === undefined || this.#isStopped || this.#isOpening || this.#open !== undefined) return;
    this.#isOpening = true;
    try {
      await this.#openOn(model);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      if (this.#model === model) {
        this.#deps.logger.warn({ channel: this.#name, error: messageOf(error) }, "could not open a channel");
      }
    } finally {
      this.#isOpening = false;
    }
    if (this.#open === undefined) this.#openLater();
  }

  async #openOn(model: ChannelModel): Promise<void> {
    const channel = await this.#create(model);
    const lost = new AbortController();
    let lastError = "closed";
    let isClosed = false;
    channel.on("error", (error: unknown) => {
      lastError = messageOf(error);
    });
    channel.on("handler-error", (error: unknown) => {
      this.#deps.logger.error({ err: error, channel: this.#name }, "a handler of messages failed");
    });
    channel.on("close", () => {
      isClosed = true;
      const wasOpen = this.#open?.channel === channel;
      if (wasOpen) this.#open = undefined;
      lost.abort();
      if (this.#isStopped || this.#model !== model) return;
      this.#deps.logger.warn(
        { channel: this.#name, error: lastError },
        "a channel was closed; opening it anew",
      );
      if (wasOpen) this.#openLater();
    });
    this.#epoch += 1;
    const open = { channel, epoch: this.#epoch, signal: lost.signal };
    await this.#setUp(open);
    if (isClosed) throw new Error(lastError);
    this.#open = open;
    for (const finish of [...this.#waiting]) finish(open);
  }

  #openLater(): void {
    if (this.#isStopped || this.#model === undefined) return;
    const { minMs, maxMs } = this.#deps.reconnect;
    const waitMs = this.#deps.random() * Math.min(maxMs, minMs * 2 ** Math.min(this.#failures, 16));
    this.#deps.clock.after(waitMs, () => void this.#tryToOpen());
  }
}

/** What a broker's refusal means for a user; undefined when trying again may help. */
function refusalOf(error: unknown, url: string): ConfigError | undefined {
  const message = messageOf(error);
  const shown = withoutPassword(url);
  if (/ACCESS[_-]REFUSED|\b403\b/.test(message)) {
    return new ConfigError(`AMQP_URL: ${shown} refused the user or password`, { cause: error });
  }
  if (/NOT[_-]ALLOWED|\b530\b/.test(message)) {
    return new ConfigError(`AMQP_URL: ${shown} has no such virtual host, or not for this user: ${message}`, {
      cause: error,
    });
  }
  if (/Invalid URL|Expected amqp/.test(message)) {
    return new ConfigError(`AMQP_URL: ${shown} is not an amqp:// or amqps:// URL`, { cause: error });
  }
  return undefined;
}
