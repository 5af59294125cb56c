import { z } from "zod";

/** What became of an item, as those who are told of it may ask. */
export const ITEM_CHANGES = ["added", "changed"] as const;
export type ItemChange = (typeof ITEM_CHANGES)[number];

/** Where the items of a crawl are posted to. */
export type ItemWebhook = {
  /** Absolute http(s) URL. */
  readonly url: string;
  /** What its posts are signed with: `whsec_` and base64, or any other text as it is. @default they are not signed */
  readonly secret?: string;
  /** What it is told of. @default all of it */
  readonly events?: readonly ItemChange[];
};

/** What becomes of a crawl's items. Without it each is kept for good, and nobody is told of it. */
export type ItemOptions = {
  /**
   * Names of the fields, or paths to them (`offer.sku`), whose values make two items of the crawl one. The newest data
   * wins. @default items are told apart by the page and their place on it
   */
  readonly key?: string | readonly string[];
  /** Whether data that newer data took the place of is kept. Needs `key`. @default false */
  readonly history: boolean;
  /** Age at which items and stored files are removed, in milliseconds. @default never */
  readonly retentionMs?: number;
  /** Whether each item is published to the exchange of items. @default false */
  readonly publish: boolean;
  /** @default none */
  readonly webhooks: readonly ItemWebhook[];
};

const MAX_WEBHOOKS = 10;
const MAX_KEY_FIELDS = 16;
const LONGEST_RETENTION_MS = 3_650 * 86_400_000;
const SIGNED_WITH = /^whsec_[A-Za-z0-9+/]{8,}={0,2}$/;

const field = z
  .string()
  .min(1, "must not be empty")
  .max(200, "must have at most 200 characters")
  .regex(/^[^\0]*$/, "must not have NUL characters");

/** An address that something is posted to, as it comes from outside. */
export const webhookUrl = z
  .string()
  .max(2_048, "must have at most 2048 characters")
  .refine(isWebhookUrl, "must be an absolute http or https URL, without user name, password or fragment");

/** A secret to sign posts with, as it comes from outside. */
export const webhookSecret = z
  .string()
  .min(8, "must have at least 8 characters")
  .max(200, "must have at most 200 characters")
  .refine(
    (secret) => !secret.startsWith("whsec_") || SIGNED_WITH.test(secret),
    "must be base64 after whsec_",
  );

const webhook = z.strictObject({
  url: webhookUrl,
  secret: webhookSecret.exactOptional(),
  events: z
    .array(z.enum(ITEM_CHANGES))
    .min(1, "must name at least one")
    .max(ITEM_CHANGES.length)
    .exactOptional(),
});

/** The member `items` of a crawl, as it comes from outside. */
export const itemOptions = z
  .strictObject({
    key: z
      .union([
        field,
        z
          .array(field)
          .min(1, "must name at least one field")
          .max(MAX_KEY_FIELDS, `must name at most ${MAX_KEY_FIELDS} fields`),
      ])
      .exactOptional(),
    history: z.boolean().default(false),
    retentionMs: z
      .int()
      .min(1_000, `must be from 1000 to ${LONGEST_RETENTION_MS}`)
      .max(LONGEST_RETENTION_MS, `must be from 1000 to ${LONGEST_RETENTION_MS}`)
      .exactOptional(),
    publish: z.boolean().default(false),
    webhooks: z.array(webhook).max(MAX_WEBHOOKS, `must be at most ${MAX_WEBHOOKS}`).default([]),
  })
  .superRefine(({ key, history }, context) => {
    if (!history || key !== undefined) return;
    context.addIssue({
      code: "custom",
      path: ["history"],
      message: "needs key: only items that are told apart by one have earlier versions",
    });
  });

function isWebhookUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) return false;
  return url.username === "" && url.password === "" && url.hash === "";
}

const MASK = "***";

/** The options as they may be shown to anyone who may see the crawl. */
export function withoutWebhookSecrets(options: ItemOptions): ItemOptions {
  const webhooks = options.webhooks.map(({ secret, ...rest }) => ({
    ...rest,
    ...(secret !== undefined && { secret: MASK }),
  }));
  return { ...options, webhooks };
}
