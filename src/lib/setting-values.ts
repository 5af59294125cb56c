import { withoutPassword } from "./logger.js";

// What a setting may be: each parses the text that was given. What it throws says what is wrong with that, without naming the setting.

export const text = (value: string): string => {
  if (value.trim() === "") throw new Error("must not be empty");
  return value;
};
export const lines = (value: string): readonly string[] =>
  value.split("\n").filter((line) => line.trim() !== "");

export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value.trim()) || number < min || number > max) {
      const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
      throw new Error(`must be a whole number, ${range}, not "${value}"`);
    }
    return number;
  };
}

export function networks(value: string): readonly string[] {
  return value.split(",").flatMap((part) => (part.trim() === "" ? [] : [part.trim()]));
}

export function oneOf<T extends string>(choices: readonly T[]): (value: string) => T {
  return (value) => {
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new Error(`must be one of ${choices.join(", ")}, not "${value}"`);
    return found;
  };
}

export function onOff(value: string): boolean {
  if (["true", "1", "yes", "on"].includes(value.toLowerCase())) return true;
  if (["false", "0", "no", "off", ""].includes(value.toLowerCase())) return false;
  throw new Error(`must be true or false, not "${value}"`);
}

export function urlOf(value: string, protocols: readonly string[], example: string): string {
  const trimmed = value.trim();
  // MongoDB URIs may list several hosts, which the URL parser does not take.
  const protocol = /^[a-z][a-z0-9+.-]*:\/\//i.exec(trimmed)?.[0].toLowerCase();
  if (protocol === undefined || !protocols.includes(protocol)) {
    throw new Error(`must look like ${example}, not "${withoutPassword(trimmed)}"`);
  }
  return trimmed;
}

export function amqpUrls(value: string): readonly string[] {
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

export function nodeId(value: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(value)) {
    throw new Error(
      `must be 1 to 64 letters, digits, ".", "_" or "-", and begin with a letter or digit, not "${value}"`,
    );
  }
  return value;
}

export function namespace(value: string): string {
  if (!/^[A-Za-z][A-Za-z0-9_-]{0,37}$/.test(value)) {
    throw new Error(
      `must be 1 to 38 letters, digits, "_" or "-", and begin with a letter (it names the database too), not "${value}"`,
    );
  }
  return value;
}

export function smtpUrl(value: string): string {
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

export function mailSender(value: string): string {
  // No line break, and no second address: headers are made of it.
  if (!/^(?:[^<>,;:\r\n"@]*<[^\s<>,;@]+@[^\s<>,;@]+>|[^\s<>,;@]+@[^\s<>,;@]+)$/.test(value.trim())) {
    throw new Error(`must be user@host or Name <user@host>, not "${value}"`);
  }
  return value.trim();
}

export function labelsOf(value: string): Readonly<Record<string, string>> {
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

export const ROLES = ["viewer", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];
export type ApiToken = { readonly role: Role; readonly token: string };

export function apiTokens(value: string): readonly ApiToken[] {
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

export function userAgent(value: string): string {
  // RFC 9110, 10.1.5: a product token first; RFC 9309, 2.2.1: only letters, "_" and "-" are matched.
  if (!/^[A-Za-z_-]+(\/[\x21-\x7e]+)?( [\x20-\x7e]*)?$/.test(value)) {
    throw new Error(
      `must begin with a name of letters, "_" or "-", such as "Warren/0.1 (+https://…)", not "${value}"`,
    );
  }
  return value;
}
