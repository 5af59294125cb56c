import type { Db, IndexDescription } from "mongodb";

/**
 * The indexes of each collection, and the queries they are there for. The frontier is written at every step
 * of a URL's way, so it has few, and partial ones: a URL that is done stands in none but that of `_id`.
 */
export const INDEXES: Readonly<Record<string, readonly IndexDescription[]>> = {
  urls: [
    {
      // Lanes: what waits of a crawl on a host in the order of its turns, which hosts have something, what
      // is dispatched of some shards, whether anything of a crawl is open.
      name: "open",
      key: { state: 1, shard: 1, crawl: 1, host: 1, priority: -1, readyAt: 1 },
      partialFilterExpression: { state: { $in: ["queued", "dispatched"] } },
    },
    {
      // Lists of what failed and what was left out.
      name: "left",
      key: { crawl: 1, state: 1, host: 1, _id: 1 },
      partialFilterExpression: { state: { $in: ["failed", "skipped"] } },
    },
    {
      // Of crawls that fetch their URLs again and again: what comes due next.
      name: "next-visits",
      key: { crawl: 1, shard: 1, nextVisitAt: 1 },
      partialFilterExpression: { nextVisitAt: { $exists: true } },
    },
  ],
  crawls: [
    { name: "newest", key: { createdAt: -1, _id: -1 } },
    { name: "by-status", key: { status: 1, createdAt: -1, _id: -1 } },
    {
      name: "by-resource",
      key: { resource: 1 },
      unique: true,
      partialFilterExpression: { resource: { $exists: true } },
    },
    {
      name: "by-idempotency-key",
      key: { "idempotency.key": 1 },
      unique: true,
      partialFilterExpression: { "idempotency.key": { $exists: true } },
    },
    // Ends that nobody has acted on yet.
    { name: "ended", key: { "ends.at": 1 }, partialFilterExpression: { "ends.at": { $gt: 0 } } },
  ],
  schedules: [
    { name: "next", key: { nextAt: 1 }, partialFilterExpression: { nextAt: { $gt: 0 } } },
    { name: "oldest", key: { createdAt: 1, _id: 1 } },
    { name: "starting", key: { starting: 1 }, partialFilterExpression: { starting: { $gt: "" } } },
  ],
  ticks: [
    { name: "newest-of-schedule", key: { schedule: 1, at: -1, _id: -1 } },
    { name: "open", key: { schedule: 1, at: 1 }, partialFilterExpression: { open: true } },
    { name: "untold", key: { untold: 1 }, partialFilterExpression: { untold: true } },
    { name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 },
  ],
  deadLetters: [
    { name: "newest", key: { at: -1, _id: -1 } },
    { name: "by-crawl", key: { crawl: 1, at: -1 } },
    // A message that comes again and has no id of its own.
    { name: "by-digest", key: { digest: 1, at: -1 } },
    { name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 },
  ],
  deliveries: [
    {
      // What waits for a target, in order; and when the first of it is due.
      name: "waiting",
      key: { lane: 1, order: 1, _id: 1 },
      partialFilterExpression: { state: "waiting" },
    },
    {
      name: "next",
      key: { lane: 1, nextAt: 1 },
      partialFilterExpression: { state: "waiting" },
    },
    { name: "newest", key: { order: -1, _id: -1 } },
    { name: "by-state", key: { state: 1, order: -1, _id: -1 } },
    { name: "by-crawl", key: { crawl: 1, order: -1, _id: -1 } },
    { name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 },
  ],
  deliveryLanes: [{ name: "due", key: { dueAt: 1 } }],
  crawlLogs: [
    // Warnings and worse, without reading the lines between them.
    {
      name: "severe",
      key: { _id: 1, level: 1 },
      partialFilterExpression: { level: { $gte: 40 } },
    },
    { name: "by-node", key: { nodes: 1, _id: 1 } },
    { name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 },
  ],
  crawlLogHeads: [{ name: "by-bytes", key: { bytes: 1 } }],
  "contents.files": [
    {
      name: "by-sha256",
      key: { "metadata.sha256": 1 },
      unique: true,
      partialFilterExpression: { "metadata.sha256": { $exists: true } },
    },
  ],
  items: [
    {
      // What others are still to be told of, of a crawl, oldest first.
      name: "to-tell",
      key: { crawl: 1, tellFrom: 1 },
      partialFilterExpression: { tellFrom: { $exists: true } },
    },
    {
      name: "expiry",
      key: { expiresAt: 1 },
      partialFilterExpression: { expiresAt: { $exists: true } },
    },
  ],
  itemVersions: [
    {
      name: "expiry",
      key: { expiresAt: 1 },
      partialFilterExpression: { expiresAt: { $exists: true } },
    },
  ],
  files: [
    { name: "by-content", key: { contentId: 1 } },
    {
      name: "expiry",
      key: { expiresAt: 1 },
      partialFilterExpression: { expiresAt: { $exists: true } },
    },
  ],
  "code.files": [
    {
      name: "by-sha256",
      key: { "metadata.sha256": 1 },
      unique: true,
      partialFilterExpression: { "metadata.sha256": { $exists: true } },
    },
  ],
  spiderVersions: [
    { name: "newest", key: { spider: 1, version: -1 } },
    { name: "by-content", key: { "files.contentId": 1 } },
  ],
  // Pages of a crawl whose text may be like another's.
  likenesses: [{ name: "by-band", key: { crawl: 1, bands: 1 } }],
  crawlState: [{ name: "by-crawl", key: { crawl: 1 } }],
  leases: [{ name: "by-owner", key: { owner: 1 } }],
  replies: [
    { name: "by-waiting", key: { waiting: 1 } },
    { name: "by-crawl", key: { crawl: 1 } },
    { name: "by-age", key: { at: 1 } },
  ],
  runs: [
    { name: "by-crawl", key: { crawl: 1, state: 1 } },
    // What waits for a node, and whose node may be lost.
    {
      name: "open",
      key: { state: 1, node: 1, createdAt: 1 },
      partialFilterExpression: { state: { $in: ["queued", "active"] } },
    },
  ],
  notifications: [
    { name: "newest-first", key: { at: -1, _id: -1 } },
    { name: "expiry", key: { at: 1 }, expireAfterSeconds: 30 * 86_400 },
  ],
  notificationRules: [{ name: "about", key: { on: 1 } }],
  mails: [
    { name: "due", key: { nextAt: 1 }, partialFilterExpression: { state: "waiting" } },
    { name: "newest", key: { at: -1, _id: -1 } },
    { name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 },
  ],
  robots: [{ name: "expiry", key: { expiresAt: 1 }, expireAfterSeconds: 0 }],
};

/** Creates what is missing; harmless when several processes do so at once. */
export async function ensureIndexes(db: Db): Promise<void> {
  for (const [collection, indexes] of Object.entries(INDEXES)) {
    await db.collection(collection).createIndexes([...indexes]);
  }
}
