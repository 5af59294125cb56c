import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { Config } from "../../lib/config.js";
import { ConfigError, messageOf } from "../../lib/errors.js";
import type { FETCH_SETTINGS } from "../../lib/settings.js";
import type { FetcherOptions } from "./fetcher.js";

/**
 * What a fetcher is told by the settings of the process.
 * @throws ConfigError when the file of certificates cannot be used
 */
export function fetcherOptionsOf(config: Config<(typeof FETCH_SETTINGS)[number]>): FetcherOptions {
  return {
    userAgent: config.userAgent,
    timeoutMs: config.fetchTimeoutMs,
    dnsTimeoutMs: config.dnsTimeoutMs,
    connectTimeoutMs: config.fetchConnectTimeoutMs,
    headersTimeoutMs: config.fetchHeadersTimeoutMs,
    bodyTimeoutMs: config.fetchBodyTimeoutMs,
    minBytesPerSecond: config.minBytesPerSecond,
    minRateWindowMs: config.minRateWindowMs,
    maxHeaderBytes: config.maxHeaderBytes,
    maxHeaders: config.maxHeaders,
    connectionsPerHost: config.maxConnectionsPerHost,
    maxConnections: config.maxConnections,
    maxPools: config.maxHosts,
    allowedNetworks: config.allowedNetworks,
    allowedProxies: config.allowedProxies,
    proxyResolves: config.proxyResolves,
    dnsCacheMs: config.dnsCacheMs,
    dnsCacheNames: config.dnsCacheNames,
    ca: config.fetchCaFile === undefined ? undefined : certificatesIn(config.fetchCaFile),
  };
}

function certificatesIn(file: string): string {
  try {
    const certificates = readFileSync(file, "utf8");
    if (!certificates.includes("-----BEGIN CERTIFICATE-----")) throw new Error("it holds no certificate");
    createSecureContext({ ca: certificates });
    return certificates;
  } catch (error) {
    throw new ConfigError(`WARREN_FETCH_CA_FILE: ${file}: ${messageOf(error)}`, { cause: error });
  }
}
