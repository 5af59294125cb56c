import { messageOf } from "../lib/errors.js";
import { LOG_LEVELS, type Logger } from "../lib/logger.js";
import type { Nodes, WantedChange, WantedConfiguration } from "../store/index.js";
import type { TaskLoop } from "./task-loop.js";

export type NodeConfigurationDeps = {
  readonly node: string;
  readonly nodes: Pick<Nodes, "want" | "wanted">;
  readonly loop: Pick<
    TaskLoop,
    "concurrency" | "setConcurrency" | "isPaused" | "isDraining" | "pause" | "resume"
  >;
  readonly logger: Logger;
};

/**
 * How this node is configured: as it was started, changed by what users want of it since. That is kept in the
 * database, so it outlasts the process, and a change that was made while the node was away reaches it when it
 * comes back. That a node is emptied (`drain`) is not kept: it is for what comes after, mostly its end.
 */
export class NodeConfiguration {
  readonly #deps: NodeConfigurationDeps;
  readonly #started: { readonly concurrency: number; readonly logLevel: string };
  #revision = 0;

  constructor(deps: NodeConfigurationDeps) {
    this.#deps = deps;
    this.#started = { concurrency: deps.loop.concurrency, logLevel: deps.logger.level };
  }

  /** Of what is wanted, the last change that was adopted. */
  get revision(): number {
    return this.#revision;
  }

  get current(): { readonly concurrency: number; readonly logLevel: string } {
    return { concurrency: this.#deps.loop.concurrency, logLevel: this.#deps.logger.level };
  }

  /** Adopts what was wanted of this node when it ran last, or since. */
  async restore(): Promise<void> {
    const { nodes, node } = this.#deps;
    await this.adopt(await nodes.wanted(node));
  }

  /** Becomes as it is wanted to be, unless it is so already. */
  async adopt(wanted: WantedConfiguration | undefined): Promise<void> {
    if (wanted === undefined || wanted.revision === this.#revision) return;
    const { loop, logger } = this.#deps;
    this.#revision = wanted.revision;
    const { concurrency = this.#started.concurrency, logLevel = this.#started.logLevel } = wanted;
    this.#setLogLevel(logLevel);
    if (concurrency !== loop.concurrency) await loop.setConcurrency(concurrency);
    if (wanted.paused === true && !loop.isPaused) await loop.pause();
    if (wanted.paused !== true && loop.isPaused && !loop.isDraining) await loop.resume();
    logger.info({ ...this.current, paused: loop.isPaused }, "configured as it is wanted");
  }

  /** Does what it was told, and sees to it that it stays so. What cannot be kept now still counts here. */
  async change({ concurrency, logLevel, paused }: WantedChange): Promise<void> {
    const { loop, nodes, node, logger } = this.#deps;
    if (typeof logLevel === "string") this.#setLogLevel(logLevel);
    if (typeof concurrency === "number") await loop.setConcurrency(concurrency);
    if (paused === true) await loop.pause();
    if (paused === false) await loop.resume();
    try {
      const wanted = await nodes.want(node, {
        ...(concurrency !== undefined && { concurrency }),
        ...(logLevel !== undefined && { logLevel }),
        ...(paused !== undefined && { paused }),
      });
      // Someone else's change may have come with it.
      await this.adopt(wanted);
    } catch (error) {
      logger.warn({ error: messageOf(error) }, "could not keep how this node is to be configured");
    }
  }

  #setLogLevel(level: string): void {
    const known = LOG_LEVELS.find((each) => each === level);
    if (known !== undefined) this.#deps.logger.level = known;
  }
}
