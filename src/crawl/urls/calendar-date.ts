/** A day that a URL names, or the first of the month or year if it names no more. */
export type CalendarDate = {
  readonly year: number;
  /** 1 to 12. */
  readonly month: number;
  /** 1 to 31; not checked against the month. */
  readonly day: number;
};

/** Nothing but years of these can be a date here: what other numbers mean, nobody knows. */
const YEAR = "(?:1[5-9]|2[01])\\d\\d";
const MAY_BE_DATED = new RegExp(YEAR);
/** 2026-05-12, 2026/5/12, 2026.05, 20260512, 202605. */
const YEAR_FIRST = new RegExp(
  `(?<!\\d)(${YEAR})(?:([-/._])(0?[1-9]|1[0-2])(?:\\2(0?[1-9]|[12]\\d|3[01]))?|(0[1-9]|1[0-2])(0[1-9]|[12]\\d|3[01])?)(?!\\d)`,
);
/** 12-05-2026, 05/2026. Which of two small numbers is the month does not matter here. */
const YEAR_LAST = new RegExp(`(?<!\\d)(?:(\\d{1,2})([-/._]))?(\\d{1,2})[-/._](${YEAR})(?!\\d)`);
/** 2026-W05. */
const WEEK = new RegExp(`(?<!\\d)(${YEAR})[-/_.]?W([0-5]\\d)(?!\\d)`, "i");
/** A Unix time, in seconds or milliseconds. */
const INSTANT = /^(\d{10})(?:\d{3})?$/;

const YEAR_NAMES = new Set(["year", "yr", "y", "jahr", "annee", "ano", "anno", "jaar"]);
const MONTH_NAMES = new Set(["month", "mon", "mo", "m", "monat", "mois", "mes", "mese", "maand"]);
const DAY_NAMES = new Set(["day", "d", "tag", "jour", "dia", "giorno", "dag"]);

/**
 * The date that a path and query name, if any: by its form, or by parameters for year, month and day.
 * @param target path and query
 */
export function calendarDateOf(target: string): CalendarDate | undefined {
  if (!MAY_BE_DATED.test(target)) return undefined;
  const first = YEAR_FIRST.exec(target);
  if (first !== null) {
    const [, year, , month, day, shortMonth, shortDay] = first;
    return dateOf(year, month ?? shortMonth, day ?? shortDay);
  }
  const week = WEEK.exec(target);
  if (week !== null) {
    const weekNumber = Number(week[2]);
    return dateOf(week[1], String(Math.min(12, 1 + Math.floor((weekNumber - 1) / 4.35))), undefined);
  }
  const last = YEAR_LAST.exec(target);
  if (last !== null) {
    const [, one, , other, year] = last;
    return Number(other) > 12 ? dateOf(year, one, other) : dateOf(year, other, one);
  }
  const queryAt = target.indexOf("?");
  return queryAt < 0 ? undefined : dateOfParameters(target.slice(queryAt + 1));
}

function dateOfParameters(query: string): CalendarDate | undefined {
  let year: string | undefined;
  let month: string | undefined;
  let day: string | undefined;
  for (const parameter of query.split("&")) {
    const end = parameter.indexOf("=");
    if (end < 0) continue;
    const name = parameter.slice(0, end).toLowerCase();
    const value = parameter.slice(end + 1);
    if (YEAR_NAMES.has(name)) year = value;
    else if (MONTH_NAMES.has(name)) month = value;
    else if (DAY_NAMES.has(name)) day = value;
    const instant = INSTANT.exec(value);
    if (instant !== null) {
      const at = new Date(Number(instant[1]) * 1_000);
      return { year: at.getUTCFullYear(), month: at.getUTCMonth() + 1, day: at.getUTCDate() };
    }
  }
  return year !== undefined && MAY_BE_DATED.test(year) ? dateOf(year, month, day) : undefined;
}

function dateOf(year = "", month = "1", day = "1"): CalendarDate | undefined {
  const date = { year: Number(year), month: Number(month), day: Number(day) };
  const isDate = date.year <= 9_999 && date.month >= 1 && date.month <= 12 && date.day >= 1 && date.day <= 31;
  return isDate ? date : undefined;
}

/** A number that grows with the date. */
export function ordinalOf({ year, month, day }: CalendarDate): number {
  return (year * 12 + month - 1) * 31 + day - 1;
}
