import { z } from "zod";
import { spiderName, whole } from "../crawl/crawl-request.js";
import type { Clock } from "../lib/clock.js";
import {
  type ListOptions,
  RULE_EVENTS,
  type RuleChannel,
  type RuleRecord,
  type RuleSpec,
  type Store,
} from "../store/index.js";
import { parse } from "./crawl-request.js";
import { invalid, notFound, RequestError } from "./errors.js";

/** A rule as it is shown outside: of a secret, only that there is one. */
export type RuleView = {
  readonly id: string;
  readonly name: string | null;
  readonly on: RuleSpec["on"];
  readonly filter: NonNullable<RuleSpec["filter"]>;
  readonly thresholds: NonNullable<RuleSpec["thresholds"]>;
  readonly channels: readonly (
    | { readonly kind: "webhook"; readonly url: string; readonly signed: boolean }
    | { readonly kind: "email"; readonly to: readonly string[] }
  )[];
  readonly createdAt: string;
};

export type NotificationRuleServiceParts = {
  readonly store: Pick<Store, "notificationRules">;
  readonly clock: Clock;
};

export type NotificationRuleServiceOptions = {
  /** Whether this master can send mails. */
  readonly hasMail: boolean;
  /** Whether this master can post to webhooks. */
  readonly hasWebhooks: boolean;
};

const MAX_RULES = 1_000;
const DAY_MS = 86_400_000;

const id = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "must be an id");

const webhook = z.strictObject({
  kind: z.literal("webhook"),
  url: z
    .string()
    .max(2_048, "must have at most 2048 characters")
    .refine(isPlainUrl, "must be an absolute http or https URL without user name and password"),
  secret: z.string().min(1, "must not be empty").max(512, "must have at most 512 characters").exactOptional(),
});

const email = z.strictObject({
  kind: z.literal("email"),
  to: z
    .array(
      // Besides: no list of addresses in one, no line break, no comment. A header is made of it.
      z.email("must be a mail address").max(254, "must have at most 254 characters"),
    )
    .min(1, "must hold at least one address")
    .max(50, "must hold at most 50 addresses"),
});

const rule = z
  .strictObject({
    name: z
      .string()
      .trim()
      .min(1, "must not be empty")
      .max(200, "must have at most 200 characters")
      .exactOptional(),
    on: z
      .union([z.enum(RULE_EVENTS).transform((event) => [event]), z.array(z.enum(RULE_EVENTS))], {
        error: `must be one or several of ${RULE_EVENTS.join(", ")}`,
      })
      .refine((events) => events.length > 0, "must hold at least one event")
      .transform((events) => [...new Set(events)]),
    filter: z
      .strictObject({
        crawl: id.exactOptional(),
        spider: spiderName.exactOptional(),
        schedule: id.exactOptional(),
        node: id.exactOptional(),
      })
      .exactOptional(),
    thresholds: z
      .strictObject({
        failedPercent: z
          .number()
          .min(0, "must be from 0 to 100")
          .lt(100, "must be less than 100: no more than all can fail")
          .exactOptional(),
        minUrls: whole(1, 1_000_000_000).exactOptional(),
        noItems: z.boolean().exactOptional(),
        durationMs: whole(1, 3_650 * DAY_MS).exactOptional(),
        deadLetters: whole(0, 10_000_000).exactOptional(),
      })
      .exactOptional(),
    channels: z
      .array(z.discriminatedUnion("kind", [webhook, email]))
      .min(1, "must hold at least one channel")
      .max(20, "must hold at most 20 channels"),
  })
  .superRefine(({ on, thresholds = {} }, context) => {
    const { minUrls: _minUrls, noItems = false, ...others } = thresholds;
    const isAny = noItems || Object.keys(others).length > 0;
    if (on.includes("threshold") && !isAny) {
      context.addIssue({
        code: "custom",
        path: ["thresholds"],
        message:
          'must have at least one of failedPercent, noItems, durationMs, deadLetters, with "threshold"',
      });
    }
    if (!on.includes("threshold") && Object.keys(thresholds).length > 0) {
      context.addIssue({ code: "custom", path: ["thresholds"], message: 'needs "threshold" in "on"' });
    }
  });

/** All that can be asked of notification rules. */
export class NotificationRuleService {
  readonly #parts: NotificationRuleServiceParts;
  readonly #options: NotificationRuleServiceOptions;

  constructor(parts: NotificationRuleServiceParts, options: NotificationRuleServiceOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /** @throws RequestError `invalid`, naming members; `conflict` when there are too many */
  async create(input: unknown): Promise<RuleView> {
    const { store, clock } = this.#parts;
    const spec: RuleSpec = parse(rule, input);
    for (const [index, { kind }] of spec.channels.entries()) this.#checkChannel(kind, index);
    if ((await store.notificationRules.count()) >= MAX_RULES) {
      throw new RequestError("conflict", `there are ${MAX_RULES} notification rules already`);
    }
    return viewOf(await store.notificationRules.create(spec, clock.now()));
  }

  /** Oldest first. */
  async list(options: ListOptions) {
    const { items, next } = await this.#parts.store.notificationRules.list(options);
    return { items: items.map(viewOf), next };
  }

  /** @throws RequestError `not-found` */
  async get(ruleId: string): Promise<RuleView> {
    const record = await this.#parts.store.notificationRules.get(ruleId);
    if (record === undefined) throw notFound("notification rule", ruleId);
    return viewOf(record);
  }

  /** @throws NotFoundError */
  remove(ruleId: string): Promise<void> {
    return this.#parts.store.notificationRules.remove(ruleId);
  }

  #checkChannel(kind: RuleChannel["kind"], index: number): void {
    const { hasMail, hasWebhooks } = this.#options;
    if (kind === "email" && !hasMail) {
      throw invalid(`channels.${index}.kind`, "mails cannot be sent: WARREN_SMTP_URL is not set");
    }
    if (kind === "webhook" && !hasWebhooks) {
      throw invalid(`channels.${index}.kind`, "this master does not post to webhooks");
    }
  }
}

function viewOf({ id: ruleId, name, on, filter, thresholds, channels, createdAt }: RuleRecord): RuleView {
  return {
    ...{ id: ruleId, name: name ?? null, on, filter: filter ?? {}, thresholds: thresholds ?? {} },
    channels: channels.map((channel) => {
      if (channel.kind === "email") return channel;
      const { secret, ...shown } = channel;
      return { ...shown, signed: secret !== undefined };
    }),
    createdAt: new Date(createdAt).toISOString(),
  };
}

function isPlainUrl(text: string): boolean {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return false;
  const { username, password } = new URL(text);
  return username === "" && password === "";
}
