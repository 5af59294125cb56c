import { messageOf } from "../lib/errors.js";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";

/** How long until the broker is asked again at most, when it has refused, in milliseconds. */
const ASK_AGAIN_MS = 800;

/**
 * The right to go by a node's id, which one connection has at a time: an exclusive queue of that name, which the
 * broker gives to the first who declares it and deletes when that connection ends. It takes no messages.
 *
 * A process that dies frees it at once. One whose machine or network dies holds it until the broker misses its
 * heartbeats; and so does our own last connection, if only we noticed that it was lost. Hence it is asked for
 * again and again, and what a refusal means is for the owner to find out.
 */
export class NodeClaim {
  readonly #channel: SupervisedChannel;
  readonly #onRefused = new Set<() => void>();

  constructor(queue: string, consuming: SupervisedConnection) {
    this.#channel = consuming.persistentChannel("claim of a node's id", ASK_AGAIN_MS, async ({ channel }) => {
      try {
        await channel.assertQueue(queue, {
          exclusive: true,
          durable: false,
          arguments: { "x-max-length": 0 },
        });
      } catch (error) {
        if (/RESOURCE[_-]LOCKED/.test(messageOf(error))) for (const listener of this.#onRefused) listener();
        throw error;
      }
    });
  }

  get isHeld(): boolean {
    return this.#channel.current !== undefined;
  }

  /** Resolves once it is held, or when it is given up or the signal is aborted before. */
  async held(signal?: AbortSignal): Promise<boolean> {
    return (await this.#channel.opened(signal)) !== undefined;
  }

  /**
   * Calls the listener each time that the broker says that another connection holds it.
   * @returns ends it
   */
  onRefused(listener: () => void): () => void {
    this.#onRefused.add(listener);
    return () => this.#onRefused.delete(listener);
  }

  /** Asks for it no more. What is held stays so until the connection ends, when all else has stopped. */
  stop(): void {
    this.#channel.stop();
  }
}
