#!/usr/bin/env node
import path from "node:path";
import { fetcherOptionsOf } from "./crawl/fetch/fetch-settings.js";
import { Fetcher } from "./crawl/fetch/fetcher.js";
import { Documents } from "./crawl/pages/documents.js";
import { systemClock } from "./lib/clock.js";
import { amqpSecurityOf, type Config, readConfig } from "./lib/config.js";
import { withDeadline } from "./lib/deadline.js";
import { ConfigError } from "./lib/errors.js";
import { LogRing } from "./lib/log-ring.js";
import { createLogger } from "./lib/logger.js";
import { main } from "./lib/main.js";
import { Metrics } from "./lib/metrics.js";
import { runUntilSignalled } from "./lib/service.js";
import { AMQP_SETTINGS, DAY_MS, FETCH_SETTINGS, MODULE_SETTINGS, type SettingName } from "./lib/settings.js";
import { VERSION } from "./lib/version.js";
import { ItemWriter } from "./worker/item-writer.js";
import { ModuleHost, moduleSettingsOf } from "./worker/modules/index.js";
import { nodeIdIn } from "./worker/node-id.js";
import { ProbeServer } from "./worker/probe-server.js";
import { spiderCatalog } from "./worker/spider-catalog.js";
import { Standalone } from "./worker/standalone.js";
import { crawlOf } from "./worker/standalone-crawl.js";
import { standaloneProcesses } from "./worker/standalone-process.js";
import { WarcFile } from "./worker/warc-file.js";

const SHARED = [
  "concurrency",
  "runs",
  "labels",
  ...FETCH_SETTINGS,
  ...MODULE_SETTINGS,
  "dataDir",
  "maxPageBytes",
  "maxFileBytes",
  "maxListedUrls",
  "maxListingBytes",
  "maxSitemapNesting",
  "bigPageBytes",
  "documentTimeoutMs",
  "documentMemoryMb",
  "documentMaxBytes",
  "maxAttempts",
  "retryDelayMs",
  "maxRetryDelayMs",
  "browserPath",
  "browserSandbox",
  "browserMemoryBytes",
  "browserPages",
  "maxRendering",
  "renderRequests",
  "renderBytes",
  "logLevel",
  "shutdownTimeoutMs",
] as const satisfies readonly SettingName[];

const PROGRAM = {
  usage:
    "node dist/worker.js [--node-id ID] [--concurrency N] …\n" +
    "       node dist/worker.js --standalone --seed URL… [--spider NAME|FILE] [--output FILE|-] …",
  about:
    "A Warren worker: takes tasks from RabbitMQ, fetches, runs spiders, stores what they bring in MongoDB.\n" +
    "With --standalone, a whole crawl in one process, without either.",
  settings: [
    ...AMQP_SETTINGS,
    "mongodbUri",
    "namespace",
    "nodeId",
    "metricsPort",
    "connectTimeoutMs",
    "logLines",
    "crawlLogLevel",
    "crawlLogDiskBytes",
    "crawlLogFileBytes",
    "crawlLogDays",
    "maxTasks",
    "deliveryLimit",
    "maxDeadLetters",
    "invalidItemsKept",
    "deadLetterRecords",
    "deadLetterDays",
    "maxCrashes",
    "codeVersions",
    "codeDiskBytes",
    "installTimeoutMs",
    "installScripts",
    ...SHARED,
    "standalone",
    "seed",
    "spider",
    "maxDepth",
    "maxPages",
    "output",
    "files",
    "archive",
    "hostPatienceMs",
    "config",
  ] as const satisfies readonly SettingName[],
};

type WorkerConfig = Config<(typeof PROGRAM.settings)[number]>;

await main(async () => {
  const config = readConfig(PROGRAM, process.argv.slice(2), process.env);
  if (config.standalone) await runStandalone(config);
  else await runInCluster(config);
});

