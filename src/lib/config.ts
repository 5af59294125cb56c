import { parseArgs } from "node:util";
import { ConfigError } from "./errors.js";
import { LOG_LEVELS, type LogLevel, withoutPassword } from "./logger.js";

/** One thing that can be set: by a flag, else by its environment variable, else its default. */
export type Setting<T> = {
  readonly flag: string;
  /** `--foo-bar` is `WARREN_FOO_BAR` unless said otherwise. */
  readonly variable: string;
  /** What stands for the value in the help; absent for a switch. */
  readonly value?: string;
  readonly help: string;
  /** Parses one value. @throws Error that says what is wrong with it, without naming the setting */
  readonly parse: (text: string) => T;
  /** What holds when it is not set, in the form in which it would be given. */
  readonly fallback?: string;
  /** May be given several times; `parse` gets them joined by newlines. */
  readonly isMultiple?: boolean;
};

type Optional<T> = Setting<T> & { readonly isOptional: true };

function setting<T>(given: {
  flag: string;
  variable?: string;
  value?: string;
  help: string;
  parse: (text: string) => T;
  fallback?: string;
  isMultiple?: boolean;
}): Setting<T> {
  return { variable: `WARREN_${given.flag.toUpperCase().replaceAll("-", "_")}`, ...given };
}

function optional<T>(given: Parameters<typeof setting<T>>[0]): Optional<T> {
  return { ...setting(given), isOptional: true };
}

const text = (value: string): string => {
  if (value.trim() === "") throw new Error("must not be empty");
  return value;
};
const lines = (value: string): readonly string[] => value.split("\n").filter((line) => line.trim() !== "");

function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value.trim()) || number < min || number > max) {
      const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
      throw new Error(`must be a whole number, ${range}, not "${value}"`);
    }
    return number;
  };
}

function networks(value: string): readonly string[] {
  return value.split(",").flatMap((part) => (part.trim() === "" ? [] : [part.trim()]));
}

function oneOf<T extends string>(choices: readonly T[]): (value: string) => T {
  return (value) => {
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new Error(`must be one of ${choices.join(", ")}, not "${value}"`);
    return found;
  };
}

function onOff(value: string): boolean {
  if (["true", "1", "yes", "on"].includes(value.toLowerCase())) return true;
  if (["false", "0", "no", "off", ""].includes(value.toLowerCase())) return false;
  throw new Error(`must be true or false, not "${value}"`);
}

function urlOf(value: string, protocols: readonly string[], example: string): string {
  const trimmed = value.trim();
  // MongoDB URIs may list several hosts, which the URL parser does not take.
  const protocol = /^[a-z][a-z0-9+.-]*:\/\//i.exec(trimmed)?.[0].toLowerCase();
  if (protocol === undefined || !protocols.includes(protocol)) {
    throw new Error(`must look like ${example}, not "${withoutPassword(trimmed)}"`);
  }
  return trimmed;
}

function amqpUrls(value: string): readonly string[] {
  // Only a comma that a further URL follows parts two of them: one in a password is told below, and not by
  // repeating half of the password.
  const urls = value
    .split(/,(?=\s*[a-z][a-z0-9+.-]*:\/\/)/i)
    .map((part) => urlOf(part, ["amqp://", "amqps://"], "amqp://user:password@host:5672"));
  for (const url of urls) {
    if (URL.canParse(url) && !url.includes(",")) continue;
    throw new Error(
      `is not a URL: "${withoutPassword(url)}"; in a user or password, "/", "?", "#", "@", ":" and "," must be percent-encoded`,
    );
  }
  return urls;
}

function nodeId(value: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(value)) {
    throw new Error(
      `must be 1 to 64 letters, digits, ".", "_" or "-", and begin with a letter or digit, not "${value}"`,
    );
  }
  return value;
}

function namespace(value: string): string {
  if (!/^[A-Za-z][A-Za-z0-9_-]{0,37}$/.test(value)) {
    throw new Error(
      `must be 1 to 38 letters, digits, "_" or "-", and begin with a letter (it names the database too), not "${value}"`,
    );
  }
  return value;
}

function smtpUrl(value: string): string {
  const url = urlOf(value, ["smtp://", "smtps://"], "smtps://user:password@host:465");
  if (!URL.canParse(url)) {
    throw new Error(
      `is not a URL: "${withoutPassword(url)}"; in a user or password, "/", "?", "#", "@" and ":" must be percent-encoded`,
    );
  }
  const { hostname, pathname, search, username, password } = new URL(url);
  if (hostname === "" || (pathname !== "" && pathname !== "/") || search !== "") {
    throw new Error(`must have a host, and neither path nor query: "${withoutPassword(url)}"`);
  }
  for (const part of [username, password]) decodeURIComponent(part);
  return url;
}

