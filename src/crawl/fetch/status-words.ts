import { STATUS_CODES } from "node:http";

/** Where the registry of IANA (HTTP Status Codes, as of RFC 9110) says otherwise than Node. */
const OF_IANA: Readonly<Record<number, string | undefined>> = {
  413: "Content Too Large",
  418: undefined,
  422: "Unprocessable Content",
  509: undefined,
};

/** `status 503 Service Unavailable`; the number alone when no standard has a name for it. */
export function statusInWords(statusCode: number): string {
  const phrase = statusCode in OF_IANA ? OF_IANA[statusCode] : STATUS_CODES[statusCode];
  return phrase === undefined ? `status ${statusCode}` : `status ${statusCode} ${phrase}`;
}
