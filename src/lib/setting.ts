/** One thing that can be set: by a flag, else by its environment variable, else its default. */
export type Setting<T> = {
  readonly flag: string;
  /** `--foo-bar` is `WARREN_FOO_BAR` unless said otherwise. */
  readonly variable: string;
  /** What stands for the value in the help; absent for a switch. */
  readonly value?: string;
  readonly help: string;
  /** Parses one value. @throws Error that says what is wrong with it, without naming the setting */
  readonly parse: (text: string) => T;
  /** What holds when it is not set, in the form in which it would be given. */
  readonly fallback?: string;
  /** May be given several times; `parse` gets them joined by newlines. */
  readonly isMultiple?: boolean;
};

export type Optional<T> = Setting<T> & { readonly isOptional: true };

export function setting<T>(given: {
  flag: string;
  variable?: string;
  value?: string;
  help: string;
  parse: (text: string) => T;
  fallback?: string;
  isMultiple?: boolean;
}): Setting<T> {
  return { variable: `WARREN_${given.flag.toUpperCase().replaceAll("-", "_")}`, ...given };
}

export function optional<T>(given: Parameters<typeof setting<T>>[0]): Optional<T> {
  return { ...setting(given), isOptional: true };
}
