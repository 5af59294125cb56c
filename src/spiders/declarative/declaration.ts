import { z } from "zod";
import { priority, spiderName, urlList, whole } from "../../crawl/crawl-request.js";
import { jsonSchemaItem } from "../../crawl/json-schema-item.js";
import { spiderSettings } from "../../crawl/spider-settings.js";
import { canonicalUrl } from "../../crawl/urls/url.js";
import { messageOf } from "../../lib/errors.js";
import { renderRequest } from "../../lib/render-request.js";
import { DateStyle } from "./date-text.js";
import { Expression, MAX_EXPRESSION_CHARACTERS } from "./expression.js";
import { Selector } from "./selector.js";
import { compileUrlPattern } from "./url-pattern.js";

const MAX_SELECTOR_CHARACTERS = 1_000;
const MAX_PATTERN_CHARACTERS = 2_048;
const MAX_PATTERNS = 100;
const MAX_RULES = 100;
const MAX_FIELDS = 500;
const MAX_STEPS = 20;
const MAX_PAGE_KINDS = 50;
const MAX_TEXT_CHARACTERS = 10_000;

/** A text whose use is tried out, so that the fault is told where it stands. */
function tried(most: number, use: (text: string) => unknown) {
  return z
    .string()
    .min(1, "must not be empty")
    .max(most, `must have at most ${most} characters`)
    .superRefine((text, context) => {
      if (text === "" || text.length > most) return;
      try {
        use(text);
      } catch (error) {
        context.addIssue({ code: "custom", message: messageOf(error) });
      }
    });
}

const css = tried(MAX_SELECTOR_CHARACTERS, (text) => new Selector(text)).describe("A CSS selector.");
const attr = z
  .string()
  .min(1, "must not be empty")
  .max(200, "must have at most 200 characters")
  .describe(
    'An attribute, or "text", "ownText", "html", "outerHtml". "@text" is the attribute of that name.',
  );
const pattern = tried(MAX_PATTERN_CHARACTERS, compileUrlPattern);
const patterns = z
  .union([pattern, z.array(pattern).min(1, "must not be empty").max(MAX_PATTERNS)], {
    error: "must be a pattern, or a list of them",
  })
  .describe(
    "What the absolute URL must be like: a glob with `*` (over path and query if it begins with `/`), a part of it, or a regular expression (`/…/`). Of a list, one is enough.",
  );
const expression = tried(MAX_EXPRESSION_CHARACTERS, (text) => new Expression(text)).describe(
  "A regular expression as RE2 knows them.",
);
const group = z
  .union([whole(0, 99), z.string().min(1).max(100)], { error: "must be a group's number or name" })
  .describe("The group of it that counts. Without it the first, or the whole match if it has none.");
const locale = tried(100, (text) => new DateStyle(text)).describe(
  "A language (`de`, `en-GB`): whose decimal sign, months and order of day and month are meant.",
);
const text = z.string().max(MAX_TEXT_CHARACTERS, `must have at most ${MAX_TEXT_CHARACTERS} characters`);
const jsonPath = z.string().min(1, "must not be empty").max(500).describe("`offers.0.price`");

/** Names that MongoDB would take for something else. `__proto__` is refused before any schema sees it. */
const fieldName = z
  .string()
  .regex(/^[^\0$.][^\0.]{0,199}$/, 'must have 1 to 200 characters, not begin with "$", and hold no "."');
const pageKind = z
  .string()
  .regex(/^[A-Za-z][\w-]{0,99}$/, "must be a name: a letter, then letters, digits, '_' and '-'");

/** What a page says of itself, and what is known of it. */
export const PAGE_FACTS = [
  "url",
  "status",
  "depth",
  "contentType",
  "title",
  "text",
  "description",
  "canonical",
  "language",
  "author",
  "published",
  "modified",
] as const;
export type PageFact = (typeof PAGE_FACTS)[number];
const fact = z.enum(PAGE_FACTS);

