import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DateStyle } from "../../../src/spiders/declarative/date-text.js";
import { decimalSignOf, numberIn } from "../../../src/spiders/declarative/number-text.js";

describe("a number in a text", () => {
  it.each<[string, number | undefined]>([
    ["51.77", 51.77],
    ["£51.77", 51.77],
    ["-5", -5],
    ["− 5", -5],
    ["-£1,234.50", -1234.5],
    ["$ 1,234", 1234],
    ["1,234,567", 1_234_567],
    ["1.234.567", 1_234_567],
    ["1.234,5", 1234.5],
    ["1,5", 1.5],
    ["0,125", 125],
    [",5", 0.5],
    ["1 234,50 €", 1234.5],
    ["1\u00a0234\u202f567", 1_234_567],
    ["1'234.5", 1234.5],
    ["3 10", 3],
    ["3 1000", 3],
    ["1.5e3", 1500],
    ["model X-4", 4],
    ["from 3 to 5", 3],
    ["v1.2.3", 1.2],
    ["12,34,567.5", 1_234_567.5],
    ["none", undefined],
    ["", undefined],
    ["٣", undefined],
    ["1e999", undefined],
  ])("%j is %s", (text, expected) => {
    expect(numberIn(text)).toBe(expected);
  });

  it.each([
    ["1.234", ",", 1234],
    ["1.234,5", ",", 1234.5],
    ["0,125", ",", 0.125],
    ["1,234", ".", 1234],
    ["1,2345", ".", 12_345],
  ] as const)("%j, with %j before its decimals, is %s", (text, sign, expected) => {
    expect(numberIn(text, sign)).toBe(expected);
  });

  it("is written as where a language is spoken", () => {
    expect(["de", "fr", "en-GB", "ar-EG", "de-CH"].map(decimalSignOf)).toEqual([",", ",", ".", ".", "."]);
    fc.assert(
      fc.property(
        fc.integer({ min: -1e12, max: 1e12 }).map((cents) => cents / 100),
        fc.constantFrom("de", "fr", "en-US", "es", "de-CH", "en-IN", "sv"),
        (value, locale) => {
          const text = new Intl.NumberFormat(locale, { maximumFractionDigits: 2 }).format(value);
          expect(numberIn(text, decimalSignOf(locale))).toBe(value);
        },
      ),
    );
  });

  it("is found in no text at the price of more than one look", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."1.,' -+€e\u00a0a"), maxLength: 300 }), (text) => {
        const value = numberIn(text);
        expect(value === undefined || Number.isFinite(value)).toBe(true);
      }),
    );
  });
});

describe("a date in a text", () => {
  it.each<[string, string | undefined, string | undefined]>([
    ["2024-03-02", undefined, "2024-03-02"],
    ["2024/3/2", undefined, "2024-03-02"],
    ["20240302", undefined, "2024-03-02"],
    ["on 2024-03-02, at 8:30 pm", undefined, "2024-03-02T20:30:00"],
    ["2024-03-02 in room 25:70", undefined, "2024-03-02"],
    ["2024-03-02 08:30", undefined, "2024-03-02T08:30:00"],
    ["2024-03-02T08:30:15Z", undefined, "2024-03-02T08:30:15.000Z"],
    ["2024-03-02T08:30:15.25+01:00", undefined, "2024-03-02T07:30:15.250Z"],
    ["2024-03-02T23:30:00-0230", undefined, "2024-03-03T02:00:00.000Z"],
    ["Sat, 02 Mar 2024 08:30:00 GMT", undefined, "2024-03-02T08:30:00.000Z"],
    ["2 March 2024", undefined, "2024-03-02"],
    ["2nd of March, 2024", undefined, "2024-03-02"],
    ["March 2, 2024", undefined, "2024-03-02"],
    ["Mar. 2nd, 2024 9:05 PM", undefined, "2024-03-02T21:05:00"],
    ["Sept 9, 2024", undefined, "2024-09-09"],
    ["2. März 2024", "de", "2024-03-02"],
    ["2 mars 2024", "fr", "2024-03-02"],
    ["2 de marzo de 2024", "es", "2024-03-02"],
    ["2 марта 2024", "ru", "2024-03-02"],
    ["2024年3月2日", "ja", "2024-03-02"],
    ["02.03.2024", "de", "2024-03-02"],
    ["02/03/2024", "en-GB", "2024-03-02"],
    ["02/03/2024", "en-US", "2024-02-03"],
    ["02/03/2024", undefined, undefined],
    ["25/03/2024", undefined, "2024-03-25"],
    ["03/25/2024", undefined, "2024-03-25"],
    ["3/3/2024", undefined, "2024-03-03"],
    ["1709368200", undefined, "2024-03-02T08:30:00.000Z"],
    ["1709368200000", undefined, "2024-03-02T08:30:00.000Z"],
    ["2024-02-30", undefined, undefined],
    ["2024-13-01", undefined, undefined],
    ["March 2024", undefined, undefined],
    ["may come soon", undefined, undefined],
    ["", undefined, undefined],
  ])("%j in %s is %s", (text, locale, expected) => {
    expect(new DateStyle(locale).dateIn(text)).toBe(expected);
  });

  it("is read back from any language that writes its months in words", () => {
    const locales = ["en-US", "en-GB", "de", "fr", "es", "it", "pt-BR", "nl", "sv", "pl", "cs", "ru"];
    const styles = new Map(locales.map((locale) => [locale, new DateStyle(locale)]));
    fc.assert(
      fc.property(
        fc.date({ min: new Date("1000-01-01"), max: new Date("2999-12-31"), noInvalidDate: true }),
        fc.constantFrom(...locales),
        fc.constantFrom("long", "short"),
        (date, locale, month) => {
          const format = { day: "numeric", month, year: "numeric", timeZone: "UTC" } as const;
          const text = new Intl.DateTimeFormat(locale, { ...format, calendar: "gregory" }).format(date);
          // Years that are written with other than four digits are none here.
          fc.pre(/\d{4}/.test(text));
          expect(styles.get(locale)?.dateIn(text)).toBe(date.toISOString().slice(0, 10));
        },
      ),
    );
  });
});
