import { createHmac } from "node:crypto";

const PREFIX = "whsec_";

/**
 * What a post is signed with, as Standard Webhooks 1.0.0 has it: HMAC-SHA-256 over id, time and body.
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 * @param secret `whsec_` and base64 of the key, or any other text, which is the key
 * @param timestamp in seconds since the epoch
 */
export function webhookSignature(secret: string, id: string, timestamp: number, body: string): string {
  const key = secret.startsWith(PREFIX)
    ? Buffer.from(secret.slice(PREFIX.length), "base64")
    : Buffer.from(secret, "utf8");
  const digest = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return `v1,${digest}`;
}