function mailSender(value: string): string {
  // No line break, and no second address: headers are made of it.
  if (!/^(?:[^<>,;:\r\n"@]*<[^\s<>,;@]+@[^\s<>,;@]+>|[^\s<>,;@]+@[^\s<>,;@]+)$/.test(value.trim())) {
    throw new Error(`must be user@host or Name <user@host>, not "${value}"`);
  }
  return value.trim();
}

function labelsOf(value: string): Readonly<Record<string, string>> {
  const pairs = value.split(",").flatMap((part): [string, string][] => {
    if (part.trim() === "") return [];
    const [, name, text] = /^\s*([A-Za-z0-9][A-Za-z0-9_-]{0,62})=(.{0,200}?)\s*$/s.exec(part) ?? [];
    if (name === undefined || text === undefined) {
      throw new Error(
        `must be labels such as zone=eu,disk=ssd (names of letters, digits, "_" and "-"; values of 200 characters at most), not "${part.trim()}"`,
      );
    }
    return [[name, text]];
  });
  if (pairs.length > 50) throw new Error(`must be at most 50 labels, not ${pairs.length}`);
  return Object.fromEntries(pairs);
}

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

/** Everything that can be set, for all programs: the one table that help, errors and docs come from. */
export const SETTINGS = {
  amqpUrl: setting({
    flag: "amqp-url",
    variable: "AMQP_URL",
    value: "URL[,URL…]",
    help: "RabbitMQ, amqp:// or amqps://; several are tried in turn",
    parse: amqpUrls,
    fallback: "amqp://guest:guest@127.0.0.1:5672",
  }),
  amqpAuth: setting({
    flag: "amqp-auth",
    value: "HOW",
    help: "plain: by the URL's user and password; external: by the client certificate (amqps)",
    parse: oneOf<"plain" | "external">(["plain", "external"]),
    fallback: "plain",
  }),
  amqpCaFile: optional({
    flag: "amqp-ca-file",
    value: "FILE",
    help: "amqps: certificates (PEM) of who may have signed RabbitMQ's; those that Node trusts by default",
    parse: text,
  }),
  amqpCertFile: optional({
    flag: "amqp-cert-file",
    value: "FILE",
    help: "amqps: the client certificate (PEM) to show to RabbitMQ",
    parse: text,
  }),
  amqpKeyFile: optional({
    flag: "amqp-key-file",
    value: "FILE",
    help: "amqps: the client certificate's key (PEM)",
    parse: text,
  }),
  amqpKeyPassphrase: optional({
    flag: "amqp-key-passphrase",
    value: "TEXT",
    help: "amqps: what the key is encrypted with, if it is; better given by the variable, which others cannot see",
    parse: text,
  }),
  mongodbUri: setting({
    flag: "mongodb-uri",
    variable: "MONGODB_URI",
    value: "URI",
    help: "MongoDB, a replica set (one member will do)",
    parse: (value) => urlOf(value, ["mongodb://", "mongodb+srv://"], "mongodb://user:password@host:27017/"),
    fallback: "mongodb://127.0.0.1:27017/",
  }),
  namespace: setting({
    flag: "namespace",
    value: "NAME",
    help: "prefix of every AMQP name, and the database's name",
    parse: namespace,
    fallback: "warren",
  }),
  nodeId: optional({
    flag: "node-id",
    value: "ID",
    help: "this worker's name; without it, one is made and kept in the data directory",
    parse: nodeId,
  }),
  concurrency: setting({
    flag: "concurrency",
    value: "N",
    help: "tasks that run at once in this worker",
    parse: wholeNumber(1, 1_000),
    fallback: "32",
  }),
  runs: setting({
    flag: "runs",
    value: "N",
    help: "spiders that run as a whole at once in this worker",
    parse: wholeNumber(0, 1_000),
    fallback: "4",
  }),
  labels: optional({
    flag: "labels",
    value: "NAME=VALUE[,…]",
    help: "labels of this node, by which crawls may select it; without it, it keeps those that it had",
    parse: labelsOf,
  }),
  host: setting({
    flag: "host",
    value: "ADDRESS",
    help: "address on which the API listens",
    parse: text,
    fallback: "127.0.0.1",
  }),
  port: setting({
    flag: "port",
    value: "N",
    help: "port of the API; 0 takes a free one",
    parse: wholeNumber(0, 65_535),
    fallback: "8080",
  }),
  metricsPort: optional({
    flag: "metrics-port",
    value: "N",
    help: "port on which a worker serves /healthz, /readyz and /metrics (off by default; 0 takes a free one)",
    parse: wholeNumber(0, 65_535),
  }),
  dataDir: setting({
    flag: "data-dir",
    value: "FOLDER",
    help: "what a process keeps on its own disk",
    parse: text,
    fallback: ".warren/data",
  }),
  apiTokens: optional({
    flag: "api-tokens",
    value: "ROLE:TOKEN[,…]",
    help: "who may use the API; roles viewer, operator, admin. With none it listens on loopback only",
    parse: apiTokens,
  }),
  allowedNetworks: setting({
    flag: "allowed-networks",
    value: "CIDR[,…]",
    help: "networks that may be fetched although private or loopback",
    parse: networks,
    fallback: "",
  }),
  userAgent: setting({
    flag: "user-agent",
    value: "TEXT",
    help: "how requests name themselves; its product token is matched against robots.txt",
    parse: userAgent,
    fallback: "Warren/0.1",
  }),
  logLines: setting({
    flag: "log-lines",
    value: "N",
    help: "lines of its log that a worker keeps in memory for whoever asks for them",
    parse: wholeNumber(1, 1_000_000),
    fallback: "2000",
  }),
  logLevel: setting({
    flag: "log-level",
    value: "LEVEL",
    help: `one of ${LOG_LEVELS.join(", ")}`,
    parse: oneOf<LogLevel>(LOG_LEVELS),
    fallback: "info",
  }),
  crawlLogLevel: setting({
    flag: "crawl-log-level",
    value: "LEVEL",
    help: "lowest level of the lines kept of what spiders log",
    parse: oneOf<LogLevel>(LOG_LEVELS),
    fallback: "info",
  }),
  crawlLogDiskBytes: setting({
    flag: "crawl-log-disk-bytes",
    value: "BYTES",
    help: "crawls' logs in a worker's data directory; the oldest go first",
    parse: wholeNumber(65_536),
    fallback: String(256 * 2 ** 20),
  }),
  crawlLogFileBytes: setting({
    flag: "crawl-log-file-bytes",
    value: "BYTES",
    help: "size at which a file of them is followed by the next",
    parse: wholeNumber(4_096, 2 ** 28),
    fallback: String(4 * 2 ** 20),
  }),
  crawlLogDays: setting({
    flag: "crawl-log-days",
    value: "DAYS",
    help: "how long lines of crawls' logs are kept in MongoDB",
    parse: wholeNumber(1, 36_500),
    fallback: "30",
  }),
  crawlLogMaxBytes: setting({
    flag: "crawl-log-max-bytes",
    value: "BYTES",
    help: "one crawl's log in MongoDB; the oldest lines go first. The same for all masters",
    parse: wholeNumber(65_536),
    fallback: String(256 * 2 ** 20),
  }),
  shutdownTimeoutMs: setting({
    flag: "shutdown-timeout-ms",
    value: "MS",
    help: "longest time for an orderly stop",
    parse: wholeNumber(0, DAY_MS),
    fallback: "25000",
  }),
  connectTimeoutMs: setting({
    flag: "connect-timeout-ms",
    value: "MS",
    help: "give up (exit 1) when RabbitMQ or MongoDB are away for so long at the start; 0 never does",
    parse: wholeNumber(0, DAY_MS),
    fallback: "0",
  }),
  leaseMs: setting({
    flag: "lease-ms",
    value: "MS",
    help: "how long a master's shards outlive it; the same for all masters",
    parse: wholeNumber(500, DAY_MS),
    fallback: "10000",
  }),
  hostPatienceMs: setting({
    flag: "host-patience-ms",
    value: "MS",
    help: "how long a host may give no answer at all before its URLs are given up untried",
    parse: wholeNumber(0, 365 * DAY_MS),
    fallback: "120000",
  }),
  maxTasks: setting({
    flag: "max-tasks",
    value: "N",
    help: "messages in the task queue; more are refused. The same for all masters and workers, and for good",
    parse: wholeNumber(1, 100_000_000),
    fallback: "1000000",
  }),
  deliveryLimit: setting({
    flag: "delivery-limit",
    value: "N",
    help: "times a task may come back without being acknowledged; then it is a dead letter. For all and for good, as above",
    parse: wholeNumber(1, 1_000_000),
    fallback: "10",
  }),
  maxDeadLetters: setting({
    flag: "max-dead-letters",
    value: "N",
    help: "messages in the queue of dead letters; the oldest go first. For all and for good, as above",
    parse: wholeNumber(1, 100_000_000),
    fallback: "10000",
  }),
  deadLetterRecords: setting({
    flag: "dead-letter-records",
    value: "N",
    help: "dead letters kept in MongoDB; the oldest go first. The same for all masters and workers",
    parse: wholeNumber(1, 10_000_000),
    fallback: "10000",
  }),
  deadLetterDays: setting({
    flag: "dead-letter-days",
    value: "DAYS",
    help: "how long a dead letter is kept in MongoDB",
    parse: wholeNumber(1, 36_500),
    fallback: "30",
  }),
  invalidItemsKept: setting({
    flag: "invalid-items-kept",
    value: "N",
    help: "items of one crawl that are not as their spider says and are kept, about; the others are counted. The same for all masters and workers",
    parse: wholeNumber(0, 100_000_000),
    fallback: "10000",
  }),
  deliveryAttempts: setting({
    flag: "delivery-attempts",
    value: "N",
    help: "attempts at one delivery to a webhook before it is given up",
    parse: wholeNumber(1, 1_000),
    fallback: "10",
  }),
  deliveryHours: setting({
    flag: "delivery-hours",
    value: "HOURS",
    help: "age at which a delivery to a webhook is given up",
    parse: wholeNumber(1, 8_760),
    fallback: "24",
  }),
  deliveryTimeoutMs: setting({
    flag: "delivery-timeout-ms",
    value: "MS",
    help: "longest time for one post to a webhook: connection, request and answer",
    parse: wholeNumber(10, 300_000),
    fallback: "15000",
  }),
  deliveriesAtOnce: setting({
    flag: "deliveries-at-once",
    value: "N",
    help: "webhooks that a master posts to at once",
    parse: wholeNumber(1, 1_000),
    fallback: "32",
  }),
  failedDeliveryDays: setting({
    flag: "failed-delivery-days",
    value: "DAYS",
    help: "how long a delivery that was given up is kept",
    parse: wholeNumber(1, 36_500),
    fallback: "30",
  }),
  externalTasks: setting({
    flag: "external-tasks",
    value: "N",
    help: "tasks of an external spider that are handed out at once for each worker that takes them",
    parse: wholeNumber(1, 10_000),
    fallback: "20",
  }),
  scheduleMinIntervalMs: setting({
    flag: "schedule-min-interval-ms",
    value: "MS",
    help: "schedules that come more often are refused",
    parse: wholeNumber(1_000, 365 * DAY_MS),
    fallback: "1000",
  }),
  scheduleMissedAfterMs: setting({
    flag: "schedule-missed-after-ms",
    value: "MS",
    help: "a tick of a schedule that no master recorded by then was missed. The same for all masters",
    parse: wholeNumber(1_000, 365 * DAY_MS),
    fallback: "60000",
  }),
  scheduleHistoryDays: setting({
    flag: "schedule-history-days",
    value: "DAYS",
    help: "how long what became of a schedule's ticks is kept",
    parse: wholeNumber(1, 36_500),
    fallback: "30",
  }),
  scheduleMaxChain: setting({
    flag: "schedule-max-chain",
    value: "N",
    help: "crawls that follow one another by schedules; then the next one is left out",
    parse: wholeNumber(1, 1_000),
    fallback: "10",
  }),
  smtpUrl: optional({
    flag: "smtp-url",
    value: "URL",
    help: "mail server for notifications, smtp:// or smtps://, with user:password@ if it wants them; better given by the variable, which others cannot see",
    parse: smtpUrl,
  }),
  smtpFrom: optional({
    flag: "smtp-from",
    value: "ADDRESS",
    help: "sender of these mails: user@host, or Name <user@host>",
    parse: mailSender,
  }),
  fetchTimeoutMs: setting({
    flag: "fetch-timeout-ms",
    value: "MS",
    help: "longest time for one fetch, from its start to the end of its body",
    parse: wholeNumber(100, DAY_MS),
    fallback: "30000",
  }),
  dnsTimeoutMs: setting({
    flag: "dns-timeout-ms",
    value: "MS",
    help: "longest time for resolving a host's name",
    parse: wholeNumber(10, DAY_MS),
    fallback: "5000",
  }),
  dnsCacheMs: setting({
    flag: "dns-cache-ms",
    value: "MS",
    help: "how long the addresses of a name are remembered; 0 does not. They are judged at each connection",
    parse: wholeNumber(0, DAY_MS),
    fallback: "60000",
  }),
  dnsCacheNames: setting({
    flag: "dns-cache-names",
    value: "N",
    help: "names whose addresses are remembered",
    parse: wholeNumber(1, 10_000_000),
    fallback: "10000",
  }),
  fetchConnectTimeoutMs: setting({
    flag: "fetch-connect-timeout-ms",
    value: "MS",
    help: "longest time for TCP and TLS of a connection to a host, and for waiting until one may be made",
    parse: wholeNumber(10, DAY_MS),
    fallback: "10000",
  }),
  fetchHeadersTimeoutMs: setting({
    flag: "fetch-headers-timeout-ms",
    value: "MS",
    help: "longest time from a request to the end of the response's headers",
    parse: wholeNumber(10, DAY_MS),
    fallback: "30000",
  }),
  fetchBodyTimeoutMs: setting({
    flag: "fetch-body-timeout-ms",
    value: "MS",
    help: "longest time between two pieces of a body",
    parse: wholeNumber(10, DAY_MS),
    fallback: "30000",
  }),
  minBytesPerSecond: setting({
    flag: "min-bytes-per-second",
    value: "BYTES",
    help: "a body that comes more slowly is given up; 0 waits for the other limits",
    parse: wholeNumber(0, 2 ** 30),
    fallback: "100",
  }),
  minRateWindowMs: setting({
    flag: "min-rate-window-ms",
    value: "MS",
    help: "over how long the bytes of a body are counted for that",
    parse: wholeNumber(10, DAY_MS),
    fallback: "10000",
  }),
  maxHeaderBytes: setting({
    flag: "max-header-bytes",
    value: "BYTES",
    help: "a response's headers, all together",
    parse: wholeNumber(1_024, 2 ** 24),
    fallback: "65536",
  }),
  maxHeaders: setting({
    flag: "max-headers",
    value: "N",
    help: "a response's headers, repeated ones counted each time",
    parse: wholeNumber(1, 100_000),
    fallback: "256",
  }),
  maxConnections: setting({
    flag: "max-connections",
    value: "N",
    help: "connections to hosts open at once, idle ones included, which are closed to make room",
    parse: wholeNumber(1, 1_000_000),
    fallback: "1024",
  }),
  maxConnectionsPerHost: setting({
    flag: "max-connections-per-host",
    value: "N",
    help: "connections to one host open at once; how many fetches it gets is for politeness to say",
    parse: wholeNumber(1, 10_000),
    fallback: "64",
  }),
  maxHosts: setting({
    flag: "max-hosts",
    value: "N",
    help: "hosts to which connections are kept open; of the others, those unused for longest are closed first",
    parse: wholeNumber(1, 1_000_000),
    fallback: "512",
  }),
  fetchCaFile: optional({
    flag: "fetch-ca-file",
    value: "FILE",
    help: "certificates (PEM) of who may sign a host's, besides those that Node trusts; read at the start",
    parse: text,
  }),
  allowedProxies: setting({
    flag: "allowed-proxies",
    value: "CIDR[,…]",
    help: "networks in which a crawl's proxies may be although private or loopback; hosts there stay refused",
    parse: networks,
    fallback: "",
  }),
  proxyResolves: setting({
    flag: "proxy-resolves",
    help: "hand names to proxies unresolved: then only the proxy can keep fetches out of private networks",
    parse: onOff,
    fallback: "false",
  }),
  maxPageBytes: setting({
    flag: "max-page-bytes",
    value: "BYTES",
    help: "largest page, on the wire and after decoding",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(16 * 2 ** 20),
  }),
  maxFileBytes: setting({
    flag: "max-file-bytes",
    value: "BYTES",
    help: "largest file",
    parse: wholeNumber(1_024),
    fallback: String(256 * 2 ** 20),
  }),
  maxListedUrls: setting({
    flag: "max-listed-urls",
    value: "N",
    help: "URLs taken from one sitemap or feed",
    parse: wholeNumber(1, 1_000_000),
    fallback: "50000",
  }),
  maxListingBytes: setting({
    flag: "max-listing-bytes",
    value: "BYTES",
    help: "bytes read of one sitemap or feed, unpacked",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(50 * 2 ** 20),
  }),
  maxSitemapNesting: setting({
    flag: "max-sitemap-nesting",
    value: "N",
    help: "sitemap indexes that may lead to each other",
    parse: wholeNumber(1, 100),
    fallback: "3",
  }),
  bigPageBytes: setting({
    flag: "big-page-bytes",
    value: "BYTES",
    help: "pages over this size are scanned in slices, so that nothing else waits for them",
    parse: wholeNumber(1_024),
    fallback: String(2 ** 20),
  }),
  documentTimeoutMs: setting({
    flag: "document-timeout-ms",
    value: "MS",
    help: "time for reading one article or PDF, in the thread that does",
    parse: wholeNumber(100, 600_000),
    fallback: "10000",
  }),
  documentMemoryMb: setting({
    flag: "document-memory-mb",
    value: "MIB",
    help: "memory that reading one article or PDF may take",
    parse: wholeNumber(32, 65_536),
    fallback: "256",
  }),
  documentMaxBytes: setting({
    flag: "document-max-bytes",
    value: "BYTES",
    help: "largest file whose text a spider can ask for",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(32 * 2 ** 20),
  }),
  spiderTimeoutMs: setting({
    flag: "spider-timeout-ms",
    value: "MS",
    help: "longest time for a spider to deal with one page",
    parse: wholeNumber(10, DAY_MS),
    fallback: "30000",
  }),
  moduleProcesses: optional({
    flag: "module-processes",
    value: "N",
    help: "processes of each spider that is a module, at most; without it, one for each core",
    parse: wholeNumber(1, 1_000),
  }),
  moduleMemoryMb: setting({
    flag: "module-memory-mb",
    value: "MIB",
    help: "memory of each of them, in MiB; one that takes more is ended, and its page fails",
    parse: wholeNumber(128, 2 ** 20),
    fallback: "512",
  }),
  modulePages: setting({
    flag: "module-pages",
    value: "N",
    help: "pages that may be in one of them at once",
    parse: wholeNumber(1, 1_000),
    fallback: "16",
  }),
  moduleLogLines: setting({
    flag: "module-log-lines",
    value: "N",
    help: "lines that a module may log for one page; the others are counted",
    parse: wholeNumber(0, 1_000_000),
    fallback: "1000",
  }),
  moduleLoadTimeoutMs: setting({
    flag: "module-load-timeout-ms",
    value: "MS",
    help: "longest time for loading a module, with all that it imports",
    parse: wholeNumber(100, DAY_MS),
    fallback: "20000",
  }),
  moduleIdleMs: setting({
    flag: "module-idle-ms",
    value: "MS",
    help: "how long a module's process is kept that has nothing to do",
    parse: wholeNumber(100, DAY_MS),
    fallback: "60000",
  }),
  maxAttempts: setting({
    flag: "max-attempts",
    value: "N",
    help: "fetches of a URL that may fail before it counts as failed",
    parse: wholeNumber(1, 100),
    fallback: "3",
  }),
  maxCrashes: setting({
    flag: "max-crashes",
    value: "N",
    help: "workers that a URL may end before it counts as failed, as poison; the same for all workers",
    parse: wholeNumber(1, 100),
    fallback: "3",
  }),
  uploadBytes: setting({
    flag: "upload-bytes",
    value: "BYTES",
    help: "largest upload of a spider's code, packed as it comes",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(32 * 2 ** 20),
  }),
  codeBytes: setting({
    flag: "code-bytes",
    value: "BYTES",
    help: "bytes of all files of one version of a spider",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(64 * 2 ** 20),
  }),
  codeFileBytes: setting({
    flag: "code-file-bytes",
    value: "BYTES",
    help: "bytes of one of these files",
    parse: wholeNumber(1_024, 2 ** 30),
    fallback: String(32 * 2 ** 20),
  }),
  codeFiles: setting({
    flag: "code-files",
    value: "N",
    help: "files of one version of a spider, folders counted",
    parse: wholeNumber(1, 100_000),
    fallback: "2000",
  }),
  codeVersions: setting({
    flag: "code-versions",
    value: "N",
    help: "newest versions of each spider that a worker keeps on its disk, besides those that it uses",
    parse: wholeNumber(1, 10_000),
    fallback: "3",
  }),
  codeDiskBytes: setting({
    flag: "code-disk-bytes",
    value: "BYTES",
    help: "disk that spiders' code may take on a worker, with all that was installed for it",
    parse: wholeNumber(2 ** 20, 2 ** 50),
    fallback: String(4 * 2 ** 30),
  }),
  installTimeoutMs: setting({
    flag: "install-timeout-ms",
    value: "MS",
    help: "longest time for installing what a version of a spider needs",
    parse: wholeNumber(1_000, DAY_MS),
    fallback: "600000",
  }),
  installScripts: setting({
    flag: "install-scripts",
    help: "run the scripts that npm packages bring for their installation",
    parse: onOff,
    fallback: "false",
  }),
  retryDelayMs: setting({
    flag: "retry-delay-ms",
    value: "MS",
    help: "wait before a second attempt, doubled for each further one",
    parse: wholeNumber(0, DAY_MS),
    fallback: "1000",
  }),
  maxRetryDelayMs: setting({
    flag: "max-retry-delay-ms",
    value: "MS",
    help: "longest wait between two attempts, whatever a server asks for with Retry-After",
    parse: wholeNumber(0, DAY_MS),
    fallback: "600000",
  }),
  browserPath: optional({
    flag: "browser-path",
    value: "FILE|NAME",
    help: "Chromium, for pages that are to be rendered; without it, chromium, chromium-browser or google-chrome on PATH",
    parse: text,
  }),
  browserSandbox: setting({
    flag: "browser-sandbox",
    value: "HOW",
    help: "Chromium's own sandbox: on, off, or auto: on unless the worker runs as root, for whom it does not work",
    parse: oneOf<"auto" | "on" | "off">(["auto", "on", "off"]),
    fallback: "auto",
  }),
  browserMemoryBytes: setting({
    flag: "browser-memory-bytes",
    value: "BYTES",
    help: "memory of one rendered page's process; it is ended when it takes more",
    parse: wholeNumber(128 * 2 ** 20, 2 ** 36),
    fallback: String(2 ** 30),
  }),
  browserPages: setting({
    flag: "browser-pages",
    value: "N",
    help: "pages after which the browser is replaced by a new one",
    parse: wholeNumber(1, 1_000_000),
    fallback: "500",
  }),
  maxRendering: setting({
    flag: "max-rendering",
    value: "N",
    help: "pages that this worker renders at once",
    parse: wholeNumber(1, 100),
    fallback: "2",
  }),
  renderRequests: setting({
    flag: "render-requests",
    value: "N",
    help: "requests that a rendered page may make, its document not counted",
    parse: wholeNumber(0, 100_000),
    fallback: "300",
  }),
  renderBytes: setting({
    flag: "render-bytes",
    value: "BYTES",
    help: "bytes that these may bring in all, decoded",
    parse: wholeNumber(1_024, 2 ** 32),
    fallback: String(32 * 2 ** 20),
  }),
  standalone: setting({
    flag: "standalone",
    help: "one process, no broker, no database: crawl and exit",
    parse: onOff,
    fallback: "false",
  }),
  seed: setting({
    flag: "seed",
    value: "URL…",
    help: "standalone: where to begin; may be given several times",
    parse: lines,
    fallback: "",
    isMultiple: true,
  }),
  spider: optional({ flag: "spider", value: "NAME|FILE", help: "standalone: the spider", parse: text }),
  maxDepth: optional({
    flag: "max-depth",
    value: "N",
    help: "standalone: links followed from a seed at most",
    parse: wholeNumber(0),
  }),
  maxPages: optional({
    flag: "max-pages",
    value: "N",
    help: "standalone: URLs fetched at most",
    parse: wholeNumber(1),
  }),
  output: setting({
    flag: "output",
    value: "FILE|-",
    help: "standalone: where items go, as NDJSON; - is standard output",
    parse: text,
    fallback: "-",
  }),
  files: optional({
    flag: "files",
    value: "FOLDER",
    help: "standalone: where files go (the data directory's files/ by default)",
    parse: text,
  }),
  archive: optional({
    flag: "archive",
    value: "FILE",
    help: "standalone: where everything that goes over the wire is kept, as WARC (FILE.warc.gz)",
    parse: text,
  }),
  config: optional({
    flag: "config",
    value: "FILE",
    help: "standalone: YAML or JSON with the members of a crawl",
    parse: text,
  }),
} satisfies Record<string, Setting<unknown>>;

export type SettingName = keyof typeof SETTINGS;

/** Variables that other programs of ours read, and that are therefore not unknown here. */
const OTHER_VARIABLES = ["WARREN_URL", "WARREN_TOKEN"];

type ValueOf<S> = S extends Optional<infer T> ? T | undefined : S extends Setting<infer T> ? T : never;

export type Config<Names extends SettingName> = {
  readonly [Name in Names]: ValueOf<(typeof SETTINGS)[Name]>;
};

export type Program<Names extends SettingName> = {
  /** As it is called, for help and errors: `node dist/master.js`. */
  readonly usage: string;
  readonly about: string;
  readonly settings: readonly Names[];
};

/** All that is to be known to reach RabbitMQ. */
export const AMQP_SETTINGS = [
  "amqpUrl",
  "amqpAuth",
  "amqpCaFile",
  "amqpCertFile",
  "amqpKeyFile",
  "amqpKeyPassphrase",
] as const satisfies readonly SettingName[];

/** How hosts are fetched from, whoever does it. */
export const FETCH_SETTINGS = [
  "userAgent",
  "allowedNetworks",
  "allowedProxies",
  "proxyResolves",
  "dnsTimeoutMs",
  "dnsCacheMs",
  "dnsCacheNames",
  "fetchConnectTimeoutMs",
  "fetchHeadersTimeoutMs",
  "fetchBodyTimeoutMs",
  "fetchTimeoutMs",
  "minBytesPerSecond",
  "minRateWindowMs",
  "maxHeaderBytes",
  "maxHeaders",
  "maxConnections",
  "maxConnectionsPerHost",
  "maxHosts",
  "fetchCaFile",
] as const satisfies readonly SettingName[];

/** What spiders that are modules may take. */
export const MODULE_SETTINGS = [
  "spiderTimeoutMs",
  "moduleProcesses",
  "moduleMemoryMb",
  "modulePages",
  "moduleLogLines",
  "moduleLoadTimeoutMs",
  "moduleIdleMs",
] as const satisfies readonly SettingName[];

/** The part of them that is not the URLs, as the bus takes it. */
export function amqpSecurityOf(config: Config<(typeof AMQP_SETTINGS)[number]>) {
  return {
    auth: config.amqpAuth,
    caFile: config.amqpCaFile,
    certFile: config.amqpCertFile,
    keyFile: config.amqpKeyFile,
    keyPassphrase: config.amqpKeyPassphrase,
  };
}

/** `--help` was asked for; `message` is the text. */
export class HelpRequested extends Error {}

/**
 * Reads a program's settings from its arguments and environment.
 * @throws ConfigError naming the flag or variable that is unknown or wrong
 * @throws HelpRequested for `--help`
 */
export function readConfig<Names extends SettingName>(
  program: Program<Names>,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Config<Names> {
  refuseUnknownVariables(environment);
  const flags = readFlags(program, argv);
  const values: Partial<Record<SettingName, unknown>> = {};
  for (const name of program.settings) {
    const about: Setting<unknown> = SETTINGS[name];
    const flag = flags.get(about.flag);
    const variable = environment[about.variable];
    const [given, origin] =
      flag !== undefined
        ? [flag, `--${about.flag}`]
        : variable !== undefined && variable !== ""
          ? [variable, about.variable]
          : [about.fallback, about.flag];
    if (given === undefined) continue;
    try {
      values[name] = about.parse(given);
    } catch (error) {
      throw new ConfigError(`${origin} ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return values as Config<Names>;
}

function readFlags<Names extends SettingName>(
  program: Program<Names>,
  argv: readonly string[],
): Map<string, string> {
  const known = new Map<string, Setting<unknown>>();
  for (const name of program.settings) known.set(SETTINGS[name].flag, SETTINGS[name]);
  const options: Record<string, { type: "string" | "boolean" }> = { help: { type: "boolean" } };
  for (const about of known.values()) {
    options[about.flag] = { type: about.value === undefined ? "boolean" : "string" };
  }
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, tokens: true });
  const flags = new Map<string, string>();
  let last: Setting<unknown> | undefined;
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (last?.isMultiple !== true)
        throw new ConfigError(`unexpected argument "${token.value}"; see --help`);
      flags.set(last.flag, `${flags.get(last.flag)}\n${token.value}`);
      continue;
    }
    if (token.kind !== "option") continue;
    if (token.name === "help") throw new HelpRequested(helpOf(program));
    const about = known.get(token.name);
    if (about === undefined) {
      throw new ConfigError(
        `unknown flag ${token.rawName}${didYouMean(token.name, known.keys(), "--")}; see --help`,
      );
    }
    last = about;
    const value = about.value === undefined ? (token.value ?? "true") : token.value;
    // The next flag is no value: `--output --standalone` forgot one. (`--flag=--x` says that it is meant.)
    if (value === undefined || (value.startsWith("--") && token.inlineValue !== true)) {
      throw new ConfigError(`--${about.flag} needs a value: ${about.value}`);
    }
    const before = flags.get(about.flag);
    flags.set(about.flag, about.isMultiple === true && before !== undefined ? `${before}\n${value}` : value);
  }
  return flags;
}

function refuseUnknownVariables(environment: Readonly<Record<string, string | undefined>>): void {
  const known = new Set(OTHER_VARIABLES);
  for (const about of Object.values<Setting<unknown>>(SETTINGS)) known.add(about.variable);
  for (const name of Object.keys(environment)) {
    if (!name.startsWith("WARREN_") || known.has(name)) continue;
    throw new ConfigError(`unknown environment variable ${name}${didYouMean(name, known, "")}`);
  }
}

/** The help text of a program: its settings, their variables and defaults. */
export function helpOf<Names extends SettingName>(program: Program<Names>): string {
  const rows = program.settings.map((name): [string, string] => {
    const about: Setting<unknown> = SETTINGS[name];
    const left = `--${about.flag}${about.value === undefined ? "" : ` ${about.value}`}`;
    const fallback = about.fallback === undefined || about.fallback === "" ? "" : ` [${about.fallback}]`;
    return [left, `${about.help}${fallback} (${about.variable})`];
  });
  rows.push(["--help", "this text"]);
  const width = Math.max(...rows.map(([left]) => left.length));
  const body = rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
  return `Usage: ${program.usage}\n\n${program.about}\n\nFlags (each has an environment variable; flags win):\n${body}\n`;
}

function didYouMean(given: string, known: Iterable<string>, prefix: string): string {
  let best: string | undefined;
  let bestDistance = 4;
  for (const name of known) {
    const distance = editDistance(given, name);
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best === undefined ? "" : `, did you mean ${prefix}${best}?`;
}

/** Levenshtein distance: single-character insertions, deletions and replacements from one to the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= to.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

export const ROLES = ["viewer", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];
export type ApiToken = { readonly role: Role; readonly token: string };

function apiTokens(value: string): readonly ApiToken[] {
  return value.split(",").map((pair) => {
    const colon = pair.indexOf(":");
    const role = ROLES.find((name) => name === pair.slice(0, colon).trim());
    const token = pair.slice(colon + 1).trim();
    // The pair itself is not repeated: it holds a secret.
    if (colon < 0 || role === undefined || token === "") {
      throw new Error(`must be role:token pairs separated by commas, roles ${ROLES.join(", ")}`);
    }
    return { role, token };
  });
}

function userAgent(value: string): string {
  // RFC 9110, 10.1.5: a product token first; RFC 9309, 2.2.1: only letters, "_" and "-" are matched.
  if (!/^[A-Za-z_-]+(\/[\x21-\x7e]+)?( [\x20-\x7e]*)?$/.test(value)) {
    throw new Error(
      `must begin with a name of letters, "_" or "-", such as "Warren/0.1 (+https://…)", not "${value}"`,
    );
  }
  return value;
}
