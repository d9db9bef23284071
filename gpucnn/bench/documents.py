"""The blocks of a Markdown document that are made from records, tables and pictures alike.

    <!-- bench: lecture benchmarks/results/two-cores.json -->
    ...whatever stands here is what `gpucnn bench --report README.md` last made of that record...
    <!-- end of bench -->

A block names its section and the records, as paths from the document's folder. One of a picture names the picture too:

    <!-- bench: picture operators docs/images/operators.png benchmarks/results/two-cores.json -->

and its text is the link to it. The picture carries the digests of its records (a PNG text, ``Source``), so that a test
can tell one that is out of date.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpucnn.bench import pictures, tables
from gpucnn.bench.record import Record, read

BLOCK = re.compile(r"^<!-- bench: (?P<words>[^\n]+?) -->\n(?P<text>.*?)^<!-- end of bench -->$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block's heading taken apart: the section, the picture if it is one, and the records."""

    section: str
    picture: Path | None
    link: str
    records: tuple[Path, ...]

    @classmethod
    def of(cls, words: str, folder: Path) -> Block:
        """Of the words after "bench:", in a document in ``folder``. Raises ValueError for words that make no block."""
        section, *rest = words.split()
        known: tuple[str, ...] = tuple(tables.SECTIONS)
        link = ""
        if section == "picture":
            if len(rest) < 2:
                raise ValueError(f"bench: expected picture NAME FILE.png RECORD..., got {words!r}")
            section, link, *rest = rest
            known = tuple(pictures.PICTURES)
        if section not in known:
            raise ValueError(f"bench: no section {section!r}; there is {', '.join(known)}")
        if not rest:
            raise ValueError(f"bench: section {section!r} names no record")
        return cls(section, folder / link if link else None, link, tuple(folder / name for name in rest))

    def source(self) -> str:
        """The records' names and digests, as the picture carries them."""
        digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in self.records]
        return " ".join(f"{path.name}:{digest}" for path, digest in zip(self.records, digests, strict=True))

    def text(self) -> str:
        """What stands in the block."""
        records = [read(path) for path in self.records]
        if self.picture is None:
            return tables.SECTIONS[self.section](records).markdown()
        return f"![{pictures.PICTURES[self.section].says}]({self.link})"

    def draw(self) -> None:
        """Draws the block's picture, if it is one."""
        if self.picture is not None:
            records: list[Record] = [read(path) for path in self.records]
            pictures.PICTURES[self.section].draw(records, self.picture, {"Source": self.source()})


def blocks(document: str, folder: Path) -> Iterator[Block]:
    """The blocks of a document's text. Raises ValueError for one that makes no sense."""
    for found in BLOCK.finditer(document):
        yield Block.of(found["words"], folder)


def rendered(document: str, folder: Path) -> str:
    """The document's text with every block made anew.

    Raises ValueError for a block that makes no sense or a record that is none, OSError for one that cannot be read.
    """

    def block(found: re.Match[str]) -> str:
        text = Block.of(found["words"], folder).text().rstrip("\n")
        return f"<!-- bench: {found['words']} -->\n{text}\n<!-- end of bench -->"

    return BLOCK.sub(block, document)


def render(path: Path) -> list[Path]:
    """Makes a document's blocks and their pictures anew; the files written. Raises as :func:`rendered`."""
    from gpucnn.serialization import atomic_write

    before = path.read_text(encoding="utf-8")
    after = rendered(before, path.parent)
    written = []
    for block in blocks(before, path.parent):
        if block.picture is not None:
            block.draw()
            written.append(block.picture)
    if after != before:
        atomic_write(path, after.encode())
        written.append(path)
    return written
