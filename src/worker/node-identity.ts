import { hostname } from "node:os";
import { CallError, type NodeClaim } from "../bus/index.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";

export type NodeIdentityOptions = {
  readonly node: string;
  /**
   * How long a connection may hold the id without anyone there who answers, in milliseconds: longer than the
   * broker takes to notice that a machine is gone, three of its heartbeats. @default 45_000
   */
  readonly patienceMs?: number;
};

export type NodeIdentityDeps = {
  readonly bus: Pick<WarrenBus, "claimNode" | "calls">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Another process goes by this id: this one has to leave. */
  readonly onTaken: (error: ConfigError) => void;
};

/** How long whoever holds the id is given to say who they are, in milliseconds. */
const ASK_TIMEOUT_MS = 2_000;
const PATIENCE_MS = 45_000;

type Holder = { readonly epoch?: unknown; readonly pid?: unknown; readonly host?: unknown };

/**
 * Sees to it that one process at a time goes by a node's id.
 *
 *   unclaimed ──claimed──▶ held ──connection lost──▶ in doubt ──claimed again──▶ held
 *       │                                               │
 *       └──someone answers by that id──▶ refused        └──another answers by that id──▶ taken
 *
 * To start without the claim is not possible. In doubt a node works on: most of the time it is its own last
 * connection that the broker has not missed yet.
 */
export class NodeIdentity implements Service {
  readonly name = "node identity";
  readonly #node: string;
  readonly #patienceMs: number;
  readonly #deps: NodeIdentityDeps;
  readonly #stopping = new AbortController();
  #claim: NodeClaim | undefined;
  #epoch = 0;
  #isLooking = false;
  #stopTimer: StopTimer = () => {};

  constructor({ node, patienceMs = PATIENCE_MS }: NodeIdentityOptions, deps: NodeIdentityDeps) {
    this.#node = node;
    this.#patienceMs = patienceMs;
    this.#deps = deps;
  }

  /** Tells this process from earlier ones with the same id; grows from one to the next, by the database's clock. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Resolves when the id is this process's alone.
   * @throws ConfigError when another process goes by it
   */
  async start(): Promise<void> {
    const claim = this.#deps.bus.claimNode(this.#node);
    this.#claim = claim;
    let isRefused = false;
    let tell: () => void = () => {};
    const refused = new Promise<void>((resolve) => {
      tell = resolve;
    });
    const stopListening = claim.onRefused(() => {
      isRefused = true;
      tell();
    });
    const held = claim.held(this.#stopping.signal);
    await Promise.race([held, refused]);
    if (isRefused) await this.#outlast(held);
    stopListening();
    if (this.#stopping.signal.aborted) return;
    claim.onRefused(() => void this.#lookForAnother());
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#stopTimer();
    this.#claim?.stop();
  }

  /** Called when everything that keeps time is there. A later start is told by a greater number. */
  beginEpoch(): void {
    this.#epoch = Math.max(this.#epoch + 1, Math.floor(this.#deps.clock.now()));
  }

  /**
   * A later start of this node is known. With the claim in hand that can only be a matter of clocks: this process
   * counts as a later one from now on.
   * @returns false when there is another process, and this one has to leave
   */
  outdated(): boolean {
    if (this.#claim?.isHeld === true) {
      this.beginEpoch();
      return true;
    }
    this.#leave(this.#takenBy({}));
    return false;
  }

  /** Someone holds the id: gives way if they answer, and waits if it is a connection with nobody behind it. */
  async #outlast(held: Promise<boolean>): Promise<void> {
    const { clock, bus } = this.#deps;
    const until = clock.monotonic() + this.#patienceMs;
    let isHeld = false;
    void held.then(() => {
      isHeld = true;
    });
    while (!isHeld && !this.#stopping.signal.aborted) {
      let holder: Holder | undefined;
      try {
        // We serve no commands yet, so whoever answers is not us.
        holder = await bus.calls.callNode(this.#node, "system-info", {}, { timeoutMs: ASK_TIMEOUT_MS });
      } catch (error) {
        // It answered, if only with an error.
        if (!(error instanceof CallError)) throw error;
        if (!["timeout", "unavailable", "cancelled"].includes(error.code)) holder = {};
      }
      if (isHeld || this.#stopping.signal.aborted) return;
      if (holder !== undefined) throw this.#takenBy(holder);
      if (clock.monotonic() > until) {
        throw new ConfigError(
          `--node-id (WARREN_NODE_ID): a connection that does not answer has held the node id "${this.#node}" ` +
            `for ${this.#patienceMs} ms; end the process behind it, or give this one another id`,
        );
      }
      await Promise.race([held, this.#sleep(500)]);
    }
  }

  /** After a reconnect: is it our own last connection that holds the id, or someone else? */
  async #lookForAnother(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const { bus, logger } = this.#deps;
    try {
      // It reaches whoever serves by this id, us included; of two that answer the first is heard. When it is us,
      // the next refusal makes us ask again.
      const holder: Holder = await bus.calls.callNode(
        this.#node,
        "system-info",
        {},
        { timeoutMs: ASK_TIMEOUT_MS },
      );
      if (holder.epoch !== this.#epoch && this.#claim?.isHeld !== true) this.#leave(this.#takenBy(holder));
    } catch (error) {
      logger.debug({ error: messageOf(error) }, "could not find out who holds the node's id");
    } finally {
      this.#isLooking = false;
    }
  }

  #leave(error: ConfigError): void {
    if (this.#stopping.signal.aborted) return;
    this.#deps.logger.error({ error: error.message }, "another process goes by this node's id: leaving");
    this.#deps.onTaken(error);
  }

  #takenBy({ pid, host }: Holder): ConfigError {
    const whom =
      typeof pid === "number"
        ? `process ${pid} on ${host === hostname() ? "this machine" : String(host)}`
        : "another process";
    return new ConfigError(
      `--node-id (WARREN_NODE_ID): node "${this.#node}" is running already, as ${whom}; ` +
        "give this one another id, or a --data-dir of its own",
    );
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#stopTimer = this.#deps.clock.after(ms, resolve);
      this.#stopping.signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
}
