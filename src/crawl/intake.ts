import { contentHash, contentHashOf } from "./content-index.js";
import { type ContentRecogniser, isNew, type Known } from "./content-recogniser.js";
import { FetchError, SpiderError, SpiderUnavailableError } from "./errors.js";
import type { Fetched } from "./fetch/fetcher.js";
import { BodyRestartedError } from "./fetch/resumed-body.js";
import { type FileKeeper, fileTypeOf } from "./file-keeper.js";
import type { SkipReason } from "./frontier.js";
import type { AttemptJudge, Outcome } from "./outcome.js";
import type { PageRecord } from "./records.js";
import type { PageContent, PageRendering } from "./render/page-rendering.js";
import { validatorsOf } from "./revisit.js";
import { loggerOf, Showing, type ShowingInput, type ShowingParts } from "./showing.js";
import type { ListingForm } from "./sitemaps/listing.js";
import { ListingRun, listingFormOf } from "./sitemaps/listing-run.js";
import type { SpiderSession, SpiderSessions } from "./spider-sessions.js";

export type IntakeParts = ShowingParts & {
  readonly keeper: FileKeeper;
  readonly recogniser: ContentRecogniser;
  readonly sessions: Pick<SpiderSessions, "failed">;
};

/** What a task's run has to say of what came. */
export type IntakeInput = ShowingInput & {
  readonly judge: AttemptJudge;
  /** Set when the spider has hooks. */
  readonly session: SpiderSession | undefined;
  /** Set when the page is to be rendered. */
  readonly rendering: PageRendering | undefined;
  /** Where redirects have led. */
  readonly url: string;
  readonly asGet: boolean;
  /** Asks for more of it. */
  fetchAgain(headers: Readonly<Record<string, string>>): Promise<Fetched>;
  /** Whether a 304 is an answer to what was asked. */
  wasAskedIfModified(): boolean;
};

/** The page, once a browser had it, leads to another. */
export type Moved = { readonly state: "moved"; readonly to: string };

/** How often a file may come anew when its rest was asked for, within one attempt. */
const MAX_RESTARTS = 2;

/** What came for a task, taken in as what it is: a sitemap, a file or a page. */
export class Intake {
  readonly #parts: IntakeParts;
  readonly #run: IntakeInput;
  readonly #fetched: Fetched;
  readonly #restarts: number;
  /** When the last fetch for it ended, body included. */
  #endedAt: number;

  /** @param restarts how often it has come anew */
  constructor(parts: IntakeParts, run: IntakeInput, fetched: Fetched, restarts = 0) {
    this.#parts = parts;
    this.#run = run;
    this.#fetched = fetched;
    this.#restarts = restarts;
    this.#endedAt = parts.clock.now();
  }

