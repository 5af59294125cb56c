import { jsonSchemaItem } from "../../crawl/json-schema-item.js";
import { TimeSlices } from "../../crawl/pages/time-slices.js";
import type { Page, Spider, SpiderFile, SpiderOutput, SpiderSettings } from "../../crawl/spider.js";
import type { DeclarativeSpider, FieldsDeclaration, PageRules } from "./declaration.js";
import { checkedDeclaration } from "./declaration-reader.js";
import { CompiledRules, type RuleOutput, urlMatcher } from "./page-rules.js";
import { RuledPage } from "./ruled-page.js";
import type { UrlMatcher } from "./url-pattern.js";

/** Body bytes from which a page is looked at with rests. */
const BIG_PAGE_BYTES = 262_144;

export type CompileOptions = {
  /** The version of the declaration. @default "1" */
  readonly version?: string;
};

/**
 * The spider that a declaration says. All that can be wrong with it is found out here: selectors, patterns and
 * expressions are compiled, once.
 * @throws SpiderDeclarationError naming each member that is wrong
 */
export function compileSpider(declaration: unknown, options: CompileOptions = {}): Spider {
  return new CompiledSpider(checkedDeclaration(declaration), options);
}

type PageKind = {
  readonly name: string;
  readonly hasUrl: UrlMatcher | undefined;
  readonly rules: CompiledRules;
};

class CompiledSpider implements Spider {
  readonly name: string;
  readonly version: string;
  readonly seeds: readonly string[];
  readonly fileTypes?: readonly string[];
  readonly tree?: "page" | "browser";
  readonly settings?: SpiderSettings;
  readonly item?: NonNullable<Spider["item"]>;
  readonly callbacks: NonNullable<Spider["callbacks"]>;
  readonly file?: (file: SpiderFile) => Iterable<SpiderOutput>;
  readonly #rules: CompiledRules;
  readonly #kinds: readonly PageKind[];

  constructor(declaration: DeclarativeSpider, { version = "1" }: CompileOptions) {
    const { name, start = [], pages = {}, locale, fileTypes, settings, fileItems, tree } = declaration;
    this.name = name;
    this.version = version;
    this.seeds = start;
    if (fileTypes !== undefined) this.fileTypes = fileTypes;
    if (settings !== undefined) this.settings = settings;
    if (declaration.itemSchema !== undefined) this.item = jsonSchemaItem(declaration.itemSchema);
    if (fileItems === true) this.file = fileItem;
    if (tree !== undefined || [declaration, ...Object.values(pages)].some(hasSelectors))
      this.tree = tree ?? "page";
    this.#rules = new CompiledRules(declaration, { path: "", locale });
    this.#kinds = Object.entries(pages).map(([kind, section]) => ({
      name: kind,
      hasUrl: section.url === undefined ? undefined : urlMatcher(section.url),
      rules: new CompiledRules(section, { path: `pages.${kind}`, locale }, kind),
    }));
    this.callbacks = Object.fromEntries(
      this.#kinds.map(({ name: kind, rules }) => [kind, (page: Page) => outputs(rules, page)]),
    );
  }

  parse(page: Page): Iterable<SpiderOutput> | AsyncIterable<SpiderOutput> {
    const kind = this.#kinds.find(({ hasUrl }) => hasUrl?.(page.url) === true);
    return outputs(kind?.rules ?? this.#rules, page);
  }
}

function outputs(rules: CompiledRules, page: Page): Iterable<SpiderOutput> | AsyncIterable<SpiderOutput> {
  const found = rules.apply(new RuledPage(page));
  return page.body.length < BIG_PAGE_BYTES ? atOnce(found) : inSlices(found);
}

function* atOnce(found: Iterable<RuleOutput>): Generator<SpiderOutput> {
  for (const output of found) if (output !== undefined) yield output;
}

async function* inSlices(found: Iterable<RuleOutput>): AsyncGenerator<SpiderOutput> {
  const slices = new TimeSlices();
  for (const output of found) {
    if (output !== undefined) yield output;
    await slices.rest();
  }
}

function* fileItem(file: SpiderFile): Generator<SpiderOutput> {
  const { id, name, url, sha256, bytes, contentType, foundOn, meta } = file;
  yield { item: { ...meta, file: id, name, url, sha256, bytes, contentType, foundOn } };
}

/** Whether anything in these rules needs the page's tree. */
function hasSelectors({ follow = [], next, items = [], files = [] }: PageRules): boolean {
  return (
    next !== undefined ||
    files.length > 0 ||
    follow.some(({ css, meta }) => css !== undefined || needTree(meta)) ||
    items.some(({ css, fields }) => css !== undefined || needTree(fields))
  );
}

const ELSEWHERE = ["value", "fact", "meta", "param", "jsonLd"] as const;

function needTree(fields: FieldsDeclaration = {}): boolean {
  return Object.values(fields).some((field) =>
    typeof field === "string"
      ? !field.startsWith("$")
      : ELSEWHERE.every((source) => field[source] === undefined),
  );
}
