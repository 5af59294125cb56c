import { type Collection, type Db, type Document, MongoClient, MongoError, MongoParseError } from "mongodb";
import type { FileStore } from "../crawl/records.js";
import { type Clock, systemClock } from "../lib/clock.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { type Logger, withoutPassword } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import { Archive, type ArchiveDocument } from "./archive.js";
import { type BodyDocument, type LikenessDocument, MongoContentIndex } from "./content-index.js";
import type { CrawlLogDocument } from "./crawl-log-lines.js";
import { type CrawlLogHeadDocument, CrawlLogs, type CrawlLogsOptions } from "./crawl-logs.js";
import { type CrawlStateDocument, MongoCrawlStates } from "./crawl-states.js";
import { type CrawlDocument, Crawls } from "./crawls.js";
import { type DeadLetterDocument, DeadLetters, type DeadLettersOptions } from "./dead-letters.js";
import { Deliveries, type DeliveriesOptions, type DeliveryDocument, ITEMS_STORED } from "./deliveries.js";
import { type DeliveryLaneDocument, DeliveryLanes, type WaitingDocument } from "./delivery-lanes.js";
import { Duties, type DutyDocument } from "./duties.js";
import { StoreUnavailableError } from "./errors.js";
import { MongoFileStore } from "./file-store.js";
import { type FileDocument, Files } from "./files.js";
import { type HostDocument, MongoHostStates } from "./host-states.js";
import { ensureIndexes } from "./indexes.js";
import { type InvalidItemDocument, InvalidItems } from "./invalid-items.js";
import { ItemTellings } from "./item-tellings.js";
import { type ItemDocument, Items, type ItemVersionDocument } from "./items.js";
import { type LeaseDocument, Leases, type MasterDocument } from "./leases.js";
import { type MailDocument, Mails } from "./mails.js";
import { MongoFrontier } from "./mongo-frontier.js";
import { MongoResultSink } from "./mongo-result-sink.js";
import { MongoRobotsStore, type RobotsDocument } from "./mongo-robots-store.js";
import { type NodeDocument, Nodes } from "./nodes.js";
import { NotificationRules, type RuleDocument } from "./notification-rules.js";
import { type NotificationDocument, Notifications } from "./notifications.js";
import { type PageDocument, Pages } from "./pages.js";
import { objectionTo, objectionToAny } from "./replica-set-check.js";
import { Replies, type ReplyDocument } from "./replies.js";
import { Retention } from "./retention.js";
import { isTransient, Retrier } from "./retrier.js";
import { type RunDocument, Runs } from "./runs.js";
import { type ScheduleDocument, Schedules } from "./schedules.js";
import { ServerClock } from "./server-clock.js";
import { type SpiderVersionDocument, SpiderVersions } from "./spider-versions.js";
import { type SpiderDocument, Spiders } from "./spiders.js";
import { type TickDocument, Ticks } from "./ticks.js";
import type { UrlDocument } from "./url-document.js";
import { UrlList } from "./url-list.js";
import { UrlRounds } from "./url-rounds.js";

export type StoreOptions = {
  /** `mongodb://` or `mongodb+srv://` of a replica set. */
  readonly uri: string;
  /** The database's name. @default "warren" */
  readonly namespace: string;
  /** Number of shards that hosts hash into; the same for all processes, for good. @default 64 */
  readonly shardCount: number;
  /** How long a master's leases hold without being renewed, in milliseconds. @default 10_000 */
  readonly leaseTtlMs: number;
  /** Connections at most. @default 32 */
  readonly maxConnections: number;
  /** How long a write is tried again while the database is away, in milliseconds. @default 20_000 */
  readonly retryForMs: number;
  /** How long one operation waits for a primary, in milliseconds. @default 10_000 */
  readonly serverSelectionMs: number;
  /** How long ticks of schedules are kept once they have ended, in milliseconds. @default 30 days */
  readonly ticksKeptForMs: number;
  /** How many dead letters are kept, and for how long. */
  readonly deadLetters?: Partial<DeadLettersOptions>;
  readonly deliveries?: Partial<DeliveriesOptions>;
  /** Items of one crawl that are not as they should be and are kept aside, about; others are counted. @default 10_000 */
  readonly invalidItemsKept: number;
  /** How long lines of crawls' logs are kept. */
  readonly crawlLogs?: Partial<CrawlLogsOptions>;
};

