import { compileScope } from "../crawl/urls/scope.js";
import { type CanonicalUrl, canonicalUrl } from "../crawl/urls/url.js";
import { UrlIdentity } from "../crawl/urls/url-identity.js";
import type { CrawlRecord, Pages, UrlList, UrlRecord } from "../store/index.js";
import type { WaitReasons } from "./wait-reasons.js";

/** How a URL came into its crawl. */
export type Finding = "seed" | "added" | "link" | "file" | "redirect";

/** A step of the way from a seed to a URL. */
export type ChainLink = {
  readonly url: string;
  readonly depth: number;
  readonly how: Finding;
  /** When the crawl first heard of it: an ISO instant. */
  readonly foundAt?: string;
};

/** Something that was decided about a URL, or done with it. */
export type UrlStep = {
  /** An ISO instant; absent of what holds at any time. */
  readonly at?: string;
  readonly what: "found" | "scope" | "depth" | "attempt" | "fetched" | "dispatched" | "waits" | "ended";
  /** For people. */
  readonly text: string;
  readonly node?: string;
  readonly statusCode?: number;
  /** It was, or is, to wait until then: an ISO instant. */
  readonly until?: string;
};

export type UrlExplanation = {
  /** As the crawl knows it; as it was asked for if it does not. */
  readonly url: string;
  /** What it is compared by: two URLs of a crawl with the same key are the same. */
  readonly key: string;
  readonly state: UrlRecord["state"] | "unknown";
  readonly reason?: string;
  readonly error?: string;
  readonly waitReason?: string;
  /** From a seed to this URL; cut at its beginning when it is very long. */
  readonly chain: readonly ChainLink[];
  /** In the order of their times. */
  readonly steps: readonly UrlStep[];
};

export type UrlExplainerParts = {
  readonly urls: Pick<UrlList, "get">;
  readonly pages: Pick<Pages, "get">;
  readonly waitReasons: WaitReasons;
};

/** Steps back to the seed that are looked up at most: each is a read from the database. */
const MAX_CHAIN = 200;

/**
 * Tells why a URL of a crawl is as it is: where it was found, what was decided at every step, and what it waits
 * for. What does not change is worked out when it is asked for, so that crawls need not store it.
 */
export class UrlExplainer {
  readonly #parts: UrlExplainerParts;

  constructor(parts: UrlExplainerParts) {
    this.#parts = parts;
  }

  async explain(crawl: CrawlRecord, url: CanonicalUrl): Promise<UrlExplanation> {
    const identity = new UrlIdentity(crawl);
    const key = identity.keyOf(url);
    const record = await this.#parts.urls.get(identity.idOf(url));
    if (record === undefined) {
      return { url: url.url, key, state: "unknown", chain: [], steps: decisionsOn(crawl, url) };
    }
    const { state, reason, error } = record;
    const waitReason = (await this.#parts.waitReasons.of(crawl, [record])).get(record.id);
    const past = await this.#pastOf(crawl, record);
    return {
      url: record.url,
      key,
      state,
      ...(reason !== undefined && { reason }),
      ...(error !== undefined && { error }),
      ...(waitReason !== undefined && { waitReason }),
      chain: await this.#chainTo(crawl, identity, record),
      steps: [...past, ...(waitReason === undefined ? [] : [waiting(record, waitReason)])],
    };
  }

  async #chainTo(crawl: CrawlRecord, identity: UrlIdentity, last: UrlRecord): Promise<readonly ChainLink[]> {
    const chain: ChainLink[] = [linkOf(crawl, last)];
    const seen = new Set([last.id]);
    let record: UrlRecord | undefined = last;
    while (record !== undefined && chain.length < MAX_CHAIN) {
      const before = idBefore(record, identity);
      if (before === undefined || seen.has(before)) break;
      seen.add(before);
      record = await this.#parts.urls.get(before);
      if (record !== undefined) chain.unshift(linkOf(crawl, record));
    }
    return chain;
  }