const VALUE_TYPES = ["string", "number", "integer", "boolean", "date", "url"] as const;
export type ValueType = (typeof VALUE_TYPES)[number];

const step = z
  .union(
    [
      z.enum(["trim", "collapse", "lower", "upper", "url"]),
      z
        .strictObject({
          replace: z.union([
            z.strictObject({ text: text.min(1, "must not be empty"), with: text }),
            z.strictObject({ regex: expression, with: text }),
          ]),
        })
        .describe("Replaces each occurrence of a text, or match (`$1` stands for its first group)."),
      z
        .strictObject({
          split: z.union([text.min(1, "must not be empty"), z.strictObject({ regex: expression })]),
        })
        .describe("Makes a list of it; empty parts are left out."),
      z.strictObject({ join: text }).describe("Makes one text of a list."),
      z.strictObject({ regex: expression, group: group.exactOptional() }),
      z.strictObject({ prefix: text }),
      z.strictObject({ suffix: text }),
      z.strictObject({ json: jsonPath }).describe("Reads it as JSON and takes what stands there."),
      z
        .strictObject({ map: z.record(z.string().max(MAX_TEXT_CHARACTERS), z.json()) })
        .describe("Puts what a text stands for in its place; other texts stay."),
    ],
    {
      error:
        "must be trim, collapse, lower, upper, url, or an object with one of replace, split, join, regex, prefix, suffix, json, map",
    },
  )
  .describe("One step of a transformation.");
export type TransformStep = z.output<typeof step>;

/** What a field takes, and what is made of it. */
export type FieldObject = {
  readonly css?: string;
  readonly attr?: string;
  readonly value?: unknown;
  readonly fact?: PageFact;
  readonly meta?: string;
  readonly param?: string;
  readonly jsonLd?: { readonly type?: string; readonly path: string };
  readonly all?: boolean;
  readonly exists?: true;
  readonly regex?: string;
  readonly group?: number | string;
  readonly transform?: readonly TransformStep[];
  readonly type?: ValueType;
  readonly locale?: string;
  readonly required?: boolean;
  readonly default?: unknown;
  readonly fields?: FieldsDeclaration;
};
/** A selector whose text is taken, `$url` and other facts, or more than that. */
export type FieldDeclaration = string | FieldObject;
export type FieldsDeclaration = Readonly<Record<string, FieldDeclaration>>;

/** The members by which a field says where its value comes from: one of them, or none for the element itself. */
const SOURCES = ["css", "value", "fact", "meta", "param", "jsonLd"] as const;

const fieldObject = z
  .strictObject({
    css: css.exactOptional(),
    attr: attr.exactOptional(),
    value: z.json().exactOptional().describe("A value that is the same on every page."),
    fact: fact.exactOptional().describe("Something about the page itself."),
    meta: fieldName.exactOptional().describe("What the rule that led here has found under this name."),
    param: z.string().min(1).max(200).exactOptional().describe("A parameter of the crawl."),
    jsonLd: z
      .strictObject({ type: z.string().min(1).max(200).exactOptional(), path: jsonPath })
      .exactOptional()
      .describe("What stands at a path in the page's first JSON-LD object, or the first of a type."),
    all: z.boolean().exactOptional().describe("All of them, as a list; without it the first."),
    exists: z.literal(true).exactOptional().describe("Whether the selector matches anything: true or false."),
    regex: expression.exactOptional(),
    group: group.exactOptional(),
    transform: z.array(step).max(MAX_STEPS, `must be at most ${MAX_STEPS} steps`).exactOptional(),
    type: z.enum(VALUE_TYPES).exactOptional(),
    locale: locale.exactOptional(),
    required: z.boolean().exactOptional().describe("Without it the item is invalid."),
    default: z.json().exactOptional().describe("The value when there is none, or none of its type."),
    fields: z
      .lazy((): z.ZodType<FieldsDeclaration, FieldsDeclaration> => fields)
      .exactOptional()
      .describe("Fields inside each of the elements."),
  })
  .superRefine((given, context) => {
    const fault = (member: string, message: string) => {
      context.addIssue({ code: "custom", path: [member], message });
    };
    const sources = SOURCES.filter((source) => given[source] !== undefined);
    if (sources.length > 1) fault(sources[1] ?? "", `cannot be given beside "${sources[0]}"`);
    const ofElements = sources.length === 0 || sources[0] === "css";
    if (!ofElements && given.attr !== undefined) fault("attr", `means nothing beside "${sources[0]}"`);
    if (!ofElements && given.fields !== undefined) fault("fields", `means nothing beside "${sources[0]}"`);
    const others = ["attr", "regex", "transform", "type", "exists"] as const;
    const beside =
      given.fields === undefined ? undefined : others.find((member) => given[member] !== undefined);
    if (beside !== undefined) fault(beside, 'means nothing beside "fields"');
    if (given.exists !== undefined && sources[0] !== "css") fault("exists", 'needs "css"');
    groupFault(given, fault);
  })
  .describe("What is taken of a page, and what is made of it.");