export const STORE_DEFAULTS = {
  namespace: "warren",
  shardCount: 64,
  leaseTtlMs: 10_000,
  maxConnections: 32,
  retryForMs: 20_000,
  serverSelectionMs: 10_000,
  ticksKeptForMs: 30 * 86_400_000,
  invalidItemsKept: 10_000,
} satisfies Omit<StoreOptions, "uri">;

export type StoreDeps = { readonly logger: Logger; readonly clock?: Clock };

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/** Codes by which a server refuses who we are or what we may do. */
const REFUSALS = new Set([13, 18, 33, 8000]);

/**
 * Everything that outlives a process, in one MongoDB database. `start` resolves when the database can be
 * used; while the server is away it goes on trying. Built before it is started, so its parts can be handed
 * on at once; they work from then on.
 */
export class Store implements Service {
  readonly name = "store";
  readonly crawls: Crawls;
  readonly frontier: MongoFrontier;
  readonly urls: UrlList;
  readonly rounds: UrlRounds;
  readonly pages: Pages;
  readonly items: Items;
  readonly itemTellings: ItemTellings;
  readonly retention: Retention;
  readonly invalidItems: InvalidItems;
  readonly files: Files;
  readonly contents: MongoFileStore & FileStore;
  readonly archive: Archive;
  readonly states: MongoCrawlStates;
  readonly runs: Runs;
  readonly bodies: MongoContentIndex;
  readonly results: MongoResultSink;
  readonly hosts: MongoHostStates;
  readonly robots: MongoRobotsStore;
  readonly nodes: Nodes;
  readonly leases: Leases;
  readonly notifications: Notifications;
  readonly notificationRules: NotificationRules;
  readonly mails: Mails;
  readonly replies: Replies;
  readonly deadLetters: DeadLetters;
  readonly deliveries: Deliveries;
  readonly deliveryLanes: DeliveryLanes;
  readonly duties: Duties;
  readonly crawlLogs: CrawlLogs;
  readonly spiders: Spiders;
  readonly schedules: Schedules;
  readonly ticks: Ticks;
  /** The code of spiders, version by version. */
  readonly versions: SpiderVersions;
  /** The files of that code. */
  readonly code: MongoFileStore;
  readonly serverClock: ServerClock;
  readonly shardCount: number;

  readonly #client: MongoClient;
  readonly #db: Db;
  readonly #options: StoreOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #retrier: Retrier;
  #stopping = false;
  #wake: () => void = () => {};

