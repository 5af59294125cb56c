import { describe, expect, it } from "vitest";
import { bandsOf, distanceOf, simhashOf } from "../../../src/crawl/pages/simhash.js";
import { SeededRandom } from "../../support/seeded-random.js";

const TEXT = `The harbour of the old town lies below the castle, where two rivers meet before they reach the sea. In
the Middle Ages merchants from the north brought herring, furs and amber, and took salt and cloth home with them. The
quays were of wood until the great fire of 1652, after which the council had them built of granite from the hills. A
century later the river had filled with sand so far that large ships had to wait outside, and lighters carried what
they brought. Only when the canal was dug could steamers come up to the town again; by then the railway had taken most
of the trade. Today the granite quays serve fishermen, sailors and those who like to walk there in the evening. The
customs house is a museum, and its cellar, which the tide once flooded every spring, a restaurant that is full on most
days from May to October. Each summer the town remembers the fire with lanterns on the water, and the herring with a
market that lasts for three days and on which there is now more cheese than fish.`;

const OTHER = `A sourdough begins with flour and water, and with patience. The yeasts and bacteria that raise it are on the
grain already; they need warmth and a few days to be many. Feed the starter each evening with as much flour as there is
starter, and throw half of it away, or bake pancakes of that half. When it doubles within six hours it is ready. Mix a
fifth of it with strong flour, salt and water, fold the dough four times in two hours, and let it rest in the cold over
night. The oven must be as hot as it can be, with a pot in it that is as hot as the oven. Score the loaf, put it into
the pot, close the lid, and do not look for twenty minutes. Then take the lid away and bake until the crust is the
colour of chestnuts. Let it cool for an hour at least before you cut it, however hard that is with the smell of it.`;

const page = (text: string, frame = "") =>
  `<!doctype html><html><head><title>Town</title><style>p { color: red }</style><script>var a = "${frame}";</script></head>
  <body class="${frame}"><!-- ${frame} --><p>${text}</p></body></html>`;
const hashOf = (html: string) => simhashOf(html) ?? "";

describe("simhash", () => {
  it("is 64 bits, the same for the same text", () => {
    expect(hashOf(page(TEXT))).toMatch(/^[0-9a-f]{16}$/);
    expect(hashOf(page(TEXT))).toBe(hashOf(page(TEXT)));
  });

  it("is of what readers see: not of tags, attributes, comments, scripts, styles, case and spaces", () => {
    const dressed = page(TEXT.toUpperCase().replaceAll(" ", "\n\t "), "x".repeat(50)).replaceAll(
      "<p>",
      "<p id=7>",
    );
    expect(hashOf(dressed)).toBe(hashOf(page(TEXT)));
  });

  it("is near that of a text with a few words changed, and far from that of another", () => {
    const date = hashOf(page(`${TEXT} Last changed on 5 May.`));
    expect(distanceOf(date, hashOf(page(`${TEXT} Last changed on 6 May.`)))).toBeLessThanOrEqual(3);
    expect(distanceOf(hashOf(page(TEXT)), hashOf(page(OTHER)))).toBeGreaterThan(15);
  });

  it("tells the order of words", () => {
    const words = TEXT.split(/\s+/);
    const shuffled = [...words].reverse().join(" ");
    expect(distanceOf(hashOf(TEXT), hashOf(shuffled))).toBeGreaterThan(10);
  });

  it("is not given to texts of few words, which all look alike", () => {
    expect(simhashOf("")).toBeUndefined();
    expect(simhashOf(page("Page not found"))).toBeUndefined();
    expect(simhashOf("<script>".repeat(10) + TEXT)).toBeUndefined();
  });

  it("is of texts without spaces, too", () => {
    const text =
      "港口位于城堡下方两条河流在此汇合然后流入大海中世纪北方商人带来鲱鱼毛皮和琥珀带走盐和布料码头原为木制直到大火之后议会用花岗岩重建";
    const one = hashOf(text);
    expect(one).toMatch(/^[0-9a-f]{16}$/);
    expect(distanceOf(one, hashOf([...text].reverse().join("")))).toBeGreaterThan(8);
  });

  it("is done in time with the largest page, whatever is wrong with it", () => {
    // Time that grew with the square of these would be minutes: the test's own limit would end it.
    for (const hostile of ["<script>", "<!--", "<", "<style", "</", "a<b ", "<svg>x"]) {
      simhashOf(hostile.repeat(1_048_576 / hostile.length));
    }
  });

  it("has a band in common with all that differ in three bits", () => {
    const generator = new SeededRandom(7);
    const random = () => generator.next();
    for (let round = 0; round < 500; round += 1) {
      const bits: number[] = Array.from({ length: 64 }, () => (random() < 0.5 ? 0 : 1));
      const other = [...bits];
      for (let flips = 0; flips < 3; flips += 1) {
        const at = Math.floor(random() * 64);
        other[at] = 1 - (other[at] ?? 0);
      }
      const hex = (all: readonly number[]) =>
        BigInt(`0b${all.join("")}`)
          .toString(16)
          .padStart(16, "0");
      const [one, two] = [hex(bits), hex(other)];
      expect(distanceOf(one, two)).toBeLessThanOrEqual(3);
      expect(bandsOf(one).filter((band) => bandsOf(two).includes(band))).not.toEqual([]);
    }
    expect(distanceOf("0000000000000000", "ffffffffffffffff")).toBe(64);
  });
});
