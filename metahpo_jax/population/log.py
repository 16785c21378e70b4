"""An append-only file of finished work: a build that is killed at any moment loses what was being written, and nothing else.

A record is a header (length and CRC-32 of what follows) and an .npz of named arrays. The first record is the identity of the build: a log of
another one is refused rather than continued. A torn or damaged tail is cut off when the log is opened to be continued.
"""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from metahpo_jax.errors import StoreError

HEADER = struct.Struct("<4sQI")
MARK = b"mhpo"
IDENTITY = "identity"

Record = dict[str, np.ndarray]


class ResultLog:
    """The log of one build, open for reading what is there and for appending."""

    def __init__(self, path: Path, identity: str):
        """Opens or makes the file at `path`.

        Raises:
          StoreError: when it cannot be written, or belongs to a build of another `identity`.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=True)
            self._file = open(path, "r+b")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror}): name a file in a directory that you may write."
            ) from error
        found, _ = next(_records(self._file), (None, 0))
        if found is None:
            if not _is_begun(self._file):
                self.close()
                raise StoreError(
                    f"{path} is not the log of a build, or its beginning is damaged: name another file, or move it away."
                )
            self._file.seek(0)
            self._file.truncate()
            self.append({IDENTITY: np.asarray(identity)})
        elif str(found.get(IDENTITY)) != identity:
            self.close()
            raise StoreError(f"{path} holds results of other settings; name another file or delete it.")

    def __iter__(self) -> Iterator[Record]:
        """The records that are whole, in the order in which they were written; leaves the file ready to be appended to."""
        self._file.seek(0)
        end = 0
        for i, (record, after) in enumerate(_records(self._file)):
            end = after
            if i:
                yield record
        self._file.seek(end)
        self._file.truncate()

    def append(self, record: Mapping[str, np.ndarray]) -> None:
        """Writes a record and waits until it is on disk.

        Raises:
          StoreError: when the disk is full or gone; what was there before is still whole.
        """
        content = io.BytesIO()
        np.savez(content, **record)  # pyright: ignore[reportArgumentType]
        body = content.getvalue()
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(HEADER.pack(MARK, len(body), zlib.crc32(body)) + body)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error.strerror}): free some space and run the same command again."
            ) from error

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what `append` could not write, and said so, is tried again here
            self._file.close()


def _is_begun(file: io.BufferedRandom) -> bool:
    """Whether a file holds nothing, or the beginning of a first record that was never finished."""
    file.seek(0)
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        return HEADER.pack(MARK, 0, 0).startswith(head[: len(MARK)])
    mark, length, _ = HEADER.unpack(head)
    return mark == MARK and os.fstat(file.fileno()).st_size < HEADER.size + length


def _records(file: io.BufferedRandom) -> Iterator[tuple[Record, int]]:
    """Whole records from the start of `file`, each with the position after it; ends at the first that is not."""
    file.seek(0)
    while True:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            return
        mark, length, checksum = HEADER.unpack(head)
        body = file.read(length) if mark == MARK and length <= os.fstat(file.fileno()).st_size else b""
        if len(body) < length or not body or zlib.crc32(body) != checksum:
            return
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            record = {name: arrays[name] for name in arrays.files}
        after = file.tell()
        yield record, after
        file.seek(after)