  /** @throws ConfigError when the URI cannot be read */
  constructor(given: Partial<StoreOptions> & Pick<StoreOptions, "uri">, deps: StoreDeps) {
    const options: StoreOptions = { ...STORE_DEFAULTS, ...given };
    const clock = deps.clock ?? systemClock;
    this.#options = options;
    this.#logger = deps.logger;
    this.#clock = clock;
    this.#client = connectionTo(options);
    const db = this.#client.db(options.namespace);
    this.#db = db;
    const retrier = new Retrier({ clock, logger: deps.logger }, { forMs: options.retryForMs });
    this.#retrier = retrier;
    this.shardCount = options.shardCount;

    const urls = db.collection<UrlDocument>("urls");
    const pages = db.collection<PageDocument>("pages");
    const items = db.collection<ItemDocument>("items");
    const versions = db.collection<ItemVersionDocument>("itemVersions");
    const invalidItems = db.collection<InvalidItemDocument>("invalidItems");
    const files = db.collection<FileDocument>("files");
    this.rounds = new UrlRounds({ urls, retrier, clock }, { shardCount: options.shardCount });
    this.runs = new Runs(db.collection<RunDocument>("runs"), retrier);
    this.crawls = new Crawls({
      client: this.#client,
      crawls: db.collection<CrawlDocument>("crawls"),
      urls,
      rounds: this.rounds,
      runs: this.runs,
      pages,
      items,
      versions,
      invalidItems,
      files,
      archive: db.collection<ArchiveDocument>("archive"),
      retrier,
      clock,
    });
    this.frontier = new MongoFrontier({ urls, retrier, clock }, { shardCount: options.shardCount });
    this.urls = new UrlList(urls, { shardCount: options.shardCount });
    this.pages = new Pages(pages, retrier);
    this.items = new Items({ items, versions, retrier });
    this.itemTellings = new ItemTellings(items, retrier);
    this.invalidItems = new InvalidItems(invalidItems, retrier, options.invalidItemsKept);
    this.files = new Files(files, retrier);
    this.contents = new MongoFileStore({ db, references: this.files, clock, bucket: "contents" });
    const archive = db.collection<ArchiveDocument>("archive");
    this.states = new MongoCrawlStates(db.collection<CrawlStateDocument>("crawlState"), retrier);
    this.archive = new Archive(archive, retrier, (contentId) => this.contents.open(contentId));
    this.bodies = new MongoContentIndex({
      bodies: db.collection<BodyDocument>("bodies"),
      likenesses: db.collection<LikenessDocument>("likenesses"),
      retrier,
      clock,
    });
    this.results = new MongoResultSink({
      pages: this.pages,
      items: this.items,
      invalidItems: this.invalidItems,
      files: this.files,
      contents: this.contents,
      archive: this.archive,
    });
    this.hosts = new MongoHostStates(db.collection<HostDocument>("hosts"), retrier);
    this.robots = new MongoRobotsStore(db.collection<RobotsDocument>("robots"), retrier);
    this.nodes = new Nodes(db.collection<NodeDocument>("nodes"));
    this.leases = new Leases(
      {
        leases: db.collection<LeaseDocument>("leases"),
        masters: db.collection<MasterDocument>("masters"),
        clock,
      },
      { shardCount: options.shardCount, ttlMs: options.leaseTtlMs },
    );
    this.replies = new Replies({ replies: db.collection<ReplyDocument>("replies"), urls, retrier, clock });
    this.notifications = new Notifications(db.collection<NotificationDocument>("notifications"), retrier);
    this.notificationRules = new NotificationRules(db.collection<RuleDocument>("notificationRules"), retrier);
    this.mails = new Mails(db.collection<MailDocument>("mails"), retrier);
    this.deadLetters = new DeadLetters(
      { letters: db.collection<DeadLetterDocument>("deadLetters"), retrier, clock },
      options.deadLetters,
    );
    this.retention = new Retention({
      items,
      versions,
      files,
      discardContent: (contentId) => this.contents.discard(contentId),
    });
    this.deliveryLanes = new DeliveryLanes({
      lanes: db.collection<DeliveryLaneDocument>("deliveryLanes"),
      waiting: db.collection<WaitingDocument>("deliveries"),
      clock,
    });
    this.deliveries = new Deliveries(
      {
        deliveries: db.collection<DeliveryDocument>("deliveries"),
        lanes: this.deliveryLanes,
        retrier,
        clock,
      },
      options.deliveries,
    );
    this.duties = new Duties(
      { duties: db.collection<DutyDocument>("duties"), clock },
      { ttlMs: options.leaseTtlMs },
    );
    this.crawlLogs = new CrawlLogs(
      {
        lines: db.collection<CrawlLogDocument>("crawlLogs"),
        heads: db.collection<CrawlLogHeadDocument>("crawlLogHeads"),
        crawls: db.collection<CrawlDocument>("crawls"),
        retrier,
      },
      options.crawlLogs,
    );
    this.spiders = new Spiders(db.collection<SpiderDocument>("spiders"), retrier);
    this.ticks = new Ticks(db.collection<TickDocument>("ticks"), retrier, {
      keptForMs: options.ticksKeptForMs,
    });
    this.schedules = new Schedules({
      schedules: db.collection<ScheduleDocument>("schedules"),
      ticks: this.ticks,
      retrier,
    });
    this.code = new MongoFileStore({
      db,
      references: { referredTo: (ids) => this.versions.referredTo(ids) },
      clock,
      bucket: "code",
    });
    this.versions = new SpiderVersions({
      versions: db.collection<SpiderVersionDocument>("spiderVersions"),
      spiders: this.spiders,
      contents: this.code,
      retrier,
      clock,
    });
    this.serverClock = new ServerClock(db, clock);
  }