  /** A response that is no redirect: judged by its status, then read as what it is. */
  async take(): Promise<Outcome | Moved> {
    const { task, judge } = this.#run;
    const { statusCode, body } = this.#fetched;
    const isNotModified = statusCode === 304 && this.#run.wasAskedIfModified();
    if (!isNotModified && (statusCode < 200 || statusCode > 299)) {
      body.discard();
      return judge.badStatus(this.#fetched, task);
    }
    if (isNotModified) {
      body.discard();
      return this.#done(0, { isNotModified });
    }
    try {
      return await this.#takeBody();
    } catch (error) {
      if (error instanceof BodyRestartedError && this.#restarts < MAX_RESTARTS) {
        return new Intake(this.#parts, this.#run, error.fetched, this.#restarts + 1).take();
      }
      return this.#failed(error);
    }
  }

  async #takeBody(): Promise<Outcome | Moved> {
    const { task, crawl, spider, admission } = this.#run;
    const { contentType } = this.#fetched;
    const form = crawl.links === undefined ? undefined : await listingFormOf(this.#fetched, task, crawl);
    if (form !== undefined) return this.#takeListing(form);
    if (task.request?.sitemap !== undefined) return this.#leave("type", "is no sitemap");
    const isWanted = admission.acceptsType(contentType);
    const type = isWanted ? await fileTypeOf(this.#fetched, task, spider) : undefined;
    if (type !== undefined) return this.#takeFile(type);
    if (isWanted && task.kind === "page") return this.#takePage();
    return this.#leave("type", `is ${contentType ?? "of no stated type"}`);
  }

  async #takeListing(form: ListingForm): Promise<Outcome> {
    const { task, crawl, admission, findings, limits } = this.#run;
    const { clock, logger } = this.#parts;
    const input = { task, crawl, admission, findings, limits, logger: loggerOf(task, logger) };
    const bytes = await new ListingRun(input, this.#run.url, form).read(this.#fetched.body);
    this.#endedAt = clock.now();
    findings.pages.push(this.#pageOf(bytes, {}));
    return { ...this.#facts, state: "done" };
  }

  async #takeFile(type: string): Promise<Outcome> {
    const { task, crawl, signal } = this.#run;
    const { gate, keeper, recogniser, files, clock } = this.#parts;
    if (gate.directivesOf(this.#fetched, crawl)?.noindex === true) {
      return this.#leave("robots", "its X-Robots-Tag says that it is not to be kept");
    }
    const content = await keeper.save(this.#fetched, this.#run.url, type, task, {
      signal,
      mayResume: this.#run.asGet || (task.request?.method ?? "GET") === "GET",
      askAgain: (headers) => this.#run.fetchAgain(headers),
    });
    this.#endedAt = clock.now();
    const { bytes, sha256, contentId, hold } = content;
    const known = await recogniser.recognise({ bytes, hash: () => contentHashOf(sha256) }, task, crawl);
    if (isNew(known)) await new Showing(this.#parts, this.#run).file(content, this.#run.url, type);
    else await files.discard(contentId, hold).catch(() => {});
    return this.#done(bytes, known);
  }

  async #takePage(): Promise<Outcome | Moved> {
    const { task, crawl, findings, limits, signal } = this.#run;
    const { recogniser, clock } = this.#parts;
    const body = await this.#fetched.body.read(limits.maxPageBytes);
    this.#endedAt = clock.now();
    let bytes = body.length;
    let content: PageContent = { ...this.#fetched, url: this.#run.url, body };
    if (this.#run.rendering !== undefined) {
      const page = await this.#run.rendering.apply(content, findings, signal);
      this.#endedAt = clock.now();
      bytes += page.bytes;
      if (page.kind === "left") return { state: "moved", to: page.to };
      content = page.content;
    }
    // What a browser made of it: the document of many a page is the same for all of a site.
    const { body: shown } = content;
    const known = await recogniser.recognise(
      { bytes, hash: () => contentHash(shown), page: shown },
      task,
      crawl,
    );
    const canonical = isNew(known)
      ? await new Showing(this.#parts, this.#run).page(content)
      : await this.#dropFiles();
    if (canonical === undefined) return this.#done(bytes, known);
    const error = `its canonical URL is ${canonical}`;
    return { ...this.#facts, state: "skipped", reason: "duplicate", error };
  }

  /** Puts a body on record that was read, or need not be. */
  #done(bytes: number, known: Known): Outcome {
    const { findings, crawl } = this.#run;
    findings.pages.push(this.#pageOf(bytes, known));
    const { duplicateOf, contentHash: hash } = known;
    if (duplicateOf !== undefined) {
      const error = `the same ${duplicateOf.isSame ? "body" : "text, nearly,"} as ${duplicateOf.url}`;
      return { ...this.#facts, state: "skipped", reason: "duplicate", error };
    }
    const isUnchanged = known.isUnchanged === true || known.isNotModified === true;
    if (crawl.recrawl !== undefined) {
      findings.visit = {
        url: this.#run.url,
        isUnchanged,
        ...(hash !== undefined && { contentHash: hash }),
        ...validatorsOf(this.#fetched.headers, this.#endedAt),
      };
    }
    return { ...this.#facts, state: "done", ...(isUnchanged && { isUnchanged }) };
  }

  /** A body that nobody wants is not read. */
  #leave(reason: SkipReason, error: string): Outcome {
    this.#fetched.body.discard();
    this.#endedAt = this.#parts.clock.now();
    return { ...this.#facts, state: "skipped", reason, error };
  }

  /** @throws what is nobody's fault, as it came */
  async #failed(error: unknown): Promise<Outcome> {
    const { judge, task, findings, admission, session, url } = this.#run;
    const { statusCode } = this.#fetched;
    if (error instanceof BodyRestartedError) {
      error.fetched.body.discard();
      return judge.fetchFailed(new FetchError("network", error.message), task, statusCode);
    }
    const isUnavailable = error instanceof SpiderUnavailableError;
    if (!isUnavailable && !(error instanceof SpiderError)) {
      return judge.fetchFailed(error, task, statusCode);
    }
    await this.#dropFiles();
    findings.items = [];
    findings.invalidItems = [];
    findings.links.clear();
    admission.forget();
    if (isUnavailable) return { ...judge.withoutSpider(error, task), statusCode, untouched: false };
    if (session !== undefined) await this.#parts.sessions.failed(session, error, url);
    return { ...this.#facts, state: "failed", reason: "spider-error", error: error.message };
  }

  /** The page is not kept after all, nor what was stored of it. */
  async #dropFiles(): Promise<undefined> {
    const { files } = this.#parts;
    for (const { contentId, hold } of this.#run.findings.files) await files.discard(contentId, hold);
    this.#run.findings.files = [];
  }

  get #facts() {
    return { endedAt: this.#endedAt, statusCode: this.#fetched.statusCode, counts: true };
  }

  #pageOf(bytes: number, known: Known): PageRecord {
    const { id, round, crawl, url, depth } = this.#run.task;
    const { statusCode, contentType } = this.#fetched;
    return {
      id: `${id}.${round}`,
      crawl,
      url,
      ...(this.#run.url !== url && { finalUrl: this.#run.url }),
      statusCode,
      ...(contentType !== undefined && { contentType }),
      bytes,
      ...(known.contentHash !== undefined && { contentHash: known.contentHash }),
      ...(known.isNotModified === true && { notModified: true }),
      ...(known.isUnchanged === true && { isUnchanged: true }),
      ...(known.duplicateOf !== undefined && { duplicateOf: known.duplicateOf.url }),
      depth,
      at: this.#endedAt,
      node: this.#parts.node,
    };
  }
}
