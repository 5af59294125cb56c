// What a result has to look like, whatever it says.

const CODES = ["network", "timeout", "too-large", "too-many-redirects", "decode", "spider-error", "expired"];

const isText = (value) => typeof value === "string";
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** What members must be; each may be absent. */
const MEMBERS = {
  task: [isText, "a text"],
  node: [
    (value) => isText(value) && /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(value),
    "a node's id: letters, digits, '.', '_' and '-'",
  ],
  statusCode: [
    (value) => Number.isInteger(value) && value >= 100 && value <= 599,
    "a whole number from 100 to 599",
  ],
  retryAfter: [isText, "a text"],
  redirect: [isText, "a text"],
  url: [isText, "a text"],
  contentType: [isText, "a text"],
  bytes: [(value) => Number.isInteger(value) && value >= 0, "a whole number"],
  links: [
    (value) =>
      Array.isArray(value) && value.every((link) => isText(link) || (isObject(link) && isText(link.url))),
    "an array of URLs, or of objects with a url",
  ],
  items: [(value) => Array.isArray(value) && value.every(isObject), "an array of objects"],
  error: [
    (value) => (isText(value) && value !== "") || (isObject(value) && CODES.includes(value.code)),
    `a text, or an object with a code (${CODES.join(", ")}) and a message`,
  ],
};

/** What is wrong with the form of a result, if anything. */
export function submissionFault(result) {
  for (const [member, [isRight, what]] of Object.entries(MEMBERS)) {
    if (member in result && !isRight(result[member])) {
      return `${member} is ${JSON.stringify(result[member])?.slice(0, 100)}; it must be ${what}`;
    }
  }
  return undefined;
}
