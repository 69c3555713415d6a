/** A stream that is read item by item, over broken connections. */

import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import type { Caller } from "./caller.js";
import { Reopened } from "./reopened.js";

/** What a client follows until it is closed. Where the connection breaks it goes on after the last item, with any replica. */
export abstract class Following<M extends DescMethod, Item> implements AsyncDisposable, AsyncIterable<Item> {
  readonly #stream: Reopened<M>;
  readonly #forget: () => void;
  /** What came and was not asked for yet. */
  readonly #waiting: Item[] = [];

  /** @internal */
  constructor(caller: Caller, method: M, doing: string, signal: AbortSignal | undefined, forget: () => void) {
    this.#stream = new Reopened(caller, method, doing, signal);
    this.#forget = forget;
  }

  /** With what the stream is opened, to go on after what was taken. */
  protected abstract request(): MessageInitShape<M["input"]>;

  /** Keeps where the stream stands after an answer, and gives the items in it. */
  protected abstract take(answer: MessageShape<M["output"]>): readonly Item[];

  /** The item that comes next, where it is there already. */
  protected get waiting(): Item | undefined {
    return this.#waiting[0];
  }

  /** @internal Resolves once nothing more is missed. */
  async open(): Promise<this> {
    try {
      this.#waiting.push(...this.take(await this.#stream.open(() => this.request())));
      return this;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The next item, once there is one; undefined once this was closed. After an error it is over. */
  async next(): Promise<Item | undefined> {
    try {
      while (!this.#stream.isClosed) {
        const item = this.#waiting.shift();
        if (item !== undefined) return item;
        const answer = await this.#stream.next(() => this.request());
        if (answer !== undefined) this.#waiting.push(...this.take(answer));
      }
    } catch (error) {
      if (this.#stream.isClosed) return undefined;
      this.close();
      throw error;
    }
    return undefined;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    for (;;) {
      const item = await this.next();
      if (item === undefined) return;
      yield item;
    }
  }

  close(): void {
    this.#stream.close();
    this.#forget();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
