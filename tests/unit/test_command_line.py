"""The grammar of the command line: one meaning for a name, formats by endings, and mistakes that are said at once."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from gotrace.cli.main import group, main
from gotrace.cli.options import TOPICS, Command, Duration

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
GOTRACE = [sys.executable, "-m", "gotrace.cli"]
COMMANDS = group.list_commands(click.Context(group))  # type: ignore[attr-defined]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONIOENCODING")}
    command = [*GOTRACE, *map(str, arguments)]
    return subprocess.run(command, cwd=RECORDINGS, env={**inherited, **environment}, capture_output=True, timeout=120)


def on_terminal(columns: int, *arguments: str, **environment: str) -> list[str]:
    """The lines that a command prints to a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [*GOTRACE, *arguments], cwd=RECORDINGS, env={**inherited, **environment}, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end was closed
            while part := os.read(ours, 1 << 16):
                shown += part
    os.close(ours)
    assert child.returncode == 0, shown
    return re.sub(r"\x1b\[\d+m", "", shown.decode()).splitlines()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: its status, standard output and standard error."""
    monkeypatch.chdir(RECORDINGS)
    monkeypatch.setenv("COLUMNS", "80")

    def run_here(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run_here


def command_named(name: str) -> Command:
    found = group.get_command(click.Context(group), name)  # type: ignore[attr-defined]
    assert isinstance(found, Command)
    return found


def test_an_option_means_the_same_in_every_command() -> None:
    meanings: dict[str, set[Any]] = defaultdict(set)
    for name in COMMANDS:
        for param in command_named(name).params:
            if isinstance(param, click.Option):
                for flag in param.opts:
                    kind = sorted(param.opts), param.name, type(param.type).__name__, param.is_flag, param.nargs
                    meanings[flag].add(str(kind))
    # baseline starts a container from an image; every other command means one that runs
    assert {flag for flag, kinds in meanings.items() if len(kinds) > 1} == {"--container"}
    assert len(meanings["--container"]) == 2
    assert {"-p", "-d", "-i", "-e", "-f", "-n", "-o", "-w"} == {flag for flag in meanings if len(flag) == 2}


def test_a_process_by_its_pid_or_its_name() -> None:
    """What docs/commands/index.md says of all commands, and of those that are exceptions."""
    whole, less = {"name", "container", "unit"}, {"import": set(), "top": {"name"}, "baseline": {"name", "unit"}}
    for name in COMMANDS:
        options = {param.name for param in command_named(name).params}
        if "pid" in options:
            assert options & whole == less.get(name, whole), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_is_whole_and_fits(name: str, here: Callable[..., tuple[int, str, str]]) -> None:
    status, text, _ = here(name, "--help")
    assert status == 0
    command = command_named(name)
    examples = text.split("Examples:\n")[1].splitlines()
    assert [line.strip() for line in examples[::2]] == [line for line, _ in command.examples]
    assert len(command.examples) == 2 and all(line.split()[0] in ("gotrace", "perf") for line, _ in command.examples)
    assert all(len(line) <= 80 or line.strip() in dict(command.examples) for line in text.splitlines())
    assert command.topic in TOPICS
    short = command.short_help or ""
    assert re.fullmatch(r"[A-Z].{10,64}\.", short) and "..." not in short
    assert here("help", name) == (0, text, "")


def test_help_lists_every_command_by_topic() -> None:
    text = run("--help", COLUMNS="80").stdout.decode()
    assert run("help", COLUMNS="80").stdout.decode() == text == run(COLUMNS="80").stdout.decode()
    places = [text.index(f"\n{title}:\n") for title in TOPICS.values()]
    assert places == sorted(places)
    assert re.findall(r"^  ([a-z0-9]+)  +[A-Z].*\.$", text, re.MULTILINE) == [
        name for topic in TOPICS for name in COMMANDS if command_named(name).topic == topic
    ]


def test_help_of_a_command_within_another() -> None:
    """By its two words, or by the name of its manual page."""
    text = run("coldstart", "compare", "--help").stdout
    assert text.startswith(b"Usage: gotrace coldstart compare ")
    assert run("help", "coldstart", "compare").stdout == run("help", "coldstart-compare").stdout == text


def test_an_unknown_command_is_told_the_nearest() -> None:
    for arguments in (["repotr"], ["help", "repotr"], ["help", "repo-rt"]):
        done = run(*arguments)
        assert done.returncode == 2 and b"did you mean `gotrace report`?" in done.stderr
    assert b"`gotrace help` lists the commands" in run("xyzzy").stderr


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10**10),
        ("1m30s", 90 * 10**9),
        ("1h2m3.5s", 3_723_500_000_000),
        ("250ms", 250_000_000),
        ("100us", 100_000),
        ("100µs", 100_000),
        ("1.5h", 5400 * 10**9),
        ("7", 7 * 10**9),
        (".5", 5 * 10**8),
        ("0", 0),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert Duration().convert(text, None, None) == ns


@pytest.mark.parametrize("text", ["", "1x", "s", "1s2", "-1s", "1 s", "1e3", "ten", "1m 30s", "nan", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match=re.escape(f"invalid duration {text!r}")):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gc --pid 1 --pid 2", "--pid was given twice"),
        ("gc --pid 1 -p 2", "--pid was given twice"),
        ("gc --pid 1 -- true", "give either --pid PID or a command after `--`"),
        ("gc --pid 1 -i 0", "--interval must be greater than 0"),
        ("gc --pid 1 -d 0s", "--duration must be greater than 0"),
        ("gc --pid 1 --top 3", "--top has no effect without --explain"),
        ("gc --pid 1 --min-pause 1ms", "--min-pause has no effect without ndjson or json output"),
        ("gc --pid 1 -o x.svg", 'cannot infer the format from "x.svg"'),
        ("gc --pid 1 -o x.csv", 'cannot infer the format from "x.csv"'),
        ("gc --pid 1 -o a.gotrace -o b.gotrace", "only one recording can be written at a time"),
        ("gc --pid 1 -o x.json -o ./x.json", "two outputs go to the same file"),
        ("gc --pid 1 -o - -o -", "two outputs both go to standard output"),
        ("mem --pid 1 -i 1s", "--interval has no effect without --duration"),
        ("mem --pid 1 --faults --cycles", "--faults and --cycles are mutually exclusive"),
        ("mem --pid 1 --faults --classes 3", "--classes applies to snapshots"),
        ("mem --pid 1 -o x.svg", 'cannot infer the format from "x.svg"'),
        ("flame all.gotrace --on-cpu --off-cpu -o x.svg", "--on-cpu and --off-cpu are mutually exclusive"),
        ("flame all.gotrace -d 1s -o x.svg", "--duration has no effect without --pid"),
        ("flame all.gotrace --hz 10 -d 1s -o x.svg", "--duration and --hz have no effect without --pid"),
        ("flame all.gotrace -o x.png", 'cannot infer the format from "x.png"'),
        ("flame all.gotrace -o x.gotrace", 'cannot infer the format from "x.gotrace"'),
        ("flame all.gotrace -o -", "cannot infer the format from standard output"),
        ("flame all.gotrace --format svg -o x.folded", "--format svg contradicts the extension of x.folded"),
        ("flame --pid 1 --off-cpu --hz 10 -o x.svg", "--hz applies to CPU samples"),
        ("export gc.gotrace -i 1s -o x.csv", "--interval has no effect without hlog output"),
        ("export gc.gotrace -o x.png", 'cannot infer the format from "x.png"'),
        ("record --pid 1 -o x.data", 'cannot infer the format from "x.data"'),
        ("record --pid 1 --hz 10 -o x.gotrace", "--hz has no effect without --probes profile"),
        ("record -o - -- true", "standard output is the command's"),
        ("import x.txt -o x.data", 'cannot infer the format from "x.data"'),
        ("report mem.gotrace --explain", "--explain applies to pauses, and this is a recording of memory"),
        ("report coldstart.gotrace -i 1s", "--interval applies to pauses, and this is a recording of starts"),
        ("report coldstart.gotrace -o x.hgrm", "a report of starts cannot be written as hgrm"),
        ("report gc.gotrace -o x.svg", "a report of pauses cannot be written as svg"),
        ("report gc.gotrace --top 2", "--top has no effect without --explain"),
        ("coldstart --sort duration --format json -- true", "--sort has no effect without a table"),
        ("tail --pid 1 --pid 1", "--pid was given twice"),
        ("tail --pid 1 -o x.gotrace", 'cannot infer the format from "x.gotrace"'),
        ("doctor -o x.ndjson", 'cannot infer the format from "x.ndjson"'),
        ("doctor x.json -o ./x.json", "two outputs go to the same file"),
        ("coldstart compare a.gotrace b.gotrace --all --format json", "--all has no effect without a table"),
        ("coldstart compare a.gotrace x.json -o ./x.json --force", "two outputs go to the same file"),
        ("tlb --pid 1 -e nonsense", "there is no event 'nonsense' here"),
        ("numa --pid 1 -e dtlb_wlak", "there is no event 'dtlb_wlak' here"),
    ],
)
def test_mistakes_are_said_at_once(arguments: str, message: str, here: Callable[..., tuple[int, str, str]]) -> None:
    status, printed, complaint = here(*arguments.split())
    said, hint = complaint.splitlines()
    assert (status, printed, said) == (2, "", f"gotrace: {message}") and hint.startswith("  hint: ")
    assert not [path for path in RECORDINGS.iterdir() if path.name.startswith("x.")]


def test_formats_come_from_endings(tmp_path: Path) -> None:
    names = ["x.txt", "x.ndjson", "x.json", "x.hlog", "x.hgrm"]
    done = run("report", "gc.gotrace", *(part for name in names for part in ("-o", tmp_path / name)))
    assert done.returncode == 0
    assert (tmp_path / "x.txt").read_bytes() == done.stdout
    lines = [json.loads(line) for line in (tmp_path / "x.ndjson").read_text().splitlines()]
    assert json.loads((tmp_path / "x.json").read_text()) == lines
    assert "HdrHistogram" in (tmp_path / "x.hlog").read_text() or "#[" in (tmp_path / "x.hlog").read_text()
    assert "#[Mean" in (tmp_path / "x.hgrm").read_text()
    wrote = [line.split(" (")[0] for line in done.stderr.decode().splitlines()]
    assert wrote == [f"wrote {tmp_path / name}" for name in names]


def test_hidden_options_are_outputs_too(tmp_path: Path) -> None:
    done = run("report", "gc.gotrace", "--hlog", tmp_path / "a", "--hgrm", tmp_path / "b")
    run("report", "gc.gotrace", "-o", tmp_path / "a.hlog", "-o", tmp_path / "b.hgrm")
    assert done.returncode == 0
    for name in ("a", "b"):
        (one,) = tmp_path.glob(f"{name}.*")
        assert (tmp_path / name).read_bytes() == one.read_bytes()


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    for command in ("export all.gotrace", "flame all.gotrace"):
        written = run(*command.split(), "-o", tmp_path / "x.folded", "--force")
        assert run(*command.split(), "--format", "folded", "-o", "-").stdout == (tmp_path / "x.folded").read_bytes()
        assert written.stdout == b""
    assert run("report", "gc.gotrace", "-o", "-").stdout == run("report", "gc.gotrace").stdout
    assert not (RECORDINGS / "-").exists()


def test_export_writes_several_formats_at_once(tmp_path: Path) -> None:
    done = run("export", "gc.gotrace", "-o", tmp_path / "x.csv", "-o", tmp_path / "x.hlog", "-i", "100ms")
    assert done.returncode == 0 and done.stderr.decode().count("wrote ") == 2
    assert (tmp_path / "x.csv").read_bytes() == run("export", "gc.gotrace", "--format", "csv", "-o", "-").stdout


@pytest.mark.parametrize(
    ("name", "ending", "message"),
    [
        ("gc-1.19", "folded", "gc-1.19.gotrace has no on-cpu stacks"),
        ("mem", "svg", "mem.gotrace has no on-cpu stacks"),
        ("numa", "perfetto", "numa.gotrace has no GC events"),
        ("cycles", "hlog", "cycles.gotrace has no durations"),
        ("coldstart", "hgrm", "coldstart.gotrace has no GC events"),
        ("perf", "perfetto", "perf.gotrace has no GC events"),
    ],
)
def test_nothing_is_exported_before_everything_can_be(
    name: str, ending: str, message: str, tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    first, second = str(tmp_path / "x.csv"), str(tmp_path / f"x.{ending}")
    status, printed, complaint = here("export", f"{name}.gotrace", "-o", first, "-o", second)
    hint = "it was recorded by perf: use gotrace flame" if name == "perf" else "record"
    assert (status, printed) == (1, "") and complaint.startswith(f"gotrace: {message}\n  hint: {hint}")
    assert list(tmp_path.iterdir()) == []


def test_durations_that_are_not_there_are_missed_before_anything_is_written(
    tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "perf.txt").write_text("app 7 [000] 1.000000: 1 cpu-clock: \n\t55d0c0de main (/app)\n\n")
    recording, first, second = (str(tmp_path / name) for name in ("run.gotrace", "x.csv", "x.hgrm"))
    assert here("import", str(tmp_path / "perf.txt"), "-o", recording)[0] == 0
    status, _, complaint = here("export", recording, "-o", first, "-o", second)
    assert status == 1 and "has no durations" in complaint and not Path(first).exists()


def test_outputs_in_folders_that_are_not_there(tmp_path: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    first, second = str(tmp_path / "x.csv"), str(tmp_path / "none" / "x.hlog")
    status, _, complaint = here("export", "gc.gotrace", "-o", first, "-o", second)
    assert status == 1 and f"cannot write {second}: No such file or directory" in complaint
    assert list(tmp_path.iterdir()) == []
    for second in ("/proc/x.hlog", f"{tmp_path}/{'x' * 300}.hlog"):  # the folder is there, and takes no such file
        status, _, complaint = here("export", "gc.gotrace", "-o", first, "-o", second)
        assert status == 1 and f"cannot write {second}: " in complaint and list(tmp_path.iterdir()) == []
    status, _, complaint = here("report", str(tmp_path / "none" / "x.gotrace"))
    assert status == 1 and "cannot write" not in complaint


@pytest.mark.parametrize("arguments", ["doctor", "doctor gc.gotrace", "coldstart compare coldstart.gotrace {same}"])
def test_tables_in_files(arguments: str, tmp_path: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    """What the screen shows, and the same as JSON."""
    same = tmp_path / "same.gotrace"
    same.write_bytes((RECORDINGS / "coldstart.gotrace").read_bytes())
    words, text, array = arguments.format(same=same).split(), tmp_path / "x.txt", tmp_path / "x.json"
    status, printed, _ = here(*words, "-o", str(text), "-o", str(array))
    assert status == here(*words)[0] and len(printed.splitlines()) > 3
    assert text.read_text() == printed
    _, as_json, _ = here(*words, "--format", "json")
    assert json.loads(as_json).keys() == json.loads(array.read_text()).keys()
    assert here(*words, "-o", str(text))[0] == 1 and text.read_text() == printed


def test_a_difference_names_its_sides(tmp_path: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    """Two recordings of one program have the same title."""
    other, namesake = tmp_path / "later.gotrace", tmp_path / "all.gotrace"
    for path, title in (
        (other, "all.gotrace compared with later.gotrace: "),
        (namesake, f"all.gotrace compared with {namesake}: "),
    ):
        path.write_bytes((RECORDINGS / "all.gotrace").read_bytes())
        status, _, said = here("flame", "--diff", "all.gotrace", str(path), "-o", str(tmp_path / "x.html"), "--force")
        assert status == 0
        (one, program, *_), (two, same, *_) = (line.split(": ") for line in said.splitlines()[:2])
        assert (one, two) == ("all.gotrace", str(path)) and program == same
        assert f"<title>{title}{program}: on-CPU</title>" in (tmp_path / "x.html").read_text()


def test_what_to_record_for_stragglers(here: Callable[..., tuple[int, str, str]]) -> None:
    """Both commands do: that of raw events, and the one that was used without a flag."""
    for arguments in (
        ["flame", "gc-1.19.gotrace", "--straggler", "-o", "x.svg"],
        ["report", "gc-1.19.gotrace", "--explain"],
    ):
        status, _, complaint = here(*arguments)
        assert status == 1
        assert "gotrace gc --explain -o FILE.gotrace, or gotrace baseline --explain" in complaint


README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    ("data", "said", "command"),
    [
        (README.read_bytes(), "could not be parsed; the first is line 3: **Why did", "perf script > perf-script.txt"),
        (b"", "no samples found in", "perf script > perf-script.txt"),
        (b"PERFILE2" + bytes(100), "is perf's own data", "perf script -i {file} > {file}.txt"),
        (gzip.compress(b"app 7 1.000000: cpu-clock:", mtime=0), "is compressed by gzip", "gunzip -c {file} > {file}.txt"),
        ("app 7 1.000000: cpu-clock:".encode("utf-16"), "is UTF-16", "iconv -f UTF-16 -t UTF-8 {file} > {file}.txt"),
    ],
)
def test_what_is_no_output_of_perf(
    data: bytes, said: str, command: str, tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    file, out = tmp_path / "a file", tmp_path / "x.gotrace"
    file.write_bytes(data)
    status, _, complaint = here("import", str(file), "-o", str(out))
    assert status == 1 and not out.exists()
    message, hint = complaint.splitlines()
    assert said in message and hint.endswith(command.replace("{file}.txt", f"'{file}.txt'").format(file=f"'{file}'"))


def test_text_in_which_something_looks_like_samples(tmp_path: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    """Most of it does not: a program, for example, in which some lines have a number before a colon."""
    file, out = tmp_path / "session.py", tmp_path / "x.gotrace"
    file.write_bytes(b"app 7 1.000000: cpu-clock: \n" + README.read_bytes())
    status, _, complaint = here("import", str(file), "-o", str(out))
    assert status == 1 and f"{file} is not the output of `perf script`: " in complaint and not out.exists()


REPORTS = ["gc", "gc --explain", "gc-1.19", "all --explain", "mem", "cycles", "faults", "numa", "tlb", "coldstart"]


@pytest.mark.parametrize(
    ("report", "columns"), [*((each, 80) for each in REPORTS), ("gc", 100), ("mem", 100), ("tlb", 200), ("coldstart", 60)]
)
def test_nothing_is_wider_than_the_terminal(report: str, columns: int) -> None:
    name, *options = report.split()
    lines = on_terminal(columns, "report", f"{name}.gotrace", *options)
    assert len(lines) > 3
    assert [line for line in lines if len(line) > columns and " " in line.strip()] == []


def test_a_wide_terminal_shows_every_column_and_so_does_a_pipe() -> None:
    wide, narrow = (set(" ".join(on_terminal(each, "report", "gc.gotrace")).split()) for each in (200, 60))
    assert {"p99.9", "longest"} <= wide and not {"p99.9", "longest"} & narrow
    piped = run("report", "gc.gotrace", COLUMNS="60").stdout.decode().splitlines()
    assert piped == on_terminal(1000, "report", "gc.gotrace")
    assert on_terminal(200, "report", "gc.gotrace", COLUMNS="60") == on_terminal(60, "report", "gc.gotrace")


@pytest.mark.started  # Python takes its encoding when it starts
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("report", ["gc --explain", "mem", "coldstart"])
def test_no_encoding_loses_a_result(report: str, encoding: str) -> None:
    name, *options = report.split()
    plain = run("report", f"{name}.gotrace", *options)
    done = run("report", f"{name}.gotrace", *options, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, plain.stderr)
    lines, expected = done.stdout.decode(encoding).splitlines(), plain.stdout.decode().splitlines()
    assert len(lines) == len(expected)
    assert all(line == other for line, other in zip(lines, expected, strict=True) if other.isascii())


_INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
after_s, *sys.argv = sys.argv[1:]
import gotrace.cli
signal.setitimer(signal.ITIMER_REAL, float(after_s))
runpy.run_module("gotrace.cli", run_name="__main__")
"""


