"""`nvidia-smi topo -m` and `-p2p`: the matrix as the program writes it, and as people paste it.

The header is underlined by escape codes, cells are separated by tabs, or by blanks where a terminal expanded them; long
lines wrap, and cells get glued together. A matrix that had to be repaired is taken only if there is one way to do so in
which it is symmetric; otherwise it is refused, with line and column.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gotrace.cluster.topo.model import SMI, Facts, Gpu, Nic, Source, TopologyError, cpu_set, pair_of
from gotrace.text import printable

HEADINGS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
_LEVEL = r"PIX|PXB|PHB|NODE|SYS|NV[1-9][0-9]?"
_STATUS = r"OK|CNS|GNS|TNS|NS|DR|U"
_NUMBER = r"(?:0|[1-9]\d{0,2})"
_DEVICE = re.compile(
    rf"(?:GPU|NIC){_NUMBER}|(?!GPU|NIC)[A-Za-z][\w.:-]{{0,62}}\d", re.ASCII
)  # those of RDMA devices end in a number
_GLUED_NAMES = re.compile(rf"(?:(?:GPU|NIC){_NUMBER}){{2,}}", re.ASCII)
_REST = re.compile(r"N/A|\d[\d,-]*", re.ASCII)
_CELLS = re.compile(rf"(?:X|{_LEVEL}|{_STATUS})+")
_HEADER = re.compile(rf"\s*GPU{_NUMBER}(?=\s|GPU\d|NIC\d|$)", re.ASCII)
_LEGEND = re.compile(r"\s*(NIC\d+):\s+(\S+)\s*$")
_MOST = 64  # ways to split the words of a line


@dataclass(frozen=True)
class _Word:
    text: str
    line: int
    column: int


@dataclass
class _Row:
    words: list[_Word]
    cells: list[_Word]
    rest: list[_Word]


def is_header(line: str) -> bool:
    """Whether a matrix begins here: names of devices and no cells. Escape codes have been taken off."""
    if not _HEADER.match(line):
        return False
    words = _bare(line).split()
    if any(_CELLS.fullmatch(word) for word in words):
        return False
    return sum(word.startswith("GPU") for word in words) > 1 or all(
        _DEVICE.fullmatch(word) or set(word) == {"%"} for word in words
    )


def _bare(line: str) -> str:
    """Without headings of two words, which hold blanks, each replaced by as many characters that are no name."""
    for heading in HEADINGS:
        line = re.sub(heading.replace(" ", r"\s"), lambda match: "%" * len(match[0]), line)
    return line


def parse(lines: Sequence[str], first: int, file: str) -> Facts:
    """The facts of a matrix that begins in ``lines[0]``, which is line ``first`` of ``file``. Raises TopologyError."""
    error: TopologyError | None = None
    for joiner in (" ", ""):  # where a line was wrapped between words, or within one
        try:
            return _parse(lines, first, file, joiner)
        except TopologyError as failure:
            error = error or failure
    assert error is not None
    raise error


def _refused(file: str, word: _Word, what: str) -> TopologyError:
    place = f"{printable(file)}:{word.line}:{word.column}"
    return TopologyError(f"{place}: {what}", "paste the matrix again, unwrapped: nvidia-smi topo -m > topo.txt")


def _parse(lines: Sequence[str], first: int, file: str, joiner: str) -> Facts:
    source = Source(SMI, file, first)
    header, body = _header(lines, joiner)
    names = [name for name in header if name not in HEADINGS]
    headings = [name for name in header if name in HEADINGS]
    top = _Word("", first, 1)
    if len(set(names)) < len(names):
        raise _refused(file, top, "a device appears twice in the heading")
    if len(names) > 256:
        raise _refused(file, top, f"it has {len(names)} devices: more than 256")
    rows, legend, cut, body_kind = _rows(lines, first, body, names, len(headings), file, joiner)
    facts = Facts(source)
    facts.cut = Source(SMI, file, cut) if cut else None
    gpus = [name for name in names if name.startswith("GPU")]
    if body_kind == "p2p":
        for one, other in itertools.permutations(gpus, 2):
            if one in rows and len(rows[one].cells) > names.index(other):
                status = rows[one].cells[names.index(other)].text
                known = facts.p2p.get(pair_of(one, other))
                if known is None or known[0] == "OK":
                    facts.p2p[pair_of(one, other)] = status, Source(SMI, file, rows[one].cells[0].line)
        return facts
    _check_symmetric(rows, names, file)
    facts.gpus = [_gpu(name, rows.get(name), headings) for name in gpus]
    called = {name: legend.get(name, name) for name in names if name not in gpus}
    if len(set(called.values())) < len(called):
        raise _refused(file, top, "the NIC legend has one device twice")
    facts.nics = [Nic(called[name], name, number) for number, name in enumerate(called)]
    own = {**{name: name for name in gpus}, **called}
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        word = _cell(rows, one, j) or _cell(rows, other, i)
        if word is not None:
            facts.see(own[one], own[other], word.text, Source(SMI, file, word.line))
    return facts


def _cell(rows: dict[str, _Row], name: str, at: int) -> _Word | None:
    row = rows.get(name)
    return row.cells[at] if row and at < len(row.cells) else None


def _header(lines: Sequence[str], joiner: str) -> tuple[list[str], int]:
    """The names in the heading, those of columns after the matrix too, and the number of lines that it takes."""
    text, used = lines[0], 1
    first = _HEADER.match(text)
    assert first is not None
    while used < len(lines) and lines[used].strip() and not re.match(rf"\s*{first[0].strip()}\b", lines[used]):
        text, used = f"{text.rstrip()}{joiner}{lines[used].strip()}", used + 1
    names: list[str] = []
    for match in re.finditer(r"\S+", re.sub("%+", lambda match: f" {match[0]} ", _bare(text))):
        word = match[0]
        if set(word) == {"%"}:
            left = [heading for heading in HEADINGS if len(heading) == len(word) and heading not in names]
            names.append(left[0] if left else "\0a column that appears twice")
        elif _GLUED_NAMES.fullmatch(word):
            names += re.findall(rf"(?:GPU|NIC){_NUMBER}", word)
        elif _DEVICE.fullmatch(word):
            names.append(word)
        else:
            names.append(f"\0{word}")
    return names, used


def _rows(
    lines: Sequence[str], first: int, body: int, names: Sequence[str], headings: int, file: str, joiner: str
) -> tuple[dict[str, _Row], dict[str, str], int, str]:
    """The rows by their names, the legend, the line where the text was cut off (0: it is whole), and what the cells are."""
    texts: list[tuple[str, list[tuple[int, str]]]] = []
    legend: dict[str, str] = {}
    ended = in_legend = False
    while lines and not lines[-1].strip():  # what ends there may have been cut off
        lines = lines[:-1]
    for number, line in enumerate(lines[body:], first + body):
        stripped = line.strip()
        if in_legend or stripped == "NIC Legend:":
            match = _LEGEND.match(line)
            if match:
                legend[match[1]] = match[2]
            in_legend = True
            continue
        if ended or not stripped:
            ended = ended or bool(texts)
            continue
        name = stripped.split()[0]
        if name in names:
            texts.append((name, [(number, line)]))
        elif texts and _continues(stripped):
            texts[-1][1].append((number, line))
        else:
            ended = True
    bad = next((name for name in names if name.startswith("\0")), None)
    if bad is not None:
        raise _refused(file, _Word("", first, 1), f"{printable(bad[1:])!r} in the heading is not a device")
    for expected, (name, chunks) in zip(names, texts, strict=False):
        if name != expected:
            raise _refused(file, _Word("", chunks[0][0], 1), f"the row of {expected} is missing, {name} stands here")
    if not texts:
        raise _refused(file, _Word("", first, 1), "a heading without rows")
    if len(texts) > len(names):
        raise _refused(file, _Word("", texts[-1][1][0][0], 1), "more rows than devices in the heading")
    joined = [(name, _joined(chunks, joiner)) for name, chunks in texts]
    kind = "p2p" if any(re.fullmatch(_STATUS, word.text) for _, words in joined for word in words[1:]) else "level"
    pattern = re.compile(rf"X|{_STATUS if kind == 'p2p' else _LEVEL}")
    choices: list[list[_Row]] = []
    cut = 0
    for at, (name, words) in enumerate(joined):
        room = headings if name.startswith("GPU") else 0
        last = at + 1 == len(joined) and not ended
        found = list(itertools.islice(_splits(words[1:], at, len(names), room, pattern, last), _MOST))
        if not found:
            raise _refused(file, _trouble(words, len(names), room, pattern, at), _why(words, len(names), pattern, name))
        if max(len(row.cells) for row in found) < len(names):
            cut = words[-1].line
        choices.append(found)
    if len(joined) < len(names) and not cut:
        cut = joined[-1][1][-1].line
    return _chosen(joined, choices, names, file), legend, cut, kind


def _continues(stripped: str) -> bool:
    """Whether a line is the rest of the one before: pieces of cells and affinities, and nothing else."""
    words = stripped.split()
    return not _DEVICE.fullmatch(words[0]) and all(re.fullmatch(r"[A-Z0-9/,-]{1,64}", word) for word in words)


def _joined(chunks: Sequence[tuple[int, str]], joiner: str) -> list[_Word]:
    words: list[_Word] = []
    for number, line in chunks:
        for match in re.finditer(r"\S+", line):
            word = _Word(match[0], number, match.start() + 1)
            if not joiner and words and words[-1].line != number and match.start() == len(line) - len(line.lstrip()):
                words[-1] = _Word(words[-1].text + word.text, words[-1].line, words[-1].column)
            else:
                words.append(word)
    return words


def _splits(
    words: Sequence[_Word], own: int, count: int, room: int, pattern: re.Pattern[str], last: bool
) -> Iterator[_Row]:
    """Every way to read ``words`` as ``count`` cells and at most ``room`` affinities; fewer cells only in the ``last`` row.

    X is the cell ``own`` and no other. A word that is a cell is never split; the walk gives up after a number of steps.
    """
    stack: list[tuple[int, int, tuple[_Word, ...], tuple[_Word, ...]]] = [(0, 0, (), ())]
    steps = 0
    while stack and steps < 2000:
        steps += 1
        at, offset, cells, rest = stack.pop()
        if at == len(words):
            if len(cells) == count or (last and cells):
                yield _Row(list(words), list(cells), list(rest))
            continue
        word = words[at]
        text = word.text[offset:]
        place = _Word(text, word.line, word.column + offset)
        if len(cells) == count:
            if len(rest) < room and _REST.fullmatch(text):
                stack.append((at + 1, 0, cells, (*rest, place)))
            continue
        lengths = [len(text)] if pattern.fullmatch(text) else range(1, min(len(text), 5))
        for length in lengths:
            piece = text[:length]
            if pattern.fullmatch(piece) and (piece == "X") == (len(cells) == own):
                taken = (*cells, _Word(piece, word.line, word.column + offset))
                stack.append((at + 1, 0, taken, rest) if length == len(text) else (at, offset + length, taken, rest))


def _trouble(words: Sequence[_Word], count: int, room: int, pattern: re.Pattern[str], at: int) -> _Word:
    """The word that a reader should look at."""
    cells = words[1:]
    for number, word in enumerate(cells[:count]):
        if not pattern.fullmatch(word.text):
            return word
        if (word.text == "X") != (number == at):
            return word
    return cells[min(count, len(cells) - 1)] if cells else words[0]


def _why(words: Sequence[_Word], count: int, pattern: re.Pattern[str], name: str) -> str:
    for number, word in enumerate(words[1 : count + 1]):
        if number and _REST.fullmatch(word.text):
            return f"the row of {name} has {number} cells, but the heading has {count} devices"
        if not pattern.fullmatch(word.text):
            return f"{printable(word.text[:40])!r} is not a matrix cell, and cannot be split into any"
    if len(words) - 1 < count:
        return f"the row of {name} has {len(words) - 1} cells, but the heading has {count} devices"
    return f"the row of {name} does not fit the heading of {count} devices: X must be a cell of its own"


def _chosen(
    joined: Sequence[tuple[str, list[_Word]]], choices: list[list[_Row]], names: Sequence[str], file: str
) -> dict[str, _Row]:
    """The one way in which rows that were glued fit those that were not."""
    sure = {at for at, found in enumerate(choices) if len(found) == 1}
    changed = True
    while changed:
        changed = False
        for at, found in enumerate(choices):
            if at in sure:
                continue
            fitting = [
                row
                for row in found
                if all(
                    row.cells[other].text == choices[other][0].cells[at].text
                    for other in sure
                    if other < len(row.cells) and at < len(choices[other][0].cells)
                )
            ]
            if len(fitting) == 1:
                choices[at] = fitting
                sure.add(at)
                changed = True
            elif not fitting:
                word = joined[at][1][-1]
                raise _refused(
                    file, word, f"glued cells of {joined[at][0]} cannot be split so that the matrix is symmetric"
                )
    if len(sure) < len(choices):
        at = min(set(range(len(choices))) - sure)
        word = next((word for word in joined[at][1][1:] if len(word.text) > 4), joined[at][1][0])
        raise _refused(file, word, f"{printable(word.text[:40])!r} can be split in several ways")
    return {name: found[0] for (name, _), found in zip(joined, choices, strict=True)}


def _check_symmetric(rows: dict[str, _Row], names: Sequence[str], file: str) -> None:
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        here, there = _cell(rows, one, j), _cell(rows, other, i)
        if here and there and here.text != there.text:
            what = f"{other} to {one} is {there.text}, and {one} to {other} in line {here.line} is {here.text}"
            raise _refused(file, there, what)


def _gpu(name: str, row: _Row | None, headings: Sequence[str]) -> Gpu:
    gpu = Gpu(name, int(name[3:]))
    words = [word.text for word in row.rest] if row else []
    if len(words) != len(headings):
        # Which of the cells is empty cannot be told: they are known only up to the first that is missing.
        words = words[:1] if headings[:1] == ["CPU Affinity"] and words else []
    told = dict(zip(headings, words, strict=False))
    cpus, nodes, memory = (told.get(heading, "N/A") for heading in HEADINGS)
    try:
        if cpus != "N/A":
            cpu_set(cpus)
            gpu.cpus = cpus
        if nodes != "N/A":
            # A list on Grace: the node of the CPUs, then nodes that have memory of GPUs only, which come after those.
            gpu.numa, gpu.numa_text = min(cpu_set(nodes)), nodes
    except ValueError:
        pass  # N/A as good as
    gpu.memory_node = int(memory) if memory.isdecimal() else None
    return gpu