async function runInCluster(config: WorkerConfig): Promise<void> {
  const nodeId = config.nodeId ?? (await nodeIdIn(config.dataDir));
  // Of its own: workers may share a data directory, also those of several clusters.
  const folder = path.join(config.dataDir, config.namespace, nodeId);
  const log = new LogRing(config.logLines);
  const logger = createLogger({ level: config.logLevel, base: { role: "worker", node: nodeId }, ring: log });
  const metrics = new Metrics();
  metrics.collectProcessMetrics();
  let requestStop: (error?: Error) => void = () => {};
  const stopRequested = new Promise<void>((resolve, reject) => {
    requestStop = (error) => (error === undefined ? resolve() : reject(error));
  });
  // Loaded only here: a standalone crawl needs neither client, and starts a quarter of a second sooner.
  const { ClusterWorker } = await import("./worker/cluster-worker.js");
  const documents = documentsOf(config);
  const worker = new ClusterWorker(
    {
      nodeId,
      version: VERSION,
      amqpUrls: config.amqpUrl,
      amqpSecurity: amqpSecurityOf(config),
      mongodbUri: config.mongodbUri,
      namespace: config.namespace,
      concurrency: config.concurrency,
      runs: config.runs,
      ...(config.labels !== undefined && { labels: config.labels }),
      userAgent: config.userAgent,
      fetcher: fetcherOptionsOf(config),
      limits: limitsOf(config),
      rendering: renderingOptions(config),
      shutdownTimeoutMs: config.shutdownTimeoutMs,
      maxCrashes: config.maxCrashes,
      spiders: {
        folder: path.join(folder, "spiders"),
        code: { keptVersions: config.codeVersions, maxBytes: config.codeDiskBytes },
        dependencies: { timeoutMs: config.installTimeoutMs, runScripts: config.installScripts },
        modules: moduleSettingsOf(config),
      },
      topology: {
        maxTasks: config.maxTasks,
        deliveryLimit: config.deliveryLimit,
        maxDeadLetters: config.maxDeadLetters,
      },
      invalidItemsKept: config.invalidItemsKept,
      deadLetters: { maxRecords: config.deadLetterRecords, keptForMs: config.deadLetterDays * DAY_MS },
      crawlLogs: { keptForMs: config.crawlLogDays * DAY_MS },
      crawlLog: {
        folder: path.join(folder, "logs"),
        level: config.crawlLogLevel,
        maxBytes: config.crawlLogDiskBytes,
        segmentBytes: config.crawlLogFileBytes,
      },
    },
    { logger, log, metrics, documents, shutdown: requestStop },
  );
  const probes =
    config.metricsPort === undefined
      ? []
      : [new ProbeServer({ port: config.metricsPort }, { metrics, logger, checks: worker.checks })];
  const connecting = withDeadline(worker, config.connectTimeoutMs, "RabbitMQ and MongoDB");
  await runUntilSignalled(
    [documents, ...probes, connecting],
    { logger, shutdownTimeoutMs: config.shutdownTimeoutMs },
    stopRequested,
  );
}

async function runStandalone(config: WorkerConfig): Promise<void> {
  const logger = createLogger({ level: config.logLevel, base: { role: "standalone" } });
  const modules = new ModuleHost({ logger }, moduleSettingsOf(config));
  const processes = standaloneProcesses(logger);
  const spiders = await spiderCatalog(config.spider, {
    module: (source) => modules.load(source),
    process: processes.make,
  });
  const filesFolder = config.files ?? path.join(config.dataDir, "files");
  const asked = await crawlOf(config, spiders);
  if (asked.archive === true && config.archive === undefined) {
    throw new ConfigError("--archive: say where to write what the crawl's `archive` asks for");
  }
  const archive = config.archive === undefined ? undefined : await WarcFile.open(config.archive, filesFolder);
  const crawl = { ...asked, archive: archive !== undefined };
  const documents = documentsOf(config);
  const standalone = new Standalone(
    {
      crawl,
      concurrency: config.concurrency,
      hostPatienceMs: config.hostPatienceMs,
      limits: limitsOf(config),
      rendering: renderingOptions(config),
      userAgent: config.userAgent,
      filesFolder,
    },
    {
      fetcher: new Fetcher(fetcherOptionsOf(config)),
      documents,
      spiders,
      items: await ItemWriter.to(config.output),
      ...(archive !== undefined && { archive }),
      clock: systemClock,
      logger,
    },
  );
  const finished = standalone.finished.then(({ counts, finishReason }) => {
    logger.info({ ...counts, finishReason }, "crawl finished");
  });
  await runUntilSignalled(
    [documents, modules, ...processes.services, standalone],
    { logger, shutdownTimeoutMs: config.shutdownTimeoutMs },
    finished,
  );
}

function renderingOptions(config: WorkerConfig) {
  const { browserPath, browserSandbox, browserMemoryBytes, browserPages } = config;
  return {
    browser: {
      ...(browserPath !== undefined && { path: browserPath }),
      sandbox: browserSandbox,
      maxPageMemoryBytes: browserMemoryBytes,
      maxPages: browserPages,
    },
    renderer: {
      userAgent: config.userAgent,
      maxPages: config.maxRendering,
      maxRequests: config.renderRequests,
      maxBytes: config.renderBytes,
      maxDocumentBytes: config.maxPageBytes,
    },
  };
}

function limitsOf(config: WorkerConfig) {
  const { maxPageBytes, maxFileBytes, bigPageBytes, maxAttempts, retryDelayMs, maxRetryDelayMs } = config;
  const { maxListedUrls, maxListingBytes, maxSitemapNesting, spiderTimeoutMs } = config;
  return {
    maxPageBytes,
    maxFileBytes,
    bigPageBytes,
    maxAttempts,
    retryDelayMs,
    maxRetryDelayMs,
    maxListedUrls,
    maxListingBytes,
    maxSitemapNesting,
    spiderTimeoutMs,
  };
}

function documentsOf(config: WorkerConfig): Documents {
  return new Documents({
    timeoutMs: config.documentTimeoutMs,
    maxMemoryMb: config.documentMemoryMb,
    maxFileBytes: config.documentMaxBytes,
  });
}