const field = z.union(
  [
    z
      .string()
      .max(MAX_SELECTOR_CHARACTERS)
      .superRefine((short, context) => {
        const parsed = short.startsWith("$") ? fact.safeParse(short.slice(1)) : css.safeParse(short);
        for (const issue of parsed.error?.issues ?? []) {
          const message = short.startsWith("$") ? `must be one of $${PAGE_FACTS.join(", $")}` : issue.message;
          context.addIssue({ code: "custom", message });
        }
      })
      .describe("A selector whose text is taken, or a fact about the page (`$url`)."),
    fieldObject,
  ],
  { error: "must be a selector, or an object with what is taken" },
);

const fields = z
  .record(fieldName, field)
  .refine((given) => Object.keys(given).length <= MAX_FIELDS, `must be at most ${MAX_FIELDS} fields`);

function groupFault(
  given: { readonly regex?: string; readonly group?: number | string },
  fault: (member: string, message: string) => void,
): void {
  if (given.group === undefined) return;
  if (given.regex === undefined) {
    fault("group", 'needs "regex"');
    return;
  }
  let parsed: Expression;
  try {
    parsed = new Expression(given.regex);
  } catch {
    return; // Told of the expression itself.
  }
  const has = typeof given.group === "number" ? given.group <= parsed.groups : parsed.hasGroup(given.group);
  if (!has) fault("group", "is not among the groups of the expression");
}

const follow = z
  .strictObject({
    css: css.exactOptional().describe("The elements with links. Without it, all links of the page."),
    attr: attr.exactOptional().describe("@default href"),
    pattern: patterns.exactOptional(),
    not: patterns.exactOptional().describe("What the URL must not be like."),
    page: pageKind.exactOptional().describe("The kind of the pages it leads to, one of `pages`."),
    meta: fields.exactOptional().describe("What is handed to those pages."),
    priority: priority.exactOptional(),
    render: renderRequest.exactOptional(),
  })
  .describe("Links that are followed.");

const next = z
  .strictObject({
    css,
    attr: attr.exactOptional(),
    pattern: patterns.exactOptional(),
    maxPages: whole(1, 1_000_000).exactOptional().describe("Pages of one list, the first one included."),
    priority: priority.exactOptional(),
    render: renderRequest.exactOptional(),
  })
  .describe("The link to the next page of a list: the first that fits, which is a page of the same kind.");

const item = z
  .strictObject({
    css: css.exactOptional().describe("The elements that are an item each. Without it the page is one."),
    url: patterns.exactOptional().describe("Only on pages with such a URL."),
    fields: fields.refine((given) => Object.keys(given).length > 0, "must have at least one field"),
  })
  .describe("Items that a page holds.");

const file = z
  .strictObject({
    css,
    attr: attr.exactOptional().describe("@default href, or else src"),
    pattern: patterns.exactOptional(),
    not: patterns.exactOptional(),
    meta: fields.exactOptional().describe("What the item of the file gets besides."),
  })
  .describe("Files that are stored.");

