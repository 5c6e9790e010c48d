"""Zip archives that are read member by member and cannot unpack to more than is reasonable."""

import zipfile
from pathlib import Path
from typing import IO

from vprompt_jax.process.files import most_unpacked

_MOST_MEMBERS = 50_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can ask for gigabytes to unpack


class Archive:
    """An archive, opened once: reading its list of members anew for each of them takes long.

    Attributes:
      names: of the members.
    """

    def __init__(self, path: Path):
        """Opens the archive.

        Raises:
          ValueError: if it is encrypted, compressed in an unusual way, names a member twice, or
            holds far more than a file of its size can.
        """
        self._zip = zipfile.ZipFile(path)
        if len(self._zip.infolist()) > _MOST_MEMBERS:
            raise ValueError(f"it has more than {_MOST_MEMBERS:,} members")
        self._members = {info.filename: info for info in self._zip.infolist()}
        self.names = list(self._members)
        if len(self.names) != len(self._zip.infolist()):
            raise ValueError("two members of the archive have one name")
        for info in self._members.values():
            if info.flag_bits & 1 or info.compress_type not in _METHODS:
                raise ValueError(f"{info.filename[:80]} is encrypted or compressed unusually")
        total = sum(info.file_size for info in self._members.values())
        most = most_unpacked(path.stat().st_size)
        if total > most:
            raise ValueError(f"it unpacks to {total:,} bytes; a file of its size may to {most:,}")

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked."""
        if name not in self._members:
            raise ValueError(f"{name[:80]} is missing in the archive")
        return self._members[name].file_size

    def open(self, name: str) -> IO[bytes]:
        """A member, to be read from its beginning; its checksum is checked at its end."""
        self.size(name)
        return self._zip.open(self._members[name])

    def read(self, name: str, most: int | None = None) -> bytes:
        """A member's content, its checksum checked; refused if it has more than `most` bytes."""
        if most is not None and self.size(name) > most:
            raise ValueError(f"{name[:80]} has {self.size(name):,} bytes, more than {most:,}")
        with self.open(name) as file:
            return file.read()