  /** @throws ConfigError when trying again cannot help: wrong credentials, or not a replica set */
  async start(): Promise<void> {
    const startedAt = this.#clock.monotonic();
    for (let pauseMs = FIRST_PAUSE_MS; !this.#stopping; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      try {
        await this.#prepare();
        return;
      } catch (error) {
        if (this.#stopping) break;
        if (isRefusal(error)) throw this.#refused(`was refused: ${messageOf(error)}`, error);
        if (!isTransient(error)) throw error;
        const objection = await objectionToAny(
          this.#client,
          Math.min(1_000, this.#options.serverSelectionMs),
        );
        if (objection !== undefined) throw this.#refused(objection, error);
        if (this.#stopping) break;
        this.#logger.warn(
          { uri: withoutPassword(this.#options.uri), error: messageOf(error), pauseMs },
          "MongoDB is away: trying again",
        );
        await new Promise<void>((resolve) => {
          const stopTimer = this.#clock.after(pauseMs, resolve);
          this.#wake = () => {
            stopTimer();
            resolve();
          };
        });
      }
    }
    throw new StoreUnavailableError(
      "start the store before it was stopped",
      this.#clock.monotonic() - startedAt,
    );
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.crawls.flushCounts().catch(() => {});
    this.#retrier.stop();
    this.#wake();
    await this.#client.close();
  }

  /** Rejects unless a primary answers. */
  async ping(): Promise<void> {
    await this.#db.command({ ping: 1 });
  }

  /** Removes a crawl that was closed or has finished, with all that it left. @throws NotFoundError, ConflictError */
  async purge(crawl: string): Promise<void> {
    await this.crawls.purge(crawl, (contentId) => this.contents.discard(contentId));
    await this.bodies.purge(crawl);
    await this.replies.drop(crawl);
    await this.states.drop(crawl);
    await this.deliveries.drop(crawl, ITEMS_STORED);
    await this.runs.drop(crawl);
    await this.crawlLogs.purge(crawl);
  }

  /** Removes the whole database: for tests and benchmarks. */
  async dropDatabase(): Promise<void> {
    await this.#db.dropDatabase();
  }

  /** A collection as it is: for tests and for those who look into the database. */
  collection<Shape extends Document>(name: string): Collection<Shape> {
    return this.#db.collection<Shape>(name);
  }

  async #prepare(): Promise<void> {
    await this.#client.connect();
    const hello = await this.#db.admin().command({ hello: 1 });
    const objection = objectionTo(hello, this.#client.options.replicaSet);
    if (objection !== undefined) throw this.#refused(objection);
    await ensureIndexes(this.#db);
    await this.leases.ensureShards();
    await this.crawls.ensureInbox();
    await this.serverClock.refresh();
  }

  #refused(objection: string, cause?: unknown): ConfigError {
    const message = `MONGODB_URI: ${withoutPassword(this.#options.uri)} ${objection}`;
    return cause === undefined ? new ConfigError(message) : new ConfigError(message, { cause });
  }
}

function connectionTo(options: StoreOptions): MongoClient {
  try {
    return new MongoClient(options.uri, {
      appName: "warren",
      maxPoolSize: options.maxConnections,
      serverSelectionTimeoutMS: options.serverSelectionMs,
      writeConcern: { w: "majority", journal: true },
      readPreference: "primary",
      ignoreUndefined: true,
      retryReads: true,
      retryWrites: true,
    });
  } catch (error) {
    // Everything that the driver finds wrong with a URI, it finds here.
    const text = error instanceof MongoParseError || error instanceof Error ? error.message : String(error);
    throw new ConfigError(
      `MONGODB_URI: ${withoutPassword(options.uri)} cannot be read: ${withoutPassword(text)}`,
      {
        cause: error,
      },
    );
  }
}

function isRefusal(error: unknown): boolean {
  if (!(error instanceof MongoError)) return false;
  if (typeof error.code === "number" && REFUSALS.has(error.code)) return true;
  return error.cause !== undefined && isRefusal(error.cause);
}
