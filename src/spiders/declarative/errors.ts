import { CrawlError } from "../../crawl/errors.js";
import { type FieldError, summaryOf } from "../../lib/field-errors.js";

/** A declaration of a spider is not as it must be: for its author. Names every member that is wrong. */
export class SpiderDeclarationError extends CrawlError {
  readonly code = "SPIDER_DECLARATION";
  /** By dotted path: `items.0.fields.price.regex`. */
  readonly faults: readonly FieldError[];

  constructor(faults: readonly FieldError[], options?: ErrorOptions) {
    super(summaryOf(faults), options);
    this.faults = faults;
  }
}
