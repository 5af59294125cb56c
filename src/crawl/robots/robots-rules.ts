/** One `Allow` or `Disallow` line, as it is written. */
export type RobotsRule = { readonly pattern: string; readonly allows: boolean };

/** What a robots.txt says to one crawler. */
export type RobotsRules = {
  /** @param target path and query of a URL, as it would be sent */
  allows(target: string): boolean;
  /** The line that forbids a target, in its normal spelling, for people; undefined when none does. */
  lineAgainst(target: string): string | undefined;
  /** From the end of one fetch to the start of the next, in milliseconds; 0 when it says nothing. */
  readonly crawlDelayMs: number;
  /** What holding them costs, in characters, about. */
  readonly size: number;
};

/** All rules of one length, which is how far their patterns weigh (RFC 9309, 2.2.2). */
type Rank = {
  readonly length: number;
  /** Without a wildcard: what a target must begin with. */
  readonly prefixes: Map<string, boolean>;
  /** Ending in `$`, without another wildcard: what a target must be. */
  readonly wholes: Map<string, boolean>;
  /** With wildcards, by their text. */
  readonly globs: Map<string, { readonly matches: (target: string) => boolean; readonly allows: boolean }>;
};

/** From so many on, prefixes of one length are looked up and not tried one by one. */
const LOOKED_UP = 8;
/**
 * Characters looked at to decide about one target at most, about 10 ms. Only patterns and a URL that were made to be
 * expensive come near it.
 */
const MAX_WORK = 8_000_000;
/** What a rule costs beside its text, in characters. */
const RULE_SIZE = 100;
/** And each piece of one with wildcards. */
const PIECE_SIZE = 30;

export function allowingAll(crawlDelayMs = 0): RobotsRules {
  return { allows: () => true, lineAgainst: () => undefined, crawlDelayMs, size: 0 };
}

/**
 * Makes rules ready to be asked. Of those that match, the longest counts, and of equally long ones `Allow`
 * (RFC 9309, 2.2.2); `/robots.txt` itself may always be read.
 *
 * No rules can make it slow: what has no wildcard is looked up, what has is matched without ever trying anything
 * twice, and a target for which even that would take too long counts as forbidden.
 */
export function compileRules(rules: readonly RobotsRule[], crawlDelayMs: number): RobotsRules {
  if (rules.every(({ allows }) => allows)) return allowingAll(crawlDelayMs);
  const ranks = new Map<number, Rank>();
  let size = 0;
  let globs = 0;
  const add = (text: string, length: number, allows: boolean) => {
    const rank = rankOf(ranks, length);
    const isWhole = text.endsWith("$");
    size += text.length + RULE_SIZE;
    if (text.includes("*")) {
      const known = rank.globs.get(text);
      const parts = (isWhole ? text.slice(0, -1) : text).split("*");
      const matches = known?.matches ?? globMatcher(parts, isWhole);
      rank.globs.set(text, { matches, allows: allows || known?.allows === true });
      if (known === undefined) globs += 1;
      size += parts.length * PIECE_SIZE;
    } else {
      const literals = isWhole ? rank.wholes : rank.prefixes;
      const literal = isWhole ? text.slice(0, -1) : text;
      literals.set(literal, allows || literals.get(literal) === true);
    }
  };
  for (const { pattern, allows } of rules) {
    const [text = "", ...others] = spellingsOf(pattern);
    add(text, text.length, allows);
    for (const other of others) add(other, text.length, allows);
  }
  const ordered = [...ranks.values()].sort((a, b) => b.length - a.length);
  return {
    crawlDelayMs,
    size,
    allows(target) {
      const normal = normalizedTarget(target);
      if (normal === "/robots.txt") return true;
      if (globs * normal.length > MAX_WORK) return false;
      for (const rank of ordered) {
        const verdict = verdictOf(rank, normal);
        if (verdict !== undefined) return verdict;
      }
      return true;
    },
    lineAgainst(target) {
      const normal = normalizedTarget(target);
      if (this.allows(target)) return undefined;
      const rank = ordered.find((each) => verdictOf(each, normal) === false);
      return `Disallow: ${rank === undefined ? "(too many rules for so long a URL)" : patternIn(rank, normal)}`;
    },
  };
}

function rankOf(ranks: Map<number, Rank>, length: number): Rank {
  let rank = ranks.get(length);
  if (rank === undefined) {
    rank = { length, prefixes: new Map(), wholes: new Map(), globs: new Map() };
    ranks.set(length, rank);
  }
  return rank;
}

