"""The lines between a spider's process and the worker."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from typing import Any, BinaryIO, Deque, Dict, Optional

Message = Dict[str, Any]


class Channel:
    """Reads and writes messages: UTF-8, one JSON object a line. May be written to by several threads."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: Deque[Message] = deque()
        self._calls = 0

    @classmethod
    def of_process(cls) -> "Channel":
        """The channel of this process.

        What is printed from now on, by whatever library, goes to standard error and so to the log: it could break
        messages in two otherwise.
        """
        sys.stdout.flush()
        writer = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        return cls(sys.stdin.buffer, writer)

    def send(self, message: Message) -> None:
        """Writes a message. Raises ValueError or TypeError if it holds what is no JSON."""
        line = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Halves of characters, which JSON may name and UTF-8 may not hold.
        data = line.encode("utf-8", "replace") + b"\n"
        with self._lock:
            self._writer.write(data)
            self._writer.flush()

    def receive(self) -> Optional[Message]:
        """The next message that is no answer; None when there are no more."""
        return self._waiting.popleft() if self._waiting else self._read()

    def call(self, message: Message) -> Message:
        """Asks, and waits for the answer; what comes before it is kept for `receive`. Not for several threads."""
        self._calls += 1
        self.send({**message, "id": self._calls})
        while True:
            answer = self._read()
            if answer is None:
                raise EOFError(f"the worker closed before it answered {message['type']}")
            if answer.get("type") == "state" and answer.get("id") == self._calls:
                return answer
            self._waiting.append(answer)

    def _read(self) -> Optional[Message]:
        for line in iter(self._reader.readline, b""):
            if line.strip():
                message: Message = json.loads(line)
                return message
        return None
