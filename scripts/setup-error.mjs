/** Something that a user has to see to; the message says what. */
export class SetupError extends Error {
  /** 2: usage or configuration, which trying again cannot mend; 1: it failed at run time. */
  exitCode;

  /**
   * @param {string} message
   * @param {ErrorOptions & { exitCode?: 1 | 2 }} [options]
   */
  constructor(message, { exitCode = 2, ...options } = {}) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
