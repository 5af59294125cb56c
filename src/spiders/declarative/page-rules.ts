import type { SpiderOutput, SpiderRequest } from "../../crawl/spider.js";
import type {
  FileDeclaration,
  FollowDeclaration,
  ItemDeclaration,
  NextDeclaration,
  PageRules,
  UrlPatterns,
} from "./declaration.js";
import { Fields, type Found, type Place } from "./field.js";
import type { RuledPage } from "./ruled-page.js";
import { attributeOf, type Scope, Selector } from "./selector.js";
import { compileUrlPattern, type UrlMatcher } from "./url-pattern.js";

/** `undefined` says that this would be a good moment for a rest. */
export type RuleOutput = SpiderOutput | undefined;

type Rule = (on: RuledPage) => Generator<RuleOutput>;

/** What a request carries for the rules of the next page of a list: which page of it that is. */
const PAGE_NUMBER = "$page";
/** As JSON; a URL carries no more. */
const MAX_META_BYTES = 16_384;

/** What is done with pages of one kind, compiled. */
export class CompiledRules {
  readonly #rules: readonly Rule[];

  /** @param kind the callback that pages of this kind go to */
  constructor(rules: PageRules, place: Place, kind?: string) {
    const at = (member: string): Place => ({
      ...place,
      path: place.path === "" ? member : `${place.path}.${member}`,
    });
    this.#rules = [
      ...(rules.items ?? []).map((rule, index) => itemRule(rule, at(`items.${index}`))),
      ...(rules.next === undefined ? [] : [nextRule(rules.next, at("next"), kind)]),
      ...(rules.follow ?? []).map((rule, index) => followRule(rule, at(`follow.${index}`))),
      ...(rules.files ?? []).map((rule, index) => fileRule(rule, at(`files.${index}`))),
    ];
  }

  *apply(on: RuledPage): Generator<RuleOutput> {
    for (const rule of this.#rules) {
      yield* rule(on);
      yield undefined;
    }
  }
}

/** Whether a URL is like one of the patterns; every URL if there is none. */
export function urlMatcher(patterns: UrlPatterns | undefined): UrlMatcher {
  if (patterns === undefined) return () => true;
  if (typeof patterns === "string") return compileUrlPattern(patterns);
  const matchers = patterns.map(compileUrlPattern);
  return (url) => matchers.some((matches) => matches(url));
}

function itemRule(rule: ItemDeclaration, place: Place): Rule {
  const fields = new Fields(rule.fields, { ...place, path: `${place.path}.fields` });
  const selector = rule.css === undefined ? undefined : new Selector(rule.css);
  const isWanted = urlMatcher(rule.url);
  return function* items(on) {
    if (!isWanted(on.page.url)) return;
    on.budget.member = `${place.path}.css`;
    const scopes: Iterable<Scope> =
      selector === undefined ? [on.root] : selector.matches(on.root, on.index, on.budget);
    for (const scope of scopes) {
      const found = fields.read(scope, on);
      yield itemOf(found, fields, scope !== on.root);
      on.budget.member = `${place.path}.css`;
    }
  };
}

/**
 * Nothing where only is found what is known of every page: a page that has none of the fields holds no item. An element
 * that was selected and lacks what it must have is an invalid one.
 */
function itemOf({ data, faults, isOfPage }: Found, { isConstant }: Fields, isSelected: boolean): RuleOutput {
  const isItem = isOfPage || isConstant || (isSelected && faults.length > 0);
  if (!isItem) return undefined;
  return faults.length === 0 ? { item: data } : { invalidItem: { data, reasons: faults } };
}

