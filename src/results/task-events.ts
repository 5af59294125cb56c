import type { BusEvent, Events } from "../bus/index.js";
import type { HostNews } from "../crawl/dispatch/host-state.js";
import type { Task } from "../crawl/task.js";
import type { TaskResult } from "../crawl/task-result.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import type { CommittedGroup } from "./committer.js";

/** What is known of a result beside it. */
export type EventContext = {
  readonly task: Pick<Task, "id" | "crawl" | "url" | "attempts" | "request">;
  /** Who brought it, when that was not this process. */
  readonly node?: string;
};

type Group = CommittedGroup<EventContext>;

const KEY_OF = {
  done: "task.completed",
  failed: "task.failed",
  skipped: "task.skipped",
  queued: "task.requeued",
} as const;

/** How long starts are gathered before they are told, in milliseconds. */
const GATHER_MS = 50;

/** Tells everyone what happened to tasks: one message for many, each kind under its own key. */
export class TaskEvents {
  readonly #events: Events;
  readonly #node: string;
  readonly #clock: Clock;
  #started: BusEvent[] = [];
  #learnt: BusEvent[] = [];
  #stopTimer: StopTimer | undefined;

  constructor(events: Events, node: string, clock: Clock) {
    this.#events = events;
    this.#node = node;
    this.#clock = clock;
  }

  started(task: Task): void {
    this.#started.push({
      type: "task.started",
      at: this.#now(),
      crawl: task.crawl,
      node: this.#node,
      ...task.request?.trace,
      data: { id: task.id, url: task.url, attempt: task.attempts + 1 },
    });
    this.#flushSoon();
  }

  /** So many bytes of a file have come, and more will. */
  progress(task: Task, bytes: number): void {
    this.#events.publish("task.progress", [
      {
        type: "task.progress",
        at: this.#now(),
        crawl: task.crawl,
        node: this.#node,
        ...task.request?.trace,
        data: { id: task.id, url: task.url, bytes },
      },
    ]);
  }

  /** Told first what was found and then what ended, so that no dispatcher takes a crawl to be over too soon. */
  committed(group: Group): void {
    this.flush();
    const hostsByCrawl = new Map<string, Set<string>>();
    for (const { crawl, host } of group.links.queued) {
      const hosts = hostsByCrawl.get(crawl);
      if (hosts === undefined) hostsByCrawl.set(crawl, new Set([host]));
      else hosts.add(host);
    }
    this.added(hostsByCrawl);
    const byKey = new Map<string, BusEvent[]>();
    for (const { result, context } of group.members) {
      const key = KEY_OF[result.ending.state];
      const event = this.#ended(key, result, context);
      const others = byKey.get(key);
      if (others === undefined) byKey.set(key, [event]);
      else others.push(event);
    }
    for (const [key, events] of byKey) this.#events.publish(key, events);
  }

  /** URLs were queued on these hosts, by crawl. */
  added(hostsByCrawl: ReadonlyMap<string, ReadonlySet<string>>): void {
    if (hostsByCrawl.size === 0) return;
    const events: BusEvent[] = [];
    for (const [crawl, hosts] of hostsByCrawl) {
      const data = { hosts: [...hosts] };
      events.push({ type: "frontier.added", at: this.#now(), crawl, node: this.#node, data });
    }
    this.#events.publish("frontier.added", events);
  }

  /** Dispatchers wait for what is known of a host. Told with others that come at the same time. */
  hostLearnt({ host, ...news }: HostNews): void {
    if (this.#learnt.length === 0) setImmediate(() => this.#tellLearnt());
    this.#learnt.push({
      type: "host.learnt",
      at: this.#now(),
      node: this.#node,
      data: { host, ...news },
    });
  }

  #tellLearnt(): void {
    const learnt = this.#learnt;
    if (learnt.length === 0) return;
    this.#learnt = [];
    this.#events.publish("host.learnt", learnt);
  }

  flush(): void {
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    if (this.#started.length > 0) this.#events.publish("task.started", this.#started);
    this.#started = [];
    this.#tellLearnt();
  }

  #flushSoon(): void {
    this.#stopTimer ??= this.#clock.after(GATHER_MS, () => this.flush());
  }

  #ended(type: string, result: TaskResult, { task, node = this.#node }: EventContext): BusEvent {
    const { ending, end, items, invalidItems = [], files } = result;
    return {
      type,
      at: this.#now(),
      crawl: task.crawl,
      node,
      ...task.request?.trace,
      data: {
        url: task.url,
        ...(ending.statusCode !== undefined && { statusCode: ending.statusCode }),
        ...(ending.reason !== undefined && { reason: ending.reason }),
        ...(items.length > 0 && { items: items.length }),
        ...(invalidItems.length > 0 && { invalidItems: invalidItems.length }),
        ...(files.length > 0 && { files: files.length }),
        end,
      },
    };
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString();
  }
}
