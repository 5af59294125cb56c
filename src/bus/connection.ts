import { setMaxListeners } from "node:events";
import { type Channel, type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { type Logger, withoutPassword } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { coalesceWrites } from "./coalesced-writes.js";
import { BusStoppedError } from "./errors.js";
import { checkSecurity, type SecurityOptions, socketSecurity, tlsRefusalOf } from "./security.js";
import { isRefused, topologyError } from "./topology.js";

export type ConnectionOptions = {
  /** `amqp://` or `amqps://`, tried in turn. */
  readonly urls: readonly string[];
  readonly identity: Identity;
  /** For `amqps://`. @default none of it */
  readonly security?: SecurityOptions;
  /** What the connection is for, part of its name on the broker. */
  readonly purpose: "publish" | "consume" | "answer";
  /** A peer that is silent for two of these is gone, in seconds. A URL's `heartbeat` goes first. @default 10 */
  readonly heartbeatSeconds: number;
  /** Longest time for one attempt, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs: number;
  /** Waits between attempts grow from the first to the second, with jitter, in milliseconds. */
  readonly reconnect: { readonly minMs: number; readonly maxMs: number };
  /** How often bindings are made again, should someone have removed them, in milliseconds, about. */
  readonly refreshMs: number;
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
  /** Declares what must exist: on every connect, before anything else is done, and when some of it was missing. */
  readonly declare: (channel: Channel) => Promise<void>;
  /** Fails, and costs the channel, when what others consume from is missing. */
  readonly check?: (channel: Channel) => Promise<unknown>;
};

/** A channel as it is now: the number of its opening, and a signal that is aborted when it is lost. */
export type OpenChannel<Kind extends Channel = Channel> = {
  readonly channel: Kind;
  readonly epoch: number;
  readonly signal: AbortSignal;
  /**
   * Declares something that others can remove without the broker telling us, such as a binding: now, and again
   * once in a while as long as the channel is open, at intervals of half to one and a half times `everyMs`. Should an
   * exchange be missing then, that costs the channel, and everything is declared anew.
   * @param everyMs in milliseconds; the connection's `refreshMs` by default
   */
  readonly keep: (declare: () => Promise<unknown>, everyMs?: number) => Promise<void>;
};

/** Longest time for a connection to close in good order, in milliseconds; then its socket is dropped. */
const CLOSE_TIMEOUT_MS = 3_000;

/**
 * How long after something was found to be missing it is declared anew, in milliseconds. RabbitMQ tells the
 * consumers of a deleted quorum queue some 30 ms later; when there is a queue of that name again by then, it
 * tells them nothing, and hands them messages that never arrive (seen with 3.10.8).
 */
const REDECLARE_DELAY_MS = 1_000;

/** One that was up for less than this, in milliseconds, does not show that the next will be. */
const STEADY_MS = 10_000;

/** The wait after a loss doubles up to so many times: unlike one that is away, such a broker can be had. */
const MAX_LOSSES = 3;

/** How long a connection that is over may take to send its last bytes, in milliseconds. */
const LINGER_MS = 500;

/**
 * One connection to the broker, kept up.
 *
 *   down ──attempt──▶ connecting ──declared──▶ up ──lost──▶ down, and again after a wait with jitter
 *                          └─────failed──────────▶ down, with a wait that grows
 *
 * Each of its channels is kept open by itself while the connection is up:
 *
 *   closed ──connection up──▶ opening ──set up──▶ open ──closed by the broker, or its consumer cancelled──▶ closed
 *
 * so an error on one channel (404, 406, a consumer's time-out) costs that channel only. Channels have
 * listeners for errors the instant they exist: without, amqplib takes the whole connection down. A channel that
 * opens again on the same connection declares everything anew first, since what closed it may have been that
 * someone deleted a queue or an exchange.
 */
export class SupervisedConnection {
  readonly #options: ConnectionOptions;
  readonly #deps: ConnectionDeps;
  readonly #channels = new Set<Supervised>();
  #model: ChannelModel | undefined;
  /** Drops the socket of the attempt or connection at hand. */
  #socket = new AbortController();
  #running: Promise<void> | undefined;
  #declaring: Promise<void> | undefined;
  #isStopped = false;
  /** The user may use what there is, and not declare it. */
  #isDeclaringRefused = false;
  #isBlocked = false;
  #isReady = false;
  #failures = 0;
  #nextUrl = 0;
  #wake: () => void = () => {};
  readonly #onUnblocked = new Set<() => void>();
  readonly #onRestored = new Set<() => void>();

  constructor(options: ConnectionOptions, deps: ConnectionDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get isUp(): boolean {
    return this.#model !== undefined;
  }

  /** Whether it is up and its channels are open, as far as they can be. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** The broker takes no messages for now: one of its alarms has gone off. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  onUnblocked(listener: () => void): void {
    this.#onUnblocked.add(listener);
  }

  /** Calls the listener each time that the connection is back, and its channels are open as far as they can be. */
  onRestored(listener: () => void): void {
    this.#onRestored.add(listener);
  }

  /**
   * Resolves when the connection is up for the first time; from then on it is kept up until `stop`.
   * @throws ConfigError when trying again cannot help
   * @throws BusStoppedError when it was stopped before
   */
  async start(): Promise<void> {
    const { urls, security = {} } = this.#options;
    checkUrls(urls);
    checkSecurity(urls, security);
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
      ).then(() => reject(new BusStoppedError("stopped before RabbitMQ could be reached")), reject);
    });
  }

  /** Keeps it up from now on, whatever the broker says. Doing so again is harmless. */
  open(): void {
    if (this.#isStopped) return;
    this.#running ??= this.#keepUp(
      () => {},
      () => false,
    );
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#wake();
    const channels = [...this.#channels];
    for (const channel of channels) channel.stop();
    const stopTimer = this.#deps.clock.after(CLOSE_TIMEOUT_MS, () => this.#socket.abort());
    // Channels first: the request to close a connection overtakes what they have not written yet, such as the
    // last acknowledgements. A broker that takes no messages would never answer.
    if (!this.#isBlocked) await Promise.all(channels.map((channel) => channel.close()));
    // What closing resolves with cannot be waited for: a connection that is lost meanwhile never answers.
    if (this.#model === undefined) this.#socket.abort();
    else this.#model.close().catch(() => {});
    await this.#running?.catch(() => {});
    stopTimer();
  }

  /** A channel that is set up anew each time it opens. */
  channel(name: string, setUp: (open: OpenChannel) => Promise<void>): SupervisedChannel {
    return this.#supervise(name, (model) => model.createChannel(), setUp, { redeclares: true });
  }

  /**
   * The same for something that the broker may refuse for a while, by closing the channel: it is asked again and
   * again, within at most `maxMs` milliseconds each time.
   */
  persistentChannel(
    name: string,
    maxMs: number,
    setUp: (open: OpenChannel) => Promise<void>,
  ): SupervisedChannel {
    const reconnect = { minMs: maxMs / 8, maxMs };
    return this.#supervise(name, (model) => model.createChannel(), setUp, { redeclares: false, reconnect });
  }

  /**
   * The same, on which the broker confirms what is published.
   * @param redeclares whether what closes it may be that something is missing which Warren itself declares; if
   *   not, it is there to be closed by what strangers ask for, and opens again at once
   */
  confirmChannel(
    name: string,
    redeclares: boolean,
    setUp: (open: OpenChannel<ConfirmChannel>) => Promise<void>,
  ): SupervisedChannel<ConfirmChannel> {
    return this.#supervise(name, (model) => model.createConfirmChannel(), setUp, { redeclares });
  }

  /** Declares everything again after a while, because some of it turned out to be missing. */
  async redeclare(): Promise<void> {
    this.#declaring ??= this.#declareLater().finally(() => {
      this.#declaring = undefined;
    });
    await this.#declaring;
  }

  async #declareLater(): Promise<void> {
    await new Promise<void>((resolve) => this.#deps.clock.after(REDECLARE_DELAY_MS, resolve));
    if (this.#model !== undefined) await this.#declareOn(this.#model);
  }

  #supervise<Kind extends Channel>(
    name: string,
    create: (model: ChannelModel) => Promise<Kind>,
    setUp: (open: OpenChannel<Kind>) => Promise<void>,
    {
      redeclares,
      reconnect = this.#options.reconnect,
    }: { readonly redeclares: boolean; readonly reconnect?: ConnectionOptions["reconnect"] },
  ): SupervisedChannel<Kind> {
    const channel = new SupervisedChannel<Kind>(name, create, setUp, {
      ...this.#deps,
      reconnect,
      refreshMs: this.#options.refreshMs,
      isExpendable: !redeclares,
      redeclare: () => this.redeclare(),
      onGone: (gone) => this.#channels.delete(gone),
    });
    this.#channels.add(channel);
    if (this.#isStopped) channel.stop();
    else if (this.#model !== undefined) void channel.attach(this.#model);
    return channel;
  }

  async #keepUp(onUp: () => void, isFatal: (error: unknown) => boolean): Promise<void> {
    const { logger, clock, metrics } = this.#deps;
    const { purpose } = this.#options;
    let wasUp = false;
    let losses = 0;
    while (!this.#isStopped) {
      try {
        const [model, lost] = await this.#connect(wasUp);
        if (this.#isStopped) return;
        this.#model = model;
        const upAt = clock.monotonic();
        if (this.#failures > 0 || wasUp) logger.info({ purpose }, "connected to RabbitMQ again");
        if (wasUp) metrics?.busReconnects.inc();
        const isRestored = wasUp;
        this.#failures = 0;
        wasUp = true;
        await Promise.race([Promise.all([...this.#channels].map((channel) => channel.attach(model))), lost]);
        this.#isReady = this.isUp;
        onUp();
        if (isRestored && this.#isReady) for (const listener of this.#onRestored) listener();
        const reason = await lost;
        if (this.#isStopped) return;
        logger.warn({ purpose, error: reason }, "lost the connection to RabbitMQ");
        // All who lost theirs at the same instant must not come back at the same instant, and a broker that
        // takes connections only to drop them must not be asked over and over.
        losses = clock.monotonic() - upAt < STEADY_MS ? Math.min(losses + 1, MAX_LOSSES) : 0;
        await this.#sleep(this.#jittered(losses));
      } catch (error) {
        if (isFatal(error)) return;
        this.#failures += 1;
        await this.#pause(error);
      }
    }
  }

  async #pause(error: unknown): Promise<void> {
    const { logger } = this.#deps;
    const { urls, purpose } = this.#options;
    // The wait is for when all of them have been tried.
    const rounds = Math.floor(this.#failures / urls.length);
    const isRoundOver = this.#failures % urls.length === 0;
    const waitMs = isRoundOver ? this.#jittered(rounds) : 0;
    // Said at once and then less and less often: the first time matters, the hundredth does not.
    const isWorthSaying = (this.#failures & (this.#failures - 1)) === 0;
    const level = isWorthSaying && purpose === "consume" && !this.#isStopped ? "warn" : "debug";
    logger[level](
      { urls: urls.map(withoutPassword), attempt: this.#failures, waitMs, error: messageOf(error) },
      "RabbitMQ is away: trying again",
    );
    await this.#sleep(waitMs);
  }

  /** Anything up to a bound that doubles each time, in milliseconds. */
  #jittered(times: number): number {
    const { minMs, maxMs } = this.#options.reconnect;
    return Math.round(this.#deps.random() * Math.min(maxMs, minMs * 2 ** Math.min(times, 16)));
  }

  /** Resolves after a while, or when it is stopped. */
  async #sleep(ms: number): Promise<void> {
    if (this.#isStopped) return;
    await new Promise<void>((resolve) => {
      const stopTimer = this.#deps.clock.after(ms, resolve);
      this.#wake = () => {
        stopTimer();
        resolve();
      };
    });
  }

  async #connect(isAgain: boolean): Promise<[ChannelModel, Promise<string>]> {
    const { heartbeatSeconds, connectTimeoutMs, identity, purpose, security = {}, urls } = this.#options;
    const { clock } = this.#deps;
    const url = urls[this.#nextUrl % urls.length] ?? "";
    this.#nextUrl += 1;
    const socket = new AbortController();
    this.#socket = socket;
    let model: ChannelModel;
    try {
      const target = new URL(url);
      if (!target.searchParams.has("heartbeat")) {
        target.searchParams.set("heartbeat", String(heartbeatSeconds));
      }
      const socketOptions = {
        ...(await socketSecurity(target, security)),
        // Without, small frames wait for the peer's delayed acknowledgement: 40 ms a call.
        noDelay: true,
        timeout: connectTimeoutMs,
        // Handed on to the socket: the only way to end an attempt, or a connection whose peer is frozen.
        signal: socket.signal,
        clientProperties: {
          connection_name: `${identity.id} (${purpose})`,
          product: "Warren",
          version: identity.version,
          node: identity.id,
          role: identity.role,
        },
      };
      model = await this.#inTime(connect(target.href, socketOptions), socket);
      coalesceWrites(model);
    } catch (error) {
      throw refusalOf(error, url, security) ?? error;
    }
    let reportLoss: (reason: string) => void = () => {};
    const lost = new Promise<string>((resolve) => {
      reportLoss = resolve;
    });
    let lastError = "closed";
    model.on("error", (error: unknown) => {
      lastError = messageOf(error);
    });
    model.on("close", (error: unknown) => {
      this.#lose(model);
      // A peer that is frozen or cut off never closes its end, and the socket would keep the process alive.
      clock.after(LINGER_MS, () => socket.abort());
      reportLoss(error === undefined ? lastError : messageOf(error));
    });
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
      // On the first connect there is mostly nothing yet, and nobody who could be forgotten.
      if (isAgain && !(await this.#isWhole(model))) await this.#sleep(REDECLARE_DELAY_MS);
      await this.#declareOn(model);
    } catch (error) {
      model.close().catch(() => {});
      clock.after(LINGER_MS, () => socket.abort());
      throw topologyError(error) ?? error;
    }
    return [model, lost];
  }

  /** amqplib bounds the time to reach a broker, but not what one that was reached takes to answer. */
  async #inTime(connecting: Promise<ChannelModel>, socket: AbortController): Promise<ChannelModel> {
    const { connectTimeoutMs } = this.#options;
    let stopTimer: () => void = () => {};
    const late = new Promise<never>((_, reject) => {
      stopTimer = this.#deps.clock.after(connectTimeoutMs, () => {
        socket.abort();
        reject(new Error(`the broker did not answer within ${connectTimeoutMs} ms`));
      });
    });
    connecting.catch(() => {});
    try {
      return await Promise.race([connecting, late]);
    } finally {
      stopTimer();
    }
  }

  async #declareOn(model: ChannelModel): Promise<void> {
    const { identity, purpose } = this.#options;
    if (this.#isDeclaringRefused) return;
    const channel = await model.createChannel();
    channel.on("error", () => {});
    let isClosed = false;
    channel.on("close", () => {
      isClosed = true;
    });
    try {
      await this.#deps.declare(channel);
    } catch (error) {
      // A master without this right could do nothing for those who wait for it.
      if (identity.role !== "worker" || !isRefused(error)) throw error;
      this.#isDeclaringRefused = true;
      if (purpose === "consume") {
        this.#deps.logger.info(
          "may not declare queues and exchanges: waiting for a master where they are missing",
        );
      }
      return;
    }
    // The broker may have, over what is no reason to go without the rest.
    if (!isClosed) await closed(channel);
  }

  async #isWhole(model: ChannelModel): Promise<boolean> {
    const { check } = this.#deps;
    if (check === undefined) return true;
    const channel = await model.createChannel();
    channel.on("error", () => {});
    try {
      await check(channel);
    } catch (error) {
      return !/NOT[_-]FOUND/.test(messageOf(error));
    }
    await closed(channel);
    return true;
  }

  #lose(model: ChannelModel): void {
    if (this.#model !== model) return;
    this.#model = undefined;
    this.#isBlocked = false;
    this.#isReady = false;
    for (const channel of this.#channels) channel.detach();
    for (const listener of this.#onUnblocked) listener();
  }
}

/** What a connection does with its channels, of whatever kind. */
type Supervised = {
  attach(model: ChannelModel): Promise<void>;
  detach(): void;
  stop(): void;
  close(): Promise<void>;
};

type ChannelDeps = Pick<ConnectionDeps, "logger" | "clock" | "random"> & {
  readonly reconnect: ConnectionOptions["reconnect"];
  readonly refreshMs: number;
  /** It is made for what may close it: that is nothing to warn of, wait after, or look for a reason of. */
  readonly isExpendable: boolean;
  readonly redeclare: () => Promise<void>;
  readonly onGone: (channel: Supervised) => void;
};

/** A channel of a supervised connection; see there. */
export class SupervisedChannel<Kind extends Channel = Channel> {
  readonly #name: string;
  readonly #create: (model: ChannelModel) => Promise<Kind>;
  readonly #setUp: (open: OpenChannel<Kind>) => Promise<void>;
  readonly #deps: ChannelDeps;
  #model: ChannelModel | undefined;
  /** Where it was last opened, or tried to be. */
  #triedOn: ChannelModel | undefined;
  #open: OpenChannel<Kind> | undefined;
  /** Aborts the signal of the channel that is open. */
  #lose: () => void = () => {};
  #epoch = 0;
  #failures = 0;
  #openingOn: ChannelModel | undefined;
  #isStopped = false;
  #stopTimer: () => void = () => {};
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
    this.#stopTimer();
  }

  /** Closes the channel as it is now; it opens anew. From this moment on it counts as lost. */
  renew(): void {
    const open = this.#open;
    this.#open = undefined;
    this.#lose();
    open?.channel.close().catch(() => {});
  }

  /** Closes it for good; what was sent on it goes out first. */
  async close(): Promise<void> {
    const open = this.#open;
    this.stop();
    this.#deps.onGone(this);
    if (open === undefined) return;
    this.#open = undefined;
    this.#lose();
    await closed(open.channel);
  }

  /** It will not open again; as it is now it stays open. */
  stop(): void {
    this.#isStopped = true;
    this.#stopTimer();
    for (const finish of [...this.#waiting]) finish(undefined);
  }

  async #tryToOpen(): Promise<void> {
    const model = this.#model;
    if (model === undefined || this.#isStopped || this.#openingOn === model || this.#open !== undefined)
      return;
    // An attempt on a connection that dies may never end; the next connection's must not wait for it.
    this.#openingOn = model;
    try {
      if (this.#triedOn === model && !this.#deps.isExpendable) await this.#deps.redeclare();
      if (this.#model !== model) throw new Error("the connection was lost meanwhile");
      this.#triedOn = model;
      await this.#openOn(model);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      if (this.#model === model) {
        const level = this.#deps.isExpendable ? "debug" : "warn";
        this.#deps.logger[level](
          { channel: this.#name, error: messageOf(error) },
          "could not open a channel",
        );
      }
    } finally {
      if (this.#openingOn === model) this.#openingOn = undefined;
    }
    if (this.#open === undefined && this.#model === model) this.#openLater();
  }

  async #openOn(model: ChannelModel): Promise<void> {
    const channel = await this.#create(model);
    const lost = new AbortController();
    // Everything that is taken on this channel may listen to it.
    setMaxListeners(0, lost.signal);
    let lastError = "closed";
    let isClosed = false;
    channel.on("error", (error: unknown) => {
      lastError = messageOf(error);
    });
    channel.on("handler-error", (error: unknown) => {
      this.#deps.logger.error({ err: error, channel: this.#name }, "a handler of messages failed");
    });
    let wasOpened = false;
    channel.on("close", () => {
      isClosed = true;
      if (this.#open?.channel === channel) this.#open = undefined;
      lost.abort();
      // A connection that is lost closes its channels before it says so.
      if (wasOpened) setImmediate(() => this.#closed(model, lastError));
    });
    this.#epoch += 1;
    const { signal } = lost;
    const keep = async (declare: () => Promise<unknown>, everyMs = this.#deps.refreshMs) => {
      await declare();
      this.#declareAgainLater(declare, everyMs, signal);
    };
    const open = { channel, epoch: this.#epoch, signal, keep };
    // What it was set up for may be over before all of it is done: its queue deleted, its consumer cancelled.
    this.#lose = () => lost.abort();
    try {
      await this.#setUp(open);
      if (isClosed) throw new Error(lastError);
      if (this.#model !== model) throw new Error("the connection was lost meanwhile");
      if (signal.aborted) throw new Error("given up while it was opened");
      if (this.#isStopped) throw new Error("stopped while it was opened");
    } catch (error) {
      lost.abort();
      if (!isClosed) channel.close().catch(() => {});
      throw error;
    }
    wasOpened = true;
    this.#open = open;
    for (const finish of [...this.#waiting]) finish(open);
  }

  #declareAgainLater(declare: () => Promise<unknown>, everyMs: number, signal: AbortSignal): void {
    if (signal.aborted) return;
    // Many processes must not do so at the same instant.
    const waitMs = everyMs * (0.5 + this.#deps.random());
    const stopTimer = this.#deps.clock.after(waitMs, () => {
      signal.removeEventListener("abort", stopTimer);
      // When that fails the channel is closed, and opens anew.
      declare().then(
        () => this.#declareAgainLater(declare, everyMs, signal),
        () => {},
      );
    });
    signal.addEventListener("abort", stopTimer, { once: true });
  }

  #closed(model: ChannelModel, error: string): void {
    if (this.#isStopped || this.#model !== model) return;
    const level = this.#deps.isExpendable ? "debug" : "warn";
    this.#deps.logger[level]({ channel: this.#name, error }, "a channel was closed; opening it anew");
    this.#openLater();
  }

  #openLater(): void {
    if (this.#isStopped || this.#model === undefined) return;
    const { reconnect, isExpendable } = this.#deps;
    if (isExpendable && this.#failures === 0) {
      void this.#tryToOpen();
      return;
    }
    const { minMs, maxMs } = reconnect;
    const waitMs = this.#deps.random() * Math.min(maxMs, minMs * 2 ** Math.min(this.#failures, 16));
    this.#stopTimer();
    this.#stopTimer = this.#deps.clock.after(waitMs, () => void this.#tryToOpen());
  }
}

/** Closes a channel; resolves when it is closed, in whatever way. */
async function closed(channel: Channel): Promise<void> {
  await new Promise<void>((resolve) => {
    // The answer to the request never comes when the connection is lost meanwhile; the event does.
    channel.once("close", resolve);
    channel.close().catch(() => resolve());
  });
}

/** @throws ConfigError naming the first that is no URL of a broker */
function checkUrls(urls: readonly string[]): void {
  if (urls.length === 0) throw new ConfigError("AMQP_URL: names no broker");
  for (const url of urls) {
    const protocol = URL.canParse(url) ? new URL(url).protocol : "";
    if (protocol !== "amqp:" && protocol !== "amqps:") {
      throw new ConfigError(`AMQP_URL: ${withoutPassword(url)} is not an amqp:// or amqps:// URL`);
    }
  }
}

/** What a broker's refusal means for a user; undefined when trying again may help. */
function refusalOf(error: unknown, url: string, { auth }: SecurityOptions): ConfigError | undefined {
  if (error instanceof ConfigError) return error;
  const message = messageOf(error);
  const shown = withoutPassword(url);
  if (/ACCESS[_-]REFUSED/.test(message)) {
    return new ConfigError(
      auth === "external"
        ? `WARREN_AMQP_CERT_FILE: ${shown} has no user of the certificate's name`
        : `AMQP_URL: ${shown} refused the user or password`,
      { cause: error },
    );
  }
  // All that amqplib says of a close in place of this answer; it holds back the broker's reason.
  if (/Expected ConnectionOpenOk; got <ConnectionClose/.test(message)) {
    return new ConfigError(`AMQP_URL: ${shown} has no such virtual host, or not for this user`, {
      cause: error,
    });
  }
  return tlsRefusalOf(error, shown);
}