@pytest.mark.parametrize("after_ms", [10, 30, 60, 100, 150, 220, 300])
def test_an_early_ctrl_c_is_quiet(after_ms: int) -> None:
    """That early the modules are still being imported: counted from when Python itself has started."""
    command = [sys.executable, "-c", _INTERRUPTED, str(after_ms / 1000), "gotrace", "report", "all.gotrace", "--explain"]
    done = subprocess.run(command, cwd=RECORDINGS, capture_output=True, text=True, timeout=60)
    # 0: it was faster; or only Python was there, at its end, and our handler was not
    assert done.stderr.strip() == "" and done.returncode in (130, -signal.SIGINT, 0, -signal.SIGALRM)


# A Ctrl-C that comes while a process is being forked is raised in what modules have registered for that: logging has.
_INTERRUPTED_IN_A_FORK = """
import os, signal, time
from gotrace.cli.main import group, main
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
group.main = lambda **_: (os.fork() or os._exit(0), time.sleep(120))
main()
"""


def test_a_ctrl_c_in_a_fork_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IN_A_FORK], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_long_wait_shows_life_on_a_terminal() -> None:
    code = "from gotrace.cli.text.progress import waiting\nwith waiting('tracing starts') as tell:\n tell('3 of 60')"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert b"tracing starts: 3 of 60" in shown
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""