/** What the rules of one length say; undefined when none of them matches. */
function verdictOf({ length, prefixes, wholes, globs }: Rank, target: string): boolean | undefined {
  let verdict: boolean | undefined;
  if (prefixes.size >= LOOKED_UP) {
    if (length <= target.length) verdict = prefixes.get(target.slice(0, length));
  } else {
    for (const [prefix, allows] of prefixes) {
      if (target.startsWith(prefix)) verdict = allows;
    }
  }
  if (verdict === true) return true;
  const whole = wholes.size === 0 ? undefined : wholes.get(target);
  if (whole === true) return true;
  verdict ??= whole;
  for (const { matches, allows } of globs.values()) {
    if (verdict === allows || !matches(target)) continue;
    if (allows) return true;
    verdict = false;
  }
  return verdict;
}

/** The pattern of one length that forbids a target, which one of them does. */
function patternIn({ length, prefixes, wholes, globs }: Rank, target: string): string {
  const prefix = target.slice(0, length);
  if (prefix.length === length && prefixes.has(prefix)) return prefix;
  if (wholes.has(target)) return `${target}$`;
  return [...globs].find(([, { matches }]) => matches(target))?.[0] ?? "";
}

/**
 * A matcher for the text between wildcards, `*` being any run; without an end anything may follow. Pieces are sought
 * from left to right, each at its first place, which finds a match if there is one.
 */
function globMatcher(parts: readonly string[], isWhole: boolean): (target: string) => boolean {
  const [first = "", ...others] = parts;
  const last = isWhole ? (others.pop() ?? "") : "";
  const rest = others.filter((piece) => piece !== "");
  return (target) => {
    if (!target.startsWith(first)) return false;
    let from = first.length;
    for (const piece of rest) {
      const found = target.indexOf(piece, from);
      if (found < 0) return false;
      from = found + piece.length;
    }
    return target.length - last.length >= from && target.endsWith(last);
  };
}

/**
 * A pattern in the spellings in which it is compared: most often one, and two where nobody can tell whether what comes
 * after its wildcard is path or query. `*` and a last `$` keep their meaning; a `$` elsewhere is itself, and itself is
 * written `%24`, as in a target (RFC 9309, 2.2.3).
 */
function spellingsOf(pattern: string): readonly string[] {
  const end = pattern.endsWith("$") ? "$" : "";
  const rest = end === "" ? pattern : pattern.slice(0, -1);
  const star = rest.indexOf("*");
  const text = rest.split("*");
  const asPath = normalizedPieces(text, text.length) + end;
  if (star < 0) return [asPath];
  const asQuery = normalizedPieces(text, 1) + end;
  return asPath === asQuery ? [asPath] : [asPath, asQuery];
}

/** Pieces between wildcards; from one of them on, or after the first `?`, they are of a query. */
function normalizedPieces(pieces: readonly string[], queryFrom: number): string {
  let isQuery = false;
  const normal = pieces.map((piece, index) => {
    isQuery ||= index >= queryFrom;
    const mark = isQuery ? 0 : piece.indexOf("?");
    const path = isQuery ? "" : piece.slice(0, mark < 0 ? undefined : mark);
    const query = mark < 0 ? "" : piece.slice(mark);
    isQuery ||= mark >= 0;
    return normalized(path, PATH_SAME) + normalized(query, QUERY_SAME);
  });
  // A copy of its own, so that a rule does not keep the whole file in memory.
  return Buffer.from(normal.join("*")).toString();
}

const PLAIN_TARGET = /^[A-Za-z0-9\-._~/?&=+,;:@!()]*$/;

function normalizedTarget(target: string): string {
  return PLAIN_TARGET.test(target) ? target : normalizedPieces([target], 1);
}

/**
 * Characters that are the same whether encoded or not. The unreserved ones are by RFC 3986, 2.3. Of the reserved ones
 * RFC 9309, 2.2.2, would have them encoded before they are compared, as in `?baz=https%3A%2F%2Ffoo.bar`; but a slash
 * in a path, and what parts a query's parameters, are not the same when they are encoded.
 */
const PATH_SAME = /[A-Za-z0-9\-._~:@!'(),;=&+[\]]/;
const QUERY_SAME = /[A-Za-z0-9\-._~:@!'(),/?[\]]/;

/**
 * The one spelling of all equivalent ones: encoded where it must be or would mean something in a pattern, decoded where
 * encoding makes no difference, hexadecimal digits in upper case.
 */
function normalized(text: string, same: RegExp): string {
  return text
    .replace(/[^A-Za-z0-9\-._~/?&=+,;:@!()%[\]#']+/g, encoded)
    .replace(/%[0-9A-Fa-f]{2}/g, (triplet) => {
      const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
      return same.test(character) ? character : triplet.toUpperCase();
    });
}

function encoded(characters: string): string {
  return Buffer.from(characters, "utf8").toString("hex").toUpperCase().replace(/../g, "%$&");
}
