import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import { FetchError, StorageError } from "./errors.js";
import type { Fetched } from "./fetch/fetcher.js";
import { BodyRestartedError, type ResumedBodyInput, resumedBody } from "./fetch/resumed-body.js";
import { fileNameOf, SNIFFED_BYTES, wantedType } from "./file-types.js";
import type { TaskLimits } from "./limits.js";
import type { FileStore, StoredContent } from "./records.js";
import type { Spider } from "./spider.js";
import type { Task } from "./task.js";

export type FileKeeperDeps = {
  readonly files: FileStore;
  readonly clock: Clock;
  /** Told now and then how much of a file has come, while that takes long. */
  readonly onProgress?: (task: Task, bytes: number) => void;
};

export type SaveOptions = Pick<ResumedBodyInput, "signal" | "askAgain"> & {
  /** Whether its rest may be asked for when it is cut. */
  readonly mayResume: boolean;
};

/** How often is told how much of a file has come, in milliseconds. */
const PROGRESS_MS = 1_000;

/** The type under which a body is to be stored as a file, or undefined if it is not to be. */
export async function fileTypeOf(fetched: Fetched, task: Task, spider: Spider): Promise<string | undefined> {
  if (spider.fileTypes === undefined) {
    return task.kind === "file" ? (fetched.contentType ?? "application/octet-stream") : undefined;
  }
  return wantedType(spider.fileTypes, fetched.contentType, await fetched.body.peek(SNIFFED_BYTES));
}

/** Takes bodies from the network to the file store, and goes on where a transfer was cut. */
export class FileKeeper {
  readonly #deps: FileKeeperDeps;
  readonly #limits: Pick<TaskLimits, "maxFileBytes" | "maxResumes" | "retryDelayMs">;

  constructor(
    deps: FileKeeperDeps,
    limits: Pick<TaskLimits, "maxFileBytes" | "maxResumes" | "retryDelayMs">,
  ) {
    this.#deps = deps;
    this.#limits = limits;
  }

  /**
   * @throws FetchError when the body could not be had whole
   * @throws BodyRestartedError when another came instead of its rest
   * @throws StorageError
   */
  async save(
    first: Fetched,
    url: string,
    contentType: string,
    task: Task,
    { signal, askAgain, mayResume }: SaveOptions,
  ): Promise<StoredContent> {
    const { maxFileBytes, maxResumes } = this.#limits;
    const { clock, files } = this.#deps;
    const body = resumedBody({
      first,
      maxBytes: maxFileBytes,
      maxResumes: mayResume ? maxResumes : 0,
      now: clock.now(),
      signal,
      askAgain,
      pause: (resumes) => this.#pause(task, resumes),
    });
    try {
      return await files.save(this.#watched(body, task), { name: fileNameOf(url), contentType });
    } catch (error) {
      if (error instanceof FetchError || error instanceof BodyRestartedError) throw error;
      throw new StorageError(`${url} could not be stored: ${messageOf(error)}`, { cause: error });
    }
  }

  /** What goes on is a fetch like any other: the host's delay runs before it. */
  #pause({ delayMs }: Task, resumes: number): Promise<void> {
    const backoffMs = (this.#limits.retryDelayMs / 4) * 2 ** (resumes - 1);
    return new Promise((resolve) => {
      this.#deps.clock.after(Math.max(delayMs, backoffMs), resolve);
    });
  }

  /** The same bytes, of which is told when there are many or they come slowly. */
  async *#watched(bytes: AsyncIterable<Buffer>, task: Task): AsyncGenerator<Buffer, void> {
    const { clock, onProgress } = this.#deps;
    if (onProgress === undefined) {
      yield* bytes;
      return;
    }
    let received = 0;
    let toldAt = clock.monotonic();
    for await (const chunk of bytes) {
      received += chunk.length;
      yield chunk;
      if (clock.monotonic() - toldAt < PROGRESS_MS) continue;
      toldAt = clock.monotonic();
      onProgress(task, received);
    }
  }
}
