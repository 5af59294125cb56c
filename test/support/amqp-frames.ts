/** Method frames on channel 0, as a broker sends them, for what a broker cannot be made to say in a test. */

function methodFrame(classId: number, methodId: number, args: Buffer): Buffer {
  const head = Buffer.alloc(11);
  head.writeUInt8(1, 0);
  head.writeUInt16BE(0, 1);
  head.writeUInt32BE(4 + args.length, 3);
  head.writeUInt16BE(classId, 7);
  head.writeUInt16BE(methodId, 9);
  return Buffer.concat([head, args, Buffer.from([0xce])]);
}

function shortText(text: string): Buffer {
  return Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)]);
}

/** `connection.close` with 320 CONNECTION_FORCED: an operator ends the connection. */
export function connectionForced(): Buffer {
  const code = Buffer.alloc(2);
  code.writeUInt16BE(320);
  return methodFrame(10, 50, Buffer.concat([code, shortText("CONNECTION_FORCED - test"), Buffer.alloc(4)]));
}

/** `connection.blocked`: one of the broker's alarms has gone off. */
export function connectionBlocked(): Buffer {
  return methodFrame(10, 60, shortText("low on memory"));
}

/** `connection.unblocked` */
export function connectionUnblocked(): Buffer {
  return methodFrame(10, 61, Buffer.alloc(0));
}
