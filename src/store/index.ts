export type { Archive } from "./archive.js";
export type { StoredLogLine } from "./crawl-log-lines.js";
export type {
  CrawlLogQuery,
  CrawlLogSource,
  CrawlLogs,
  CrawlLogsOptions,
} from "./crawl-logs.js";
export type { CrawlEnd, CrawlOrigin, CrawlRecord, Crawls, CreateOptions } from "./crawls.js";
export { newCrawlId } from "./crawls.js";
export type {
  DeadLetterFilter,
  DeadLetterRecord,
  DeadLetters,
  DeadLettersOptions,
  NewDeadLetter,
} from "./dead-letters.js";
export type {
  Deliveries,
  DeliveriesOptions,
  DeliveryRecord,
  DeliveryTarget,
  DueDelivery,
  NewDelivery,
} from "./deliveries.js";
export { DELIVERY_STATES, ITEMS_STORED } from "./deliveries.js";
export type { DeliveryLanes, HeldLane } from "./delivery-lanes.js";
export type { Duties, Duty } from "./duties.js";
export {
  ConflictError,
  CursorError,
  KeyReusedError,
  NotFoundError,
  StoreError,
  StoreUnavailableError,
} from "./errors.js";
export type { MongoFileStore } from "./file-store.js";
export type { Files } from "./files.js";
export type { MongoHostStates } from "./host-states.js";
export type { ItemTellings, Telling } from "./item-tellings.js";
export type { ItemRange, Items } from "./items.js";
export type { HeldShards, Leases, LeaseView } from "./leases.js";
export type { DueMail, MailRecord, MailState, Mails, NewMail } from "./mails.js";
export { MAIL_STATES } from "./mails.js";
export type { Admission, Admitted, FoundUrl } from "./mongo-frontier.js";
export { MongoFrontier } from "./mongo-frontier.js";
export type { MongoResultSink } from "./mongo-result-sink.js";
export type { MongoRobotsStore } from "./mongo-robots-store.js";
export type {
  GoneNode,
  HeartbeatAnswer,
  HeartbeatOutcome,
  NodeHeartbeat,
  NodeRegistration,
  NodeRow,
  NodeStatus,
  Nodes,
  TakingNode,
  WantedChange,
  WantedConfiguration,
} from "./nodes.js";
export { NODE_STATUSES } from "./nodes.js";
export type {
  NotificationRules,
  RuleChannel,
  RuleEvent,
  RuleRecord,
  RuleSpec,
  RuleThresholds,
} from "./notification-rules.js";
export { RULE_EVENTS } from "./notification-rules.js";
export type { Notification, Notifications } from "./notifications.js";
export type { ListOptions, ListPage } from "./page-of-list.js";
export type { Pages } from "./pages.js";
export type { DueReply, EndedUrl, ExpectedReply, Replies } from "./replies.js";
export type { HeldRun, RunFilter, RunRow, RunStop, Runs } from "./runs.js";
export type {
  EndStatus,
  Follows,
  MissedPolicy,
  Overlap,
  ScheduleRecord,
  ScheduleSpec,
  Schedules,
} from "./schedules.js";
export { END_STATUSES, MISSED_POLICIES, OVERLAPS } from "./schedules.js";
export type { ServerClock } from "./server-clock.js";
export type { SpiderVersions, StoredFile, StoredVersion, VersionRow } from "./spider-versions.js";
export type { Spiders, StoredSpider } from "./spiders.js";
export type { StoreDeps, StoreOptions } from "./store.js";
export { STORE_DEFAULTS, Store } from "./store.js";
export type { NewTick, TickCause, TickRecord, TickSkipReason, TickState, Ticks } from "./ticks.js";
export { SKIP_REASONS, TICK_STATES } from "./ticks.js";
export type { ListedState, UrlList, UrlListOptions, UrlRecord, UrlRow } from "./url-list.js";
export { LISTED_STATES } from "./url-list.js";
export type { UrlRounds } from "./url-rounds.js";
