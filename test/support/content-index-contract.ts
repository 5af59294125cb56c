import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Content, ContentIndex } from "../../src/crawl/content-index.js";

export type ContentIndexUnderTest = {
  /** Two views of the same bodies: of two processes, if they can be shared. */
  readonly indexes: readonly [ContentIndex, ContentIndex];
  readonly dispose: () => Promise<void>;
};

/** What every index of bodies promises. */
export function contentIndexContract(name: string, setup: () => Promise<ContentIndexUnderTest>): void {
  describe(`${name} keeps the contract of content indexes`, () => {
    let under: ContentIndexUnderTest;
    beforeAll(async () => {
      under = await setup();
    });
    afterAll(() => under?.dispose());

    function bundle() {
      const [one, other] = under.indexes;
      const crawl = `c${randomUUID().slice(0, 8)}`;
      const content = (path: string, contentHash: string, about: Partial<Content> = {}): Content => ({
        crawl,
        urlId: `${crawl}:${path}`,
        url: `http://a.test/${path}`,
        contentHash,
        ...about,
      });
      return { one, other, crawl, content };
    }

    it("gives a body to one URL, for good, and says to the others whose it is", async () => {
      const { one, other, content } = bundle();

      expect(await one.claim(content("a", "h"))).toBeUndefined();
      expect(await other.claim(content("b", "h"))).toEqual({ url: "http://a.test/a", isSame: true });
      expect(await other.claim(content("a", "h"))).toBeUndefined();
      expect(await one.claim(content("b", "another"))).toBeUndefined();
    });

    it("gives it to exactly one of many that claim it at once", async () => {
      const { one, other, content } = bundle();
      const paths = Array.from({ length: 60 }, (_, index) => `p${index}`);

      const answers = await Promise.all(
        paths.map((path, index) => (index % 2 === 0 ? one : other).claim(content(path, "h"))),
      );

      const owners = paths.filter((_, index) => answers[index] === undefined);
      expect(owners).toHaveLength(1);
      const named = new Set(answers.flatMap((answer) => answer?.url ?? []));
      expect([...named]).toEqual([`http://a.test/${owners[0]}`]);
    });

    it("keeps crawls apart", async () => {
      const [first, second] = [bundle(), bundle()];
      await first.one.claim(first.content("a", "h", { simhash: "00000000000000ff" }));

      const about = { simhash: "00000000000000ff" };
      expect(await second.one.claim(second.content("b", "h", about))).toBeUndefined();
    });

    it("gives a body to another URL when its first has it no more", async () => {
      const { one, content } = bundle();
      await one.claim(content("a", "old"));
      expect(await one.claim(content("b", "old"))).toBeDefined();

      await one.claim(content("a", "new", { formerHash: "old" }));

      expect(await one.claim(content("b", "old"))).toBeUndefined();
      // Whose it was not cannot let go of it.
      await one.claim(content("c", "third", { formerHash: "old" }));
      expect(await one.claim(content("d", "old"))).toMatchObject({ url: "http://a.test/b" });
    });

    it("finds a body that differs in three bits at most from that of another URL", async () => {
      const { one, other, content } = bundle();
      const claim = (path: string, simhash: string, index = one) =>
        index.claim(content(path, `hash of ${path}`, { simhash }));
      expect(await claim("a", "0000000000000000")).toBeUndefined();

      const like = { url: "http://a.test/a", isSame: false };
      expect(await claim("b", "8000000100000001", other)).toEqual(like);
      expect(await claim("c", "0000000000000007")).toEqual(like);
      expect(await claim("d", "000000000000000f", other)).toBeUndefined();
      expect(await claim("a", "0000000000000000")).toBeUndefined();
      expect(await claim("d", "000000000000000f")).toBeUndefined();
    });

    it("takes no duplicate for an original, and forgets what a URL's text was", async () => {
      const { one, content } = bundle();
      const claim = (path: string, simhash: string) =>
        one.claim(content(path, `${path} ${simhash}`, { simhash }));
      await claim("a", "0000000000000000");
      expect(await claim("b", "0000000000000007")).toBeDefined();
      // Near to the duplicate, but not to the original.
      expect(await claim("c", "000000000000003f")).toBeUndefined();
      await claim("a", "ffffffffffffffff");

      expect(await claim("d", "8000000000000000")).toBeUndefined();
      expect(await claim("e", "fffffffffffffff0")).toBeUndefined();
      expect(await claim("f", "fffffffffffffff8")).toMatchObject({ isSame: false });
    });
  });
}
