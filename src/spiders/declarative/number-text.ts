/** What stands between the whole and the rest of a number where this language is spoken. */
export function decimalSignOf(locale: string): "." | "," {
  const part = new Intl.NumberFormat(locale, { numberingSystem: "latn" })
    .formatToParts(1.5)
    .find(({ type }) => type === "decimal");
  return part?.value === "," ? "," : ".";
}

/** Digits, with what groups them: points, commas, apostrophes, spaces of every width. */
const NUMBER =
  /(?<sign>(?<![\p{L}\d])[-+\u2212])?[ \u00a0]?(?:\p{Sc}[ \u00a0]?)?(?<digits>(?:\d+(?:[.,'\u2019 \u00a0\u2009\u202f]\d+)*|[.,]\d+))(?:e(?<power>[+-]?\d{1,3}))?/iu;
const GROUP_SPACE = /['\u2019 \u00a0\u2009\u202f]/;

/**
 * The first number in a text: `£1,234.50`, `1 234,50 €`, `−5`, `1.5e3`. Without a decimal sign being given, the last of
 * point and comma is it if both are there; a comma is it unless three digits follow; a point is it unless there are several.
 *
 * @returns undefined if there is none
 */
export function numberIn(text: string, decimal?: "." | ","): number | undefined {
  const found = NUMBER.exec(text.slice(0, MAX_CHARACTERS))?.groups;
  if (found?.digits === undefined) return undefined;
  const grouped = ungrouped(found.digits);
  const sign = decimal ?? decimalSignIn(grouped);
  // What groups goes; a second decimal sign ends it, as in `1.2.3`.
  const [whole = "", decimals = ""] = sign === undefined ? [grouped] : grouped.split(sign);
  const digits = `${whole}.${decimals}`.replace(/[.,](?=.*\.)|,/g, "");
  const isNegative = found.sign !== undefined && found.sign !== "+";
  const value = Number(
    `${isNegative ? "-" : ""}${digits}${found.power === undefined ? "" : `e${found.power}`}`,
  );
  return Number.isFinite(value) ? value : undefined;
}

const MAX_CHARACTERS = 1_000;

/** Spaces and apostrophes count as part of a number only before three digits: "3 10" are two numbers. */
function ungrouped(digits: string): string {
  let result = "";
  for (let at = 0; at < digits.length; at += 1) {
    const character = digits[at] ?? "";
    if (!GROUP_SPACE.test(character)) {
      result += character;
      continue;
    }
    if (!/^\d{3}(?!\d)/.test(digits.slice(at + 1, at + 5))) return result;
  }
  return result;
}

function decimalSignIn(digits: string): "." | "," | undefined {
  const point = digits.lastIndexOf(".");
  const comma = digits.lastIndexOf(",");
  if (point >= 0 && comma >= 0) return point > comma ? "." : ",";
  if (point >= 0) return /\.\d{3}\.\d{3}/.test(digits) ? undefined : ".";
  if (comma < 0) return undefined;
  const isGroup = digits.indexOf(",") !== comma || (digits.length - comma === 4 && comma > 0);
  return isGroup ? undefined : ",";
}
