#!/usr/bin/env node
import { fetcherOptionsOf } from "./crawl/fetch/fetch-settings.js";
import { amqpSecurityOf, type Config, readConfig } from "./lib/config.js";
import { withDeadline } from "./lib/deadline.js";
import { ConfigError } from "./lib/errors.js";
import { createLogger } from "./lib/logger.js";
import { main } from "./lib/main.js";
import { Metrics } from "./lib/metrics.js";
import { runUntilSignalled } from "./lib/service.js";
import { AMQP_SETTINGS, DAY_MS, FETCH_SETTINGS, HOUR_MS, type SettingName } from "./lib/settings.js";
import { VERSION } from "./lib/version.js";
import type { MailServerOptions } from "./master/mail-server.js";
import { Master } from "./master/master.js";

const PROGRAM = {
  usage: "node dist/master.js [--port N] [--host ADDRESS] …",
  about:
    "A Warren master: the HTTP API, the dashboard and the dispatcher. Any number may run; none is special.",
  settings: [
    ...AMQP_SETTINGS,
    "mongodbUri",
    "namespace",
    "host",
    "port",
    "apiTokens",
    "leaseMs",
    "hostPatienceMs",
    "maxTasks",
    "deliveryLimit",
    "maxDeadLetters",
    "deadLetterRecords",
    "deadLetterDays",
    "invalidItemsKept",
    "deliveryAttempts",
    "deliveryHours",
    "deliveryTimeoutMs",
    "deliveriesAtOnce",
    "failedDeliveryDays",
    "crawlLogMaxBytes",
    "externalTasks",
    "scheduleMinIntervalMs",
    "scheduleMissedAfterMs",
    "scheduleHistoryDays",
    "scheduleMaxChain",
    "smtpUrl",
    "smtpFrom",
    "uploadBytes",
    "codeBytes",
    "codeFileBytes",
    "codeFiles",
    ...FETCH_SETTINGS,
    "logLevel",
    "connectTimeoutMs",
    "shutdownTimeoutMs",
  ] as const satisfies readonly SettingName[],
};

function mailOf({ smtpUrl, smtpFrom }: Config<"smtpUrl" | "smtpFrom">): MailServerOptions | undefined {
  if (smtpUrl === undefined) return undefined;
  if (smtpFrom === undefined) throw new ConfigError("WARREN_SMTP_FROM is needed with WARREN_SMTP_URL");
  return { url: smtpUrl, from: smtpFrom };
}

await main(async () => {
  const config: Config<(typeof PROGRAM.settings)[number]> = readConfig(
    PROGRAM,
    process.argv.slice(2),
    process.env,
  );
  const logger = createLogger({ level: config.logLevel, base: { role: "master" } });
  const metrics = new Metrics();
  metrics.collectProcessMetrics();
  const master = new Master(
    {
      version: VERSION,
      amqpUrls: config.amqpUrl,
      amqpSecurity: amqpSecurityOf(config),
      mongodbUri: config.mongodbUri,
      namespace: config.namespace,
      host: config.host,
      port: config.port,
      tokens: config.apiTokens ?? [],
      leaseMs: config.leaseMs,
      hostPatienceMs: config.hostPatienceMs,
      topology: {
        maxTasks: config.maxTasks,
        deliveryLimit: config.deliveryLimit,
        maxDeadLetters: config.maxDeadLetters,
      },
      deadLetters: { maxRecords: config.deadLetterRecords, keptForMs: config.deadLetterDays * DAY_MS },
      invalidItemsKept: config.invalidItemsKept,
      deliveries: {
        maxAttempts: config.deliveryAttempts,
        maxAgeMs: config.deliveryHours * HOUR_MS,
        timeoutMs: config.deliveryTimeoutMs,
        atOnce: config.deliveriesAtOnce,
        failedForMs: config.failedDeliveryDays * DAY_MS,
      },
      crawlLogMaxBytes: config.crawlLogMaxBytes,
      externalTasks: config.externalTasks,
      schedules: {
        minIntervalMs: config.scheduleMinIntervalMs,
        missedAfterMs: config.scheduleMissedAfterMs,
        keptForMs: config.scheduleHistoryDays * DAY_MS,
        maxChain: config.scheduleMaxChain,
      },
      mail: mailOf(config),
      uploads: {
        maxUploadBytes: config.uploadBytes,
        limits: {
          maxBytes: config.codeBytes,
          maxFileBytes: config.codeFileBytes,
          maxFiles: config.codeFiles,
        },
      },
      fetcher: fetcherOptionsOf(config),
    },
    { logger, metrics },
  );
  const connecting = withDeadline(master, config.connectTimeoutMs, "RabbitMQ and MongoDB");
  await runUntilSignalled([connecting], { logger, shutdownTimeoutMs: config.shutdownTimeoutMs });
});