function followRule(rule: FollowDeclaration, place: Place): Rule {
  const links = rule.css === undefined ? undefined : linksOf(rule.css, [rule.attr ?? "href"]);
  const isWanted = wantedUrl(rule);
  const meta = metaOf(rule.meta, place);
  const { page, priority, render } = rule;
  const facts = {
    ...(page !== undefined && { callback: page }),
    ...(priority !== undefined && { priority }),
    ...(render !== undefined && { render }),
  };
  const isPlain = Object.keys(facts).length === 0 && meta === undefined;
  return function* follow(on) {
    on.budget.member = place.path;
    for (const url of unrepeated(links === undefined ? on.page.links() : links(on))) {
      if (!isWanted(url)) continue;
      const request: SpiderRequest = isPlain
        ? url
        : { url, ...facts, ...(meta !== undefined && { meta: meta(on) }) };
      yield { request };
    }
  };
}

function nextRule(rule: NextDeclaration, place: Place, kind: string | undefined): Rule {
  const links = linksOf(rule.css, [rule.attr ?? "href"]);
  const isWanted = urlMatcher(rule.pattern);
  const { maxPages, priority, render } = rule;
  return function* next(on) {
    const { meta, url: own } = on.page;
    const number = typeof meta[PAGE_NUMBER] === "number" ? meta[PAGE_NUMBER] : 1;
    if (maxPages !== undefined && number >= maxPages) return;
    on.budget.member = place.path;
    for (const url of links(on)) {
      if (url === own || !isWanted(url)) continue;
      yield {
        request: {
          url,
          // What led to the list goes for all of it.
          meta: { ...meta, [PAGE_NUMBER]: number + 1 },
          ...(kind !== undefined && { callback: kind }),
          ...(priority !== undefined && { priority }),
          ...(render !== undefined && { render }),
        },
      };
      return;
    }
  };
}

function fileRule(rule: FileDeclaration, place: Place): Rule {
  const links = linksOf(rule.css, rule.attr === undefined ? ["href", "src"] : [rule.attr]);
  const isWanted = wantedUrl(rule);
  const meta = metaOf(rule.meta, place);
  return function* files(on) {
    on.budget.member = place.path;
    for (const url of unrepeated(links(on))) {
      if (!isWanted(url)) continue;
      yield { file: meta === undefined ? url : { url, meta: meta(on) } };
    }
  };
}

/** The URLs of the elements that match, by the first of the attributes that they have. */
function linksOf(css: string, attributes: readonly string[]): (on: RuledPage) => Generator<string> {
  const selector = new Selector(css);
  const names = attributes.map((name) => name.toLowerCase());
  return function* links(on) {
    for (const element of selector.matches(on.root, on.index, on.budget)) {
      for (const name of names) {
        const value = attributeOf(element, name);
        if (value === undefined) continue;
        const url = on.absolute(value);
        if (url !== undefined) yield url;
        break;
      }
    }
  };
}

function* unrepeated(urls: Iterable<string>): Generator<string> {
  const seen = new Set<string>();
  for (const url of urls) {
    if (seen.has(url)) continue;
    seen.add(url);
    yield url;
  }
}

function wantedUrl(rule: { readonly pattern?: UrlPatterns; readonly not?: UrlPatterns }): UrlMatcher {
  const isWanted = urlMatcher(rule.pattern);
  if (rule.not === undefined) return isWanted;
  const isUnwanted = urlMatcher(rule.not);
  return (url) => isWanted(url) && !isUnwanted(url);
}

/** What is handed to the pages of a rule's links; worked out once a page. */
function metaOf(
  declared: FollowDeclaration["meta"],
  place: Place,
): ((on: RuledPage) => Record<string, unknown>) | undefined {
  if (declared === undefined) return undefined;
  const path = `${place.path}.meta`;
  const fields = new Fields(declared, { ...place, path });
  const known = new WeakMap<RuledPage, Record<string, unknown>>();
  return (on) => {
    let meta = known.get(on);
    if (meta === undefined) {
      meta = fields.read(on.root, on).data;
      const bytes = Buffer.byteLength(JSON.stringify(meta));
      if (bytes > MAX_META_BYTES) {
        throw new Error(`${path}: ${bytes} bytes of JSON, of ${MAX_META_BYTES} at most`);
      }
      known.set(on, meta);
    }
    return meta;
  };
}