const itemSchema = z
  .record(z.string(), z.unknown())
  .superRefine((schema, context) => {
    try {
      jsonSchemaItem(schema);
    } catch (error) {
      context.addIssue({ code: "custom", message: messageOf(error).replace(/^itemSchema: /, "") });
    }
  })
  .describe("A JSON Schema for items; those that it refuses are invalid.");

function rules<Rule extends z.ZodType>(rule: Rule) {
  return z.array(rule).max(MAX_RULES, `must be at most ${MAX_RULES} rules`);
}

const pageRules = {
  follow: rules(follow).exactOptional(),
  next: next.exactOptional(),
  items: rules(item).exactOptional(),
  files: rules(file).exactOptional(),
} as const;

const pages = z
  .record(
    pageKind,
    z.strictObject({
      url: patterns.exactOptional().describe("Pages with such a URL are of this kind, whatever led there."),
      ...pageRules,
    }),
  )
  .refine((given) => Object.keys(given).length <= MAX_PAGE_KINDS, `must be at most ${MAX_PAGE_KINDS} kinds`)
  .describe("Rules for kinds of pages, in place of those at the top.");

/** A spider as a declaration. */
export const declarativeSpider = z
  .strictObject({
    $schema: z.string().max(2_048).exactOptional().describe("For editors."),
    name: spiderName,
    description: z.string().max(2_000).exactOptional(),
    start: urlList
      .superRefine((urls, context) => {
        for (const [at, url] of urls.entries()) {
          if (url === "" || canonicalUrl(url) !== undefined) continue;
          context.addIssue({ code: "custom", path: [at], message: "must be an absolute http(s) URL" });
        }
      })
      .exactOptional()
      .describe("Where a crawl begins that is given no seeds."),
    ...pageRules,
    pages: pages.exactOptional(),
    fileItems: z.boolean().exactOptional().describe("Whether each stored file is an item. @default false"),
    fileTypes: z
      .array(z.string().regex(/^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/, "must be a MIME type without parameters"))
      .max(100)
      .exactOptional()
      .describe("Types of the files that are kept. Without it all."),
    locale: locale.exactOptional(),
    tree: z.enum(["page", "browser"]).exactOptional().describe("Whose tree selectors are for. @default page"),
    itemSchema: itemSchema.exactOptional(),
    settings: spiderSettings.exactOptional().describe("What its crawls are like where they do not say so."),
  })
  .superRefine((given, context) => {
    const kinds = new Set(Object.keys(given.pages ?? {}));
    const check = (list: readonly { readonly page?: string }[] | undefined, path: readonly PropertyKey[]) => {
      for (const [at, { page }] of (list ?? []).entries()) {
        if (page === undefined || kinds.has(page)) continue;
        const message = `there is no "${page}" in "pages"`;
        context.addIssue({ code: "custom", path: [...path, "follow", at, "page"], message });
      }
    };
    check(given.follow, []);
    for (const [kind, section] of Object.entries(given.pages ?? {})) check(section.follow, ["pages", kind]);
  })
  .meta({ title: "A declarative spider of Warren" });

export type DeclarativeSpider = z.output<typeof declarativeSpider>;
export type FollowDeclaration = z.output<typeof follow>;
export type NextDeclaration = z.output<typeof next>;
export type ItemDeclaration = z.output<typeof item>;
export type FileDeclaration = z.output<typeof file>;
export type UrlPatterns = z.output<typeof patterns>;
/** What is done with one kind of page. */
export type PageRules = {
  readonly follow?: readonly FollowDeclaration[];
  readonly next?: NextDeclaration;
  readonly items?: readonly ItemDeclaration[];
  readonly files?: readonly FileDeclaration[];
};

/** The JSON Schema by which an editor can check a declaration. */
export function declarationSchema(): Record<string, unknown> {
  return z.toJSONSchema(declarativeSpider, { io: "input", unrepresentable: "any" });
}