  async #pastOf(crawl: CrawlRecord, record: UrlRecord): Promise<readonly UrlStep[]> {
    const url = canonicalUrl(record.url);
    const steps: UrlStep[] = [
      found(crawl, record),
      ...(url === undefined ? [] : decisionsOn(crawl, url, record)),
    ];
    for (const { at, what, statusCode, node, until } of record.past) {
      steps.push({
        at: instant(at),
        what: "attempt",
        text: what,
        ...(node !== undefined && { node }),
        ...(statusCode !== undefined && { statusCode }),
        ...(until !== undefined && { until: instant(until) }),
      });
    }
    if (record.dispatchedAt !== undefined) {
      steps.push({ at: instant(record.dispatchedAt), what: "dispatched", text: "handed to a worker" });
    }
    const end = await this.#endOf(record);
    return end === undefined ? steps : [...steps, end];
  }

  async #endOf(record: UrlRecord): Promise<UrlStep | undefined> {
    const { id, state, reason, error, statusCode, node, at, round } = record;
    if (state === "queued" || state === "active") return undefined;
    const page = state === "done" ? await this.#parts.pages.get(`${id}.${round}`) : undefined;
    if (page !== undefined) {
      const where = page.finalUrl === undefined ? "" : ` from ${page.finalUrl}`;
      const isSame = page.notModified === true || page.isUnchanged === true;
      const how = isSame ? ", unchanged since the round before" : "";
      return {
        at: instant(page.at),
        what: "fetched",
        text: `${page.bytes} bytes${where}${how}, ${record.items} items, ${record.files} files`,
        node: page.node,
        statusCode: page.statusCode,
      };
    }
    const by = record.claimedBy === undefined ? "" : " (a redirect leads here, and is fetched in its place)";
    return {
      at: instant(at),
      what: "ended",
      text: `${[state, reason, error].filter((part) => part !== undefined).join(": ")}${by}`,
      ...(node !== undefined && { node }),
      ...(statusCode !== undefined && { statusCode }),
    };
  }
}

/** The URL through which this one was found: the one whose redirect led to it, or the page it was found on. */
function idBefore({ claimedBy, parent }: UrlRecord, identity: UrlIdentity): string | undefined {
  if (claimedBy !== undefined) return claimedBy;
  const page = parent === undefined ? undefined : canonicalUrl(parent);
  return page === undefined ? undefined : identity.idOf(page);
}

function linkOf(crawl: CrawlRecord, record: UrlRecord): ChainLink {
  const { url, depth, foundAt } = record;
  return {
    url,
    depth,
    how: findingOf(crawl, record),
    ...(foundAt !== undefined && { foundAt: instant(foundAt) }),
  };
}

function findingOf(crawl: CrawlRecord, { claimedBy, parent, kind, url }: UrlRecord): Finding {
  if (claimedBy !== undefined) return "redirect";
  if (parent !== undefined) return kind === "file" ? "file" : "link";
  return crawl.seeds.some((seed) => canonicalUrl(seed)?.url === url) ? "seed" : "added";
}

function found(crawl: CrawlRecord, record: UrlRecord): UrlStep {
  const { foundAt, parent } = record;
  const texts: Readonly<Record<Finding, string>> = {
    seed: "a seed of the crawl",
    added: "added from outside",
    link: `a link on ${parent}`,
    file: `a file that ${parent} leads to`,
    redirect: `a redirect of ${parent} leads here`,
  };
  return {
    ...(foundAt !== undefined && { at: instant(foundAt) }),
    what: "found",
    text: texts[findingOf(crawl, record)],
  };
}

/** What the crawl's rules say of a URL, whenever they are asked. */
function decisionsOn(crawl: CrawlRecord, url: CanonicalUrl, record?: UrlRecord): readonly UrlStep[] {
  const objection = compileScope(crawl.scope, crawl.seeds).objection(url);
  const steps: UrlStep[] = [
    { what: "scope", text: objection === undefined ? "in scope" : `out of scope: ${objection}` },
  ];
  const { maxDepth } = crawl.limits;
  if (record !== undefined && maxDepth !== undefined && record.kind === "page") {
    const verdict = record.depth > maxDepth ? "beyond" : "within";
    steps.push({ what: "depth", text: `depth ${record.depth} is ${verdict} maxDepth ${maxDepth}` });
  }
  return steps;
}

function waiting({ readyAt, nextVisitAt }: UrlRecord, waitReason: string): UrlStep {
  const until = readyAt ?? nextVisitAt;
  return { what: "waits", text: waitReason, ...(until !== undefined && { until: instant(until) }) };
}

function instant(at: number): string {
  return new Date(at).toISOString();
}
