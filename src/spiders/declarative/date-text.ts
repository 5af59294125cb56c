/** How dates are written where a language is spoken. */
export class DateStyle {
  /** Names of months and their short forms, in lower case, to their number. */
  readonly #months = new Map<string, number>();
  /** The order in which a date of numbers alone is written; undefined when nobody said. */
  readonly #order: readonly ("day" | "month" | "year")[] | undefined;

  constructor(locale?: string) {
    for (const language of locale === undefined ? ["en"] : [locale, "en"]) this.#learnMonths(language);
    if (locale !== undefined) {
      this.#order = new Intl.DateTimeFormat(locale, { numberingSystem: "latn", calendar: "gregory" })
        .formatToParts(new Date(0))
        .map(({ type }) => type)
        .filter((type) => type === "day" || type === "month" || type === "year");
    }
  }

  /**
   * The date in a text in ISO 8601: `2024-03-12`; with a time `2024-03-12T08:30:00`; with a zone too, the instant
   * `2024-03-12T07:30:00.000Z`. Reads ISO 8601, the dates of mail and HTTP, months in words, numbers in the order of the
   * language, and seconds or milliseconds since 1970.
   *
   * @returns undefined if there is none, or if it could be either of two days
   */
  dateIn(given: string): string | undefined {
    const text = given.slice(0, MAX_CHARACTERS).trim();
    if (/^\d{10}(?:\d{3})?$/.test(text)) {
      return new Date(Number(text) * (text.length === 10 ? 1_000 : 1)).toISOString();
    }
    const date = this.#dayIn(text);
    if (date === undefined) return undefined;
    const { year, month, day, rest } = date;
    const utc = new Date(0);
    utc.setUTCFullYear(year, month - 1, day);
    if (utc.getUTCMonth() !== month - 1 || utc.getUTCDate() !== day) return undefined;
    const iso = `${padded(year, 4)}-${padded(month, 2)}-${padded(day, 2)}`;
    const time = TIME.exec(rest)?.groups;
    return time === undefined ? iso : withTime(iso, time);
  }

  #dayIn(text: string): Day | undefined {
    const iso = /(?<!\d)(?<y>\d{4})[-/.年]\s?(?<m>\d{1,2})[-/.月]\s?(?<d>\d{1,2})(?!\d)/.exec(text);
    if (iso?.groups !== undefined) {
      const { y, m, d } = iso.groups;
      return {
        year: Number(y),
        month: Number(m),
        day: Number(d),
        rest: text.slice(iso.index + iso[0].length),
      };
    }
    const compact = /^(?<y>\d{4})(?<m>\d{2})(?<d>\d{2})(?!\d)/.exec(text);
    if (compact?.groups !== undefined) {
      const { y, m, d } = compact.groups;
      return { year: Number(y), month: Number(m), day: Number(d), rest: text.slice(8) };
    }
    return this.#inWords(text) ?? this.#inNumbers(text);
  }

  #inWords(text: string): Day | undefined {
    for (const word of text.matchAll(/\p{L}[\p{L}\p{M}]*\.?/gu)) {
      const month = this.#months.get(word[0].replace(/\.$/, "").toLowerCase());
      if (month === undefined) continue;
      const before = /(?<day>\d{1,2})(?:st|nd|rd|th|\.|º|er)?[\s,./-]*(?:\p{L}{1,3}\s+)?$/u.exec(
        text.slice(0, word.index),
      );
      const after = text.slice(word.index + word[0].length);
      if (before?.groups !== undefined) {
        const year = /^[\s,./-]*(?:\p{L}{1,3}\s+)?(?<year>\d{4})(?!\d)/u.exec(after);
        if (year?.groups === undefined) continue;
        const rest = after.slice(year[0].length);
        return { year: Number(year.groups.year), month, day: Number(before.groups.day), rest };
      }
      const dayYear = /^[\s.]*(?<day>\d{1,2})(?:st|nd|rd|th)?[\s,]+(?<year>\d{4})(?!\d)/.exec(after);
      if (dayYear?.groups === undefined) continue;
      const rest = after.slice(dayYear[0].length);
      return { year: Number(dayYear.groups.year), month, day: Number(dayYear.groups.day), rest };
    }
    return undefined;
  }

  #inNumbers(text: string): Day | undefined {
    const found = /(?<!\d)(?<a>\d{1,2})[./-]\s?(?<b>\d{1,2})[./-]\s?(?<y>\d{4})(?!\d)/.exec(text);
    if (found?.groups === undefined) return undefined;
    const [a, b] = [Number(found.groups.a), Number(found.groups.b)];
    const facts = { year: Number(found.groups.y), rest: text.slice(found.index + found[0].length) };
    if (a > 12 || a === b) return { ...facts, day: a, month: b };
    if (b > 12) return { ...facts, day: b, month: a };
    if (this.#order === undefined) return undefined;
    const isDayFirst = this.#order.indexOf("day") < this.#order.indexOf("month");
    return isDayFirst ? { ...facts, day: a, month: b } : { ...facts, day: b, month: a };
  }

  #learnMonths(locale: string): void {
    for (const style of ["long", "short"] as const) {
      // With a day, since some languages write the month otherwise then.
      for (const options of [{ month: style }, { month: style, day: "numeric" }] as const) {
        const format = new Intl.DateTimeFormat(locale, { ...options, timeZone: "UTC", calendar: "gregory" });
        for (let month = 1; month <= 12; month += 1) {
          const part = format
            .formatToParts(new Date(Date.UTC(2001, month - 1, 15)))
            .find(({ type }) => type === "month");
          const name = part?.value.replace(/\.$/, "").toLowerCase() ?? "";
          if (/^\p{L}/u.test(name) && !this.#months.has(name)) this.#months.set(name, month);
        }
      }
    }
    if (locale === "en") this.#months.set("sept", 9);
  }
}

type Day = { readonly year: number; readonly month: number; readonly day: number; readonly rest: string };

const MAX_CHARACTERS = 200;
const TIME =
  /(?:^|[T\s,])(?<hour>\d{1,2})[:h](?<minute>\d{2})(?::(?<second>\d{2})(?:[.,](?<part>\d{1,9}))?)?\s?(?<half>[ap]\.?m\.?)?\s?(?<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2}(?!\d))?/i;

function withTime(iso: string, time: Readonly<Record<string, string | undefined>>): string {
  const { minute, second = "00", part = "", half, zone } = time;
  let hour = Number(time.hour);
  if (half !== undefined) hour = (hour % 12) + (/^p/i.test(half) ? 12 : 0);
  if (hour > 23 || Number(minute) > 59 || Number(second) > 59) return iso;
  const local = `${iso}T${padded(hour, 2)}:${minute}:${second}`;
  if (zone === undefined) return local;
  const offset = /^[+-]/.test(zone) ? zone.replace(":", "").padEnd(5, "0") : "+0000";
  const instant = new Date(
    `${local}.${part.slice(0, 3).padEnd(3, "0")}${offset.slice(0, 3)}:${offset.slice(3, 5)}`,
  );
  return Number.isNaN(instant.getTime()) ? local : instant.toISOString();
}

function padded(value: number, digits: number): string {
  return String(value).padStart(digits, "0");
}
