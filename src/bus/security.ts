import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { credentials } from "amqplib";
import { ConfigError, messageOf } from "../lib/errors.js";

/** How a connection makes sure of the broker, and how it proves who it is. Files are PEM. */
export type SecurityOptions = {
  /** `plain`: by the URL's user and password; `external`: by the certificate. @default "plain" */
  readonly auth?: "plain" | "external" | undefined;
  /** Who may have signed a broker's certificate, in place of those that Node trusts. */
  readonly caFile?: string | undefined;
  /** The certificate to show, and its key. */
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
  /** What the key is encrypted with. */
  readonly keyPassphrase?: string | undefined;
};

/** What a socket to the broker is opened with. */
export type SocketSecurity = {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly passphrase?: string;
  readonly credentials?: ReturnType<typeof credentials.external>;
};

/** @throws ConfigError for settings that contradict each other */
export function checkSecurity(urls: readonly string[], options: SecurityOptions): void {
  const { auth, certFile, keyFile, keyPassphrase } = options;
  const isTls = (url: string) => new URL(url).protocol === "amqps:";
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new ConfigError(
      "WARREN_AMQP_CERT_FILE and WARREN_AMQP_KEY_FILE: one is of no use without the other",
    );
  }
  if (keyPassphrase !== undefined && keyFile === undefined) {
    throw new ConfigError(
      "WARREN_AMQP_KEY_PASSPHRASE: there is no WARREN_AMQP_KEY_FILE that it could be for",
    );
  }
  if (auth === "external" && (certFile === undefined || !urls.every(isTls))) {
    throw new ConfigError(
      "WARREN_AMQP_AUTH: external needs WARREN_AMQP_CERT_FILE, and only amqps:// in AMQP_URL",
    );
  }
  if (urls.some(isTls)) return;
  const useless = certFile !== undefined ? "CERT" : options.caFile !== undefined ? "CA" : undefined;
  if (useless !== undefined) {
    throw new ConfigError(
      `WARREN_AMQP_${useless}_FILE: AMQP_URL names no amqps:// broker that it could be for`,
    );
  }
}

/**
 * What to open a socket to this broker with. The files are read for each connection, so that a certificate may be
 * renewed while the program runs.
 * @throws ConfigError naming the setting whose file cannot be read, or holds something else
 */
export async function socketSecurity(url: URL, options: SecurityOptions): Promise<SocketSecurity> {
  if (url.protocol !== "amqps:") return {};
  const { auth, caFile, certFile, keyFile, keyPassphrase } = options;
  const ca = caFile === undefined ? undefined : await contentOf("WARREN_AMQP_CA_FILE", caFile);
  if (ca !== undefined) certificateIn("WARREN_AMQP_CA_FILE", caFile ?? "", ca);
  return {
    ...(ca !== undefined && { ca }),
    ...(certFile !== undefined && keyFile !== undefined && (await ownPair(certFile, keyFile, keyPassphrase))),
    ...(auth === "external" && { credentials: credentials.external() }),
  };
}

async function ownPair(
  certFile: string,
  keyFile: string,
  passphrase: string | undefined,
): Promise<SocketSecurity> {
  const cert = await contentOf("WARREN_AMQP_CERT_FILE", certFile);
  const certificate = certificateIn("WARREN_AMQP_CERT_FILE", certFile, cert);
  const key = await contentOf("WARREN_AMQP_KEY_FILE", keyFile);
  if (!certificate.checkPrivateKey(privateKeyIn(keyFile, key, passphrase))) {
    throw new ConfigError(
      `WARREN_AMQP_KEY_FILE: ${keyFile} is not the key of the certificate in ${certFile} (WARREN_AMQP_CERT_FILE)`,
    );
  }
  return { cert, key, ...(passphrase !== undefined && { passphrase }) };
}

async function contentOf(setting: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new ConfigError(`${setting}: cannot read ${file}: ${messageOf(error)}`, { cause: error });
  }
}

function certificateIn(setting: string, file: string, content: Buffer): X509Certificate {
  try {
    return new X509Certificate(content);
  } catch (error) {
    throw new ConfigError(`${setting}: ${file} holds no certificate in PEM: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function privateKeyIn(file: string, key: Buffer, passphrase: string | undefined): KeyObject {
  try {
    // Without a pass phrase given, OpenSSL would ask the terminal for that of an encrypted key.
    return createPrivateKey({ key, passphrase: passphrase ?? "" });
  } catch (error) {
    throw new ConfigError(
      `WARREN_AMQP_KEY_FILE: ${file} holds no private key in PEM, or WARREN_AMQP_KEY_PASSPHRASE is not its pass phrase: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** Codes of OpenSSL's verdicts on a certificate, as Node hands them on. */
const DISTRUST =
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_|HOSTNAME_MISMATCH|PATH_LENGTH_EXCEEDED|ERR_TLS_CERT_ALTNAME)/;

/** Alerts by which the broker turns down the certificate that it was shown, or asks for one. */
const TURNED_DOWN = /alert (unknown ca|(bad |unsupported )?certificate)/i;

/**
 * What a failure to agree on TLS means for a user; undefined when it is about something else. None of it mends
 * itself: a broker whose certificate does not hold may be somebody else.
 * @param shown the broker's URL, without its password
 */
export function tlsRefusalOf(error: unknown, shown: string): ConfigError | undefined {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const message = messageOf(error);
  if (DISTRUST.test(code)) {
    return new ConfigError(
      `AMQP_URL: the certificate of ${shown} does not hold: ${message} (${code}); WARREN_AMQP_CA_FILE says who may have signed it`,
      { cause: error },
    );
  }
  if (TURNED_DOWN.test(message)) {
    return new ConfigError(
      `WARREN_AMQP_CERT_FILE: ${shown} does not take the certificate, or wants one: ${message}`,
      { cause: error },
    );
  }
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER" || code === "ERR_SSL_PACKET_LENGTH_TOO_LONG") {
    return new ConfigError(`AMQP_URL: ${shown} is no amqps:// broker: it does not speak TLS`, {
      cause: error,
    });
  }
  if (/^SASL mechanism|mechanism EXTERNAL/.test(message)) {
    return new ConfigError(`WARREN_AMQP_AUTH: ${shown} does not take such logins: ${message}`, {
      cause: error,
    });
  }
  return undefined;
}