def test_a_signal_takes_nothing_from_what_is_printed():
    """Python without a buffer writes what the pipe takes, and forgets the rest if a signal comes then."""
    code = (
        "import signal, sys; from gotrace.cli.main import _prepare_streams; _prepare_streams();"
        "signal.signal(signal.SIGINT, lambda *_: None); print('.', flush=True); print('x' * 10**6)"
    )
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout.read(2) == b".\n"
        for _ in range(5):
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        assert len(process.stdout.read()) == 10**6 + 1


def test_a_full_disk_at_the_other_end():
    """One message, and no complaint of the interpreter's at its exit."""
    for words in (["--version"], ["ps", "--help"], ["serve", "--systemd"], ["gc", "--json-schema"], ["doctor"]):
        with open("/dev/full", "w") as file:
            done = subprocess.run([*GOTRACE, *words], stdout=file, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 1, (words, done.stderr)
        first, second = done.stderr.splitlines()
        whole = words != ["gc", "--json-schema"]  # that is more than a buffer holds, and nothing of it is left to write
        assert first == f"gotrace: {'cannot write standard output: ' * whole}No space left on device", words
        assert second.startswith("  hint: "), words


def test_an_interruption_into_a_pipe_that_nobody_reads():
    """However often: it ends as interrupted, and without a traceback."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write_end, b"x" * 4096)
    process = subprocess.Popen([*GOTRACE, "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    while "pipe_write" not in Path(f"/proc/{process.pid}/wchan").read_text():
        time.sleep(0.05)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.stderr is not None and process.stderr.read().strip() == ""
    assert process.returncode == 130
    os.close(read_end)
    os.close(write_end)
