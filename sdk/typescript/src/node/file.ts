/** Files that are uploaded. */

import { type FileHandle, open } from "node:fs/promises";

import { AcbError, failure } from "../core/error.js";
import type { Source } from "../core/upload.js";

/** A file that is open to be uploaded. Close it afterwards. */
export interface FileSource extends Source, AsyncDisposable {
  close(): Promise<void>;
}

/** Opens a file for {@link Client.upload}. */
export async function openFile(path: string): Promise<FileSource> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path);
    const facts = await handle.stat();
    if (!facts.isFile()) throw failure("USAGE", `${path} is not a file`);
    return sourceOf(handle, facts.size);
  } catch (error) {
    await handle?.close();
    throw error instanceof AcbError ? error : failure("IO", `${path}: ${(error as Error).message}`);
  }
}

function sourceOf(handle: FileHandle, size: number): FileSource {
  const close = () => handle.close();
  const read = async (offset: number, length: number) => {
    const data = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; ) {
      const { bytesRead } = await handle.read(data, at, length - at, offset + at);
      if (bytesRead === 0) throw new Error("it ends before");
      at += bytesRead;
    }
    return data;
  };
  return { size, read, close, [Symbol.asyncDispose]: close };
}
