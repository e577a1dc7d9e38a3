/** Runs the newest task alone: an older one is aborted, and neither its answer nor its failure is heard of. */
export class Latest {
  #controller = new AbortController();

  /** `delay`: milliseconds to wait for a newer task before starting. */
  constructor(delay) {
    this.delay = delay;
  }

  /** Calls `task(signal)`; `failed(error)` only if it is still the newest. */
  async run(task, failed) {
    this.cancel();
    const {signal} = this.#controller;
    try {
      await new Promise((resolve) => setTimeout(resolve, this.delay));
      signal.throwIfAborted();
      await task(signal);
    } catch (error) {
      if (!signal.aborted) failed(error);
    }
  }

  cancel() {
    this.#controller.abort();
    this.#controller = new AbortController();
  }
}
