import type { Clock } from "../../lib/clock.js";
import type { FetchError } from "../errors.js";
import type {
  ArchiveRecord,
  StoredContent,
  Truncation,
  WireHeader,
  WireRequest,
  WireResponse,
} from "../records.js";
import type { Task } from "../task.js";

/** Hears what goes over the wire for one request. */
export interface ExchangeTap {
  requestSent(request: WireRequest): void;
  responseBegan(response: WireResponse): void;
  bodyReceived(chunk: Buffer): void;
  /** @param failure absent when the response came whole */
  ended(failure: FetchError | undefined): void;
}

/** Headers that say who someone is: they have no place in what is handed on. */
const HIDDEN_HEADERS = new Set(["authorization", "cookie", "proxy-authorization"]);

/** Takes down the exchanges of one task. */
export class TaskArchive {
  readonly #task: Task;
  readonly #clock: Clock;
  readonly #maxBytes: number;
  readonly #recorders: ExchangeRecorder[] = [];

  /** @param maxBytes of a body that is held, as it comes over the wire */
  constructor(task: Task, clock: Clock, maxBytes: number) {
    this.#task = task;
    this.#clock = clock;
    this.#maxBytes = maxBytes;
  }

  /** The tap for the next request. */
  tap(url: string): ExchangeTap {
    const recorder = new ExchangeRecorder(url, this.#clock, this.#maxBytes);
    this.#recorders.push(recorder);
    return recorder;
  }

  /** The body of the last exchange is stored as a file: it need not be held here too. */
  bodyIsStored(content: StoredContent): void {
    this.#recorders.at(-1)?.bodyIsStored(content);
  }

  /** What there is to be stored, once every exchange is over; those without an answer leave nothing. */
  async records(): Promise<readonly ArchiveRecord[]> {
    const { id, round, attempts, crawl, depth, parent } = this.#task;
    const records: ArchiveRecord[] = [];
    for (const [number, recorder] of this.#recorders.entries()) {
      if (!recorder.wasSent) continue;
      await recorder.over;
      const exchange = recorder.exchange();
      if (exchange === undefined) continue;
      records.push({
        id: `${id}.${round}.${attempts}.${number}`,
        crawl,
        depth,
        ...(parent !== undefined && { via: parent }),
        ...exchange,
      });
    }
    return records;
  }
}

/** Takes down one exchange, as long as its body fits. */
class ExchangeRecorder implements ExchangeTap {
  readonly #url: string;
  readonly #clock: Clock;
  readonly #maxBytes: number;
  readonly #at: number;
  #endedAt = 0;
  #over: Promise<void> = Promise.resolve();
  #end: () => void = () => {};
  #request: WireRequest | undefined;
  #response: WireResponse | undefined;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #truncated: Truncation | undefined;
  #content: StoredContent | undefined;

  constructor(url: string, clock: Clock, maxBytes: number) {
    this.#url = url;
    this.#clock = clock;
    this.#maxBytes = maxBytes;
    this.#at = clock.now();
  }

  get wasSent(): boolean {
    return this.#request !== undefined;
  }

  /** Resolves when nothing more will come. */
  get over(): Promise<void> {
    return this.#over;
  }

  requestSent(request: WireRequest): void {
    const headers = request.headers.map(([name, value]): WireHeader => {
      return [name, HIDDEN_HEADERS.has(name.toLowerCase()) ? "(hidden)" : value];
    });
    this.#request = { ...request, headers };
    // Through another proxy it may be sent once more.
    this.#over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  responseBegan(response: WireResponse): void {
    this.#response = response;
  }

  bodyReceived(chunk: Buffer): void {
    if (this.#truncated !== undefined) return;
    if (this.#bytes + chunk.length > this.#maxBytes) {
      this.#truncated = "length";
      return;
    }
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  bodyIsStored(content: StoredContent): void {
    // What went over the wire here was a part of it only.
    if (this.#response?.statusCode === 206) return;
    this.#content = content;
    this.#chunks = [];
  }

  ended(failure: FetchError | undefined): void {
    this.#endedAt = this.#clock.now();
    if (failure !== undefined) this.#truncated ??= truncationBy(failure);
    this.#end();
  }

  exchange(): Omit<ArchiveRecord, "id" | "crawl" | "depth" | "via"> | undefined {
    const request = this.#request;
    const response = this.#response;
    if (request === undefined || response === undefined) return undefined;
    const content = this.#content;
    const truncated = content === undefined ? this.#truncated : undefined;
    return {
      url: this.#url,
      at: this.#at,
      fetchMs: Math.max(0, Math.round(this.#endedAt - this.#at)),
      request,
      response,
      body: content ?? Buffer.concat(this.#chunks, this.#bytes),
      ...(truncated !== undefined && { truncated }),
    };
  }
}

function truncationBy({ reason }: FetchError): Truncation {
  switch (reason) {
    case "too-large":
      return "length";
    case "timeout":
      return "time";
    case "network":
      return "disconnect";
    default:
      return "unspecified";
  }
}
