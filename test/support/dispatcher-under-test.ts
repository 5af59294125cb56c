import { type Crawl, DEFAULT_POLITENESS, type Politeness } from "../../src/crawl/crawl.js";
import { Dispatcher, type DispatcherOptions } from "../../src/crawl/dispatch/dispatcher.js";
import { MemoryFrontier, MemoryHostStates } from "../../src/crawl/memory-frontier.js";
import type { Task, TaskEnd } from "../../src/crawl/task.js";
import { canonicalUrl, fingerprint, urlId } from "../../src/crawl/urls/url.js";
import { ManualClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";

export const ALL_SHARDS = new Map(Array.from({ length: 64 }, (_, shard) => [shard, 1] as const));
export const NO_ROBOTS: Politeness = { ...DEFAULT_POLITENESS, obeyRobots: false };

export function crawlNamed(id: string, given: Partial<Crawl> = {}): Crawl {
  return {
    id,
    spider: "links",
    seeds: [],
    scope: "any",
    limits: {},
    politeness: NO_ROBOTS,
    priority: 5,
    params: {},
    status: "running",
    generation: 1,
    startedAt: 0,
    ...given,
  };
}

let made = 0;

/** A dispatcher over a frontier in memory, on a clock that the test moves, and what it has sent. */
export function dispatcherUnderTest(
  options: Partial<DispatcherOptions> = {},
  {
    frontier = new MemoryFrontier(),
    hosts = new MemoryHostStates(),
    clock = new ManualClock(),
  }: { frontier?: MemoryFrontier; hosts?: MemoryHostStates; clock?: ManualClock } = {},
) {
  const sent: (Task & { sentAt: number })[] = [];
  const idle: string[] = [];
  const spent: string[] = [];
  const state: {
    attempts: number;
    refuse: boolean;
    budget: number;
    located: ReadonlySet<string> | undefined;
  } = {
    attempts: 0,
    refuse: false,
    budget: Number.POSITIVE_INFINITY,
    located: undefined,
  };
  made += 1;
  const dispatcher = new Dispatcher(
    {
      id: `d${made}`,
      frontier,
      hosts,
      clock,
      logger: silentLogger,
      random: () => 0.5,
      tasks: {
        async send(tasks) {
          state.attempts += 1;
          if (state.refuse) return tasks.map((task) => task.id);
          sent.push(...tasks.map((task) => ({ ...task, sentAt: clock.now() })));
          return [];
        },
      },
      budget: {
        async reserve(_, pages) {
          const granted = Math.min(pages, state.budget);
          state.budget -= granted;
          return granted;
        },
      },
      locate: async () => state.located,
      crewOf: (spider) => (spider.startsWith("external-") ? spider : undefined),
      onIdle: (crawl) => idle.push(crawl),
      onBudgetSpent: (crawl) => spent.push(crawl),
    },
    options,
  );

  const add = (crawl: string, ...urls: string[]) => addFor(undefined, crawl, ...urls);

  /** Adds URLs whose pages another spider than the crawl's reads. */
  const addFor = async (spider: string | undefined, crawl: string, ...urls: string[]) => {
    const request = spider === undefined ? undefined : { spider };
    const added = await frontier.add(
      urls.map((given) => {
        const url = canonicalUrl(given);
        if (url === undefined) throw new Error(`not a URL: ${given}`);
        return {
          id: urlId(crawl, fingerprint(url.key)),
          crawl,
          url: url.url,
          host: url.host,
          kind: "page" as const,
          depth: 0,
          priority: 5,
          ...(request !== undefined && { request }),
        };
      }),
    );
    dispatcher.added(crawl, new Set(added.queued.map(({ host }) => host)));
  };

  /** Lets everything happen that needs no time to pass. */
  const settle = async () => {
    for (let turn = 0; turn < 30; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  };

  const end = async (task: Task, more: Partial<TaskEnd> = {}) => {
    const { id, crawl, host, token } = task;
    await frontier.commit([
      more.queuedAgain === undefined
        ? { id, crawl, token, attempts: 1, state: "done", items: 0, files: 0 }
        : { id, crawl, token, attempts: 1, state: "queued", readyAt: more.queuedAgain.readyAt },
    ]);
    dispatcher.ended({ id, crawl, host, token, endedAt: clock.now(), ...more });
  };

  const advance = async (ms: number) => {
    clock.advance(ms);
    await settle();
  };

  return { clock, frontier, hosts, sent, idle, spent, state, dispatcher, add, addFor, settle, end, advance };
}

/** A dispatcher that holds everything, with room for 100 tasks, working for these crawls. */
export async function started(crawls: readonly Crawl[], options: Partial<DispatcherOptions> = {}) {
  const parts = dispatcherUnderTest(options);
  parts.dispatcher.setWindow(100);
  parts.dispatcher.setCrawls(crawls);
  await parts.dispatcher.hold(ALL_SHARDS);
  return parts;
}

export const pagesOf = (host: string, count: number) =>
  Array.from({ length: count }, (_, index) => `http://${host}/${index}`);
