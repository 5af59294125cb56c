import type { ZodError } from "zod";

/** A member of what came from outside that is wrong: its dotted path (`limits.maxPages`, `seeds.3`) and why. */
export type FieldError = { readonly field: string; readonly message: string };

type Issue = ZodError["issues"][number];

/** Every fault that a schema found. */
export function fieldErrorsOf(error: ZodError): readonly FieldError[] {
  return error.issues.flatMap((issue) => faultsOf(issue, []));
}

/** The first of the faults in one line, each with its field, and how many more there are. */
export function summaryOf(faults: readonly FieldError[]): string {
  const shown = faults
    .slice(0, 5)
    .map(({ field, message }) => (field === "" ? message : `${field}: ${message}`));
  if (faults.length > shown.length) shown.push(`and ${faults.length - shown.length} more`);
  return shown.join("; ");
}

function faultsOf(issue: Issue, parent: readonly PropertyKey[]): FieldError[] {
  const path = [...parent, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ field: dotted([...path, key]), message: "is not known here" }));
  }
  if (issue.code === "invalid_union") {
    // The branch that got furthest is the one that was meant.
    const meant = issue.errors.find((branch) =>
      branch.some((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys"),
    );
    if (meant !== undefined) return meant.flatMap((inner) => faultsOf(inner, path));
  }
  return [{ field: dotted(path), message: plain(issue) }];
}

function plain(issue: Issue): string {
  if (issue.code === "invalid_type") {
    const expected = issue.expected === "record" ? "object" : issue.expected;
    return issue.input === undefined && issue.message.endsWith("received undefined")
      ? `is missing; must be ${article(expected)}`
      : `must be ${article(expected)}`;
  }
  if (issue.code === "invalid_value") {
    return `must be ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  }
  return issue.message;
}

function article(noun: string): string {
  if (noun === "int") return "a whole number";
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}

function dotted(path: readonly PropertyKey[]): string {
  return path.map(String).join(".");
}
