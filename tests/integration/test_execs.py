"""What becomes of a program that executes another: it goes its own way, unharmed, and what it becomes is traced."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import pytest

import targets
from conftest import GOTRACE, until
from gotrace.kernel import ptrace
from groundtruth import gctrace, rendered

pytestmark = pytest.mark.bpf

OLDEST, MIDDLE, NEWEST = targets.MATRIX[0], "1.22.10", targets.NEWEST
SHELL = 'sleep 0.2; echo done; echo kept > "$KEPT"; exit 7'


def execer(*arguments, version=NEWEST, flavour="stripped"):
    return [str(targets.build("execer", version, flavour)), *arguments]


PIE = {"flavour": "pie-stripped"}

# what is executed one after the other
CHAINS = {
    "from the first thread": lambda: [*execer("-cycles", "20"), *execer("-cycles", "30", "-exit", "5")],
    "from another thread": lambda: [*execer("-cycles", "20", "-thread"), *execer("-cycles", "30", "-exit", "5")],
    "twice in a row": lambda: [*execer("-cycles", "20"), *execer("-cycles", "0", "-thread"), *execer("-cycles", "30")],
    "position-independent": lambda: [
        *execer("-cycles", "20", **PIE),
        *execer("-cycles", "10", "-thread", **PIE),
        *execer("-cycles", "30", "-exit", "5", **PIE),
    ],
    "older and older": lambda: [
        *execer("-cycles", "20", "-thread"),
        *execer("-cycles", "10", version=MIDDLE),
        *execer("-cycles", "30", "-exit", "5", version=OLDEST),
    ],
    "newer and newer": lambda: [
        *execer("-cycles", "20", version=OLDEST),
        *execer("-cycles", "10", "-thread", version=MIDDLE),
        *execer("-cycles", "30", "-exit", "5"),
    ],
    "another program": lambda: [*execer("-cycles", "20", "-thread"), "/bin/sh", "-c", SHELL],
    "by way of another program": lambda: [*execer("-cycles", "20"), "/usr/bin/env", *execer("-cycles", "30", "-exit", "5")],
    "a missing file": lambda: execer("-cycles", "20", "/no/such/program"),
    "a missing file, from another thread": lambda: execer("-cycles", "20", "-thread", "/no/such/program"),
}
everywhere = pytest.mark.everywhere


def chains(*elsewhere, thoroughly=()):
    """Every kind of chain; those named are run on ARM64 too, where kernel, probes and registers differ."""
    marks = {**dict.fromkeys(elsewhere, [everywhere]), **dict.fromkeys(thoroughly, [everywhere, pytest.mark.thorough])}
    return pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks.get(kind, [])) for kind in CHAINS])


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A file that a program may write, and every program's own word on its collections."""
    monkeypatch.setenv("KEPT", str(tmp_path / "kept"))
    monkeypatch.setenv("GODEBUG", "gctrace=1")
    return tmp_path / "kept"


def result(kept, status, stdout):
    """What a command leaves behind."""
    text = kept.read_text() if kept.exists() else ""
    kept.unlink(missing_ok=True)
    return status, stdout, text


def untraced(kept, command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result(kept, done.returncode, done.stdout)


def by_program(records):
    """The cycles of each program that was traced."""
    programs = []
    for record in records:
        if record["type"] == "start":
            programs.append([])
        elif record["type"] == "cycle":
            programs[-1].append(record)
    return programs


def logged(kept, command):
    """The same, with what the runtime prints in a file, where our own words do not tear it; and that file."""
    at = next(number for number, word in enumerate(command) if word.endswith("/execer")) + 1
    log = kept.with_name("log")
    return [*command[:at], "-log", str(log), *command[at:]], log


def check_cycles(programs, stdout, log):
    """Each program's cycles are those that it counted itself, and what its runtime printed of them."""
    stderr = log.read_text()
    counted = [int(number) for number in re.findall(r"collected (\d+)", stdout)]
    assert [len(cycles) for cycles in programs] == counted
    logs = [gctrace(text) for text in re.split(r"^(?=gc 1 @)", stderr, flags=re.MULTILINE) if "gc 1 @" in text]
    assert [[rendered(cycle) for cycle in cycles] for cycles in programs if cycles] == [list(log.values()) for log in logs]


@chains("from the first thread", "position-independent", thoroughly=("newer and newer", "another program"))
def test_launched(kind, kept, trace):
    command, log = logged(kept, CHAINS[kind]())
    plain = untraced(kept, command)
    tracer = trace(command=tuple(command))
    assert result(kept, tracer.finish(), tracer.stdout) == plain
    check_cycles(by_program(tracer.records), tracer.stdout, log)
    summaries = tracer.of("summary")
    last = "target executed another program" if kind == "another program" else "target exited"
    assert [one["ended"] for one in summaries] == ["target executed another program"] * (len(summaries) - 1) + [last]
    assert all(one["events"]["lost"] == 0 and one["duration_ns"] > 0 for one in summaries)
    if kind == "another program":
        assert len(re.findall(r"executed \S+, which is not traced: it is not a Go program", tracer.stderr)) == 1


@chains("from another thread", "older and older", "by way of another program")
def test_of_a_pid(kind, kept, start, trace):
    """The target is not ours: what is no Go program ends the tracing, and lives."""
    first, *rest = CHAINS[kind]()
    target = start(first, "-wait", *rest)
    tracer = trace("--pid", str(target.pid))
    target.go()
    stdout, _ = target.process.communicate(timeout=60)
    assert tracer.finish() == 0, tracer.stderr
    plain = untraced(kept, [first, *rest])
    assert (target.process.returncode, stdout) == plain[:2]
    log = target.stderr
    if kind == "by way of another program":  # what comes behind it is nobody's business any more
        stdout = stdout.splitlines()[0]
        log.write_text(log.read_text()[: log.read_text().rfind("gc 1 @")])
    check_cycles(by_program(tracer.records), stdout, log)


@pytest.mark.parametrize("kind", ["from another thread", "position-independent", "newer and newer", "another program"])
def test_recorded(kind, kept, gotrace, tmp_path):
    """A recording of each program."""
    command, log = logged(kept, CHAINS[kind]())
    plain = untraced(kept, command)
    path = tmp_path / "run.gotrace"
    done = gotrace("record", "--probes", "gc", "-o", str(path), "--", *command)
    assert result(kept, done.returncode, done.stdout) == plain, done.stderr
    paths = [path, *sorted(tmp_path.glob("run.*.gotrace"))]
    records = []
    for each in paths:
        report = gotrace("report", str(each), "--format", "ndjson")
        records += [json.loads(line) for line in report.stdout.splitlines()]
        assert f"wrote {each} (" in done.stderr
    check_cycles(by_program(records), done.stdout, log)


@pytest.mark.parametrize(
    "launcher",
    [
        ["env", "-u", "NOTHING"],
        ["nice", "-n", "1"],
        ["timeout", "60"],
        ["sh", "-c", 'exec "$0" "$@"'],
        ["sh", "-c", '"$0" "$@"; status=$?; echo after; exit $status'],
        pytest.param(["nice", "env", "sh", "-c", 'true; cat /dev/null; exec timeout 60 "$0" "$@"'], marks=everywhere),
        [
            sys.executable,
            "-c",
            "import os, sys, threading\nthreading.Thread(target=os.execv, args=(sys.argv[1], sys.argv[1:])).start()",
        ],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_launchers(launcher, kept, trace):
    """The first Go program that a launcher executes is the target, from its first instruction."""
    command, log = logged(kept, [*launcher, *execer("-cycles", "30", "-exit", "5")])
    plain = untraced(kept, command)
    assert plain[0] == 5
    tracer = trace(command=tuple(command))
    assert result(kept, tracer.finish(), tracer.stdout) == plain
    check_cycles(by_program(tracer.records), tracer.stdout, log)
    assert tracer.of("start")[0]["exe"].endswith("/execer")


def test_no_go_program_at_all(kept, gotrace):
    done = gotrace("gc", "--", "sh", "-c", SHELL)
    assert result(kept, done.returncode, done.stdout) == (7, "done\n", "kept\n")
    assert "sh executed no Go program\n" in done.stderr


def test_a_program_that_a_script_leaves_in_the_background(kept, trace):
    """It starts after the script has ended, and is traced to its end."""
    command, log = logged(kept, ["sh", "-c", '(sleep 1; exec "$0" "$@") &', *execer("-cycles", "20")])
    tracer = trace(command=tuple(command))
    assert tracer.finish() == 0
    check_cycles(by_program(tracer.records), tracer.stdout, log)
    assert tracer.of("summary")[0]["ended"] == "target exited"


def test_what_a_script_leaves_in_the_background_may_never_start_one(gotrace):
    """A daemon that has nothing to do with it is not waited for until it ends."""
    began = time.monotonic()
    done = gotrace("gc", "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!")
    assert time.monotonic() - began < 50
    os.kill(int(done.stdout), signal.SIGTERM)  # it was not ended, and the script did well
    assert done.returncode == 0 and "sh executed no Go program, nor did what it left in the background" in done.stderr
    assert done.stderr.count("sh has exited, but left processes running: waiting up to 10 s ") == 1


@pytest.mark.parametrize("command", [["gc"], ["coldstart", "--exe", str(targets.build("lifecycle")), "-n", "3"]])
def test_ctrl_c_ends_waiting_for_what_a_script_leaves_in_the_background(command):
    script = ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]
    with subprocess.Popen([*GOTRACE, *command, "--", *script], stdout=PIPE, stderr=PIPE, text=True) as traced:
        while "waiting up to 10 s" not in traced.stderr.readline():
            assert traced.poll() is None
        began = time.monotonic()
        traced.send_signal(signal.SIGINT)
        pid, _ = traced.communicate(timeout=60)
        assert time.monotonic() - began < 5
    os.kill(int(pid), signal.SIGTERM)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["--duration", "Ctrl-C"])
@pytest.mark.parametrize(
    "launcher", [["timeout", "60"], ["sh", "-c", '"$0" "$@"; echo never'], []], ids=["timeout", "sh", "none"]
)
def test_what_ends_a_command(how, launcher, trace, tmp_path):
    """--duration and Ctrl-C do, whatever it has become, and nothing of it stays."""
    told = tmp_path / "pid"
    sleeper = ["/bin/sh", "-c", f"echo $$ > {told}.new; mv {told}.new {told}; exec sleep 100"]
    command = [*launcher, *execer("-cycles", "20"), *sleeper]
    tracer = trace(*(["--duration", "1s"] if how == "--duration" else []), command=tuple(command))
    until(told.exists, 30)
    if how == "Ctrl-C":
        tracer.interrupt()
    assert tracer.finish() == 0
    assert tracer.stdout == "collected 20\n"
    until(lambda: not alive(int(told.read_text())))


def test_an_output_that_cannot_be_written_ends_the_tracing_only(kept, gotrace):
    command = ["sh", "-c", f'"$0" "$@"; {SHELL}', *execer("-cycles", "20")]
    done = gotrace("gc", "--format", "ndjson", "-o", "/dev/full", "--force", "--", *command)
    assert done.returncode == 7 and "No space left" in done.stderr
    assert (done.stdout, kept.read_text()) == ("collected 20\ndone\n", "kept\n")


def test_a_program_that_ends_before_its_probes_are_set(kept, gotrace):
    """Behind a tracer of its own it cannot be held: its status is passed on, and nothing is set in what it executes."""
    for _ in range(5):
        command = [*execer("-cycles", "0"), *execer("-cycles", "1", "-exit", "3", version=MIDDLE)]
        done = gotrace("gc", "--", "strace", "-o", "/dev/null", *command)
        assert (done.returncode, done.stdout) == (3, "collected 0\ncollected 1\n"), done.stderr


def test_a_short_program_that_another_program_starts(kept, gotrace):
    done = gotrace("gc", "--", *execer("-cycles", "1", "/bin/sh", "-c", '"$0" -cycles 2 -exit 9', *execer()))
    assert (done.returncode, done.stdout) == (9, "collected 1\ncollected 2\n"), done.stderr


def test_cold_start_of_what_executes_another(kept, gotrace):
    """A start that an execve cuts off does not end the command."""
    command = [*execer("-cycles", "1"), *execer("-cycles", "2", "-exit", "7", version=MIDDLE)]
    done = gotrace("coldstart", "--until", "exit", "--", *command)
    assert (done.returncode, done.stdout) == (7, "collected 1\ncollected 2\n"), done.stderr


def test_closed_streams(kept, gotrace):
    for closed in ("1>&-", "2>&-"):
        line = f"{' '.join([*GOTRACE, 'gc', '--', *execer('-cycles', '1', '-exit', '4')])} {closed}"
        assert subprocess.run(["sh", "-c", line], capture_output=True, timeout=60).returncode == 4, closed
    line = " ".join([*GOTRACE, "gc", "--", "sh", "-c", "'echo x > $KEPT; exit 6'", "2>/dev/full"])
    assert subprocess.run(["sh", "-c", line], capture_output=True, timeout=60).returncode == 6
    assert kept.read_text() == "x\n"


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("who", ["gotrace", pytest.param("all of it", marks=[everywhere, pytest.mark.thorough])])
def test_killed_while_a_program_is_held(who, start, tmp_path):
    """kill -9 just when the target is stopped inside its execve: it runs on."""
    first, *rest = execer("-wait", "-cycles", "1")
    target = start(first, *rest, *execer("-cycles", "30", "-exit", "5", version=MIDDLE))
    environment = {**os.environ, "GOTRACE_CACHE": str(tmp_path)}  # with nothing in it, the program is held for long
    tracer = subprocess.Popen(
        [*GOTRACE, "gc", "--pid", str(target.pid)],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )
    assert tracer.stderr is not None and "Tracing" in tracer.stderr.readline()
    target.go()
    until(lambda: state(target.pid) == "t", 30)
    if who == "gotrace":
        tracer.kill()
    else:
        os.killpg(tracer.pid, signal.SIGKILL)
    tracer.wait()
    tracer.stderr.close()
    stdout, _ = target.process.communicate(timeout=60)
    assert (target.process.returncode, stdout) == (5, "collected 1\ncollected 30\n")


@everywhere
def test_killed_while_it_is_stopped(start):
    """What is stopped and then killed, with all its threads, can be waited for once it is let go."""
    target = start(targets.build("lifecycle"), "forever")
    until(lambda: len(os.listdir(f"/proc/{target.pid}/task")) > 3)
    assert ptrace.seize(target.pid)
    stopped = ptrace.Stopped(target.pid)
    assert {state(f"{target.pid}/task/{name}") for name in os.listdir(f"/proc/{target.pid}/task")} == {"t"}
    target.process.kill()
    time.sleep(0.2)
    stopped.release()
    assert target.process.wait(10) == -signal.SIGKILL


def test_names_in_the_new_program(start, gotrace, tmp_path):
    """Stacks after an execve have the names of the program that was executed, and only those."""
    burner = str(targets.build("burner"))
    target = start(*execer("-wait", "-cycles", "1", burner, "2"))
    path = tmp_path / "run.gotrace"
    tracer = subprocess.Popen(
        [*GOTRACE, "record", "--probes", "gc,profile", "--pid", str(target.pid), "-o", path],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None and "Tracing" in tracer.stderr.readline()
    target.go()
    assert target.process.stdout is not None and target.process.stdout.readline() == "collected 1\n"
    time.sleep(0.5)
    target.go()
    spent = target.truth()
    target.finish()
    tracer.communicate(timeout=30)
    folded = gotrace("flame", str(tmp_path / "run.2.gotrace"), "--format", "folded", "-o", "-").stdout
    weights = [(line.rpartition(" ")[0].split(";"), int(line.rpartition(" ")[2])) for line in folded.splitlines()]
    for name in ("main.heavy", "main.light"):
        found = sum(weight for stack, weight in weights if any(frame.startswith(name) for frame in stack))
        assert found == pytest.approx(spent[name], rel=0.15), name
    assert "execer" not in folded and "main.execute" not in folded


@pytest.mark.parametrize("version", [MIDDLE, NEWEST])  # Go 1.19's own runtime crashes with 2
@pytest.mark.parametrize("how", [1, 2])
def test_collections_that_stop_the_world(how, version, kept, trace, monkeypatch):
    """GODEBUG=gcstoptheworld: with 2 the runtime sweeps, too, while the world is stopped."""
    monkeypatch.setenv("GODEBUG", f"gctrace=1,gcstoptheworld={how}")
    command, log = logged(kept, execer("-cycles", "267", version=version))
    tracer = trace(command=tuple(command))
    assert tracer.finish() == 0
    check_cycles(by_program(tracer.records), tracer.stdout, log)
    assert tracer.records[-1]["events"]["lost"] == 0 and tracer.records[-1]["cycles"] == 267


def test_a_toolchain_that_executes_another(gotrace, tmp_path, monkeypatch):
    """`go` itself: where another toolchain is asked for it executes that."""
    other = tmp_path / "go1.26.6"
    other.symlink_to(targets.go("1.26.6"))
    environment = {
        **targets.environment(NEWEST),
        "GOTOOLCHAIN": "go1.26.6+path",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    del environment["GOROOT"]
    command = [str(targets.go(NEWEST)), "list", "-deps", "-json", "std"]
    plain = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert plain.returncode == 0 and len(plain.stdout) > 500_000
    records = tmp_path / "records"
    done = gotrace("gc", "-o", str(records), "--format", "ndjson", "--", *command, env=environment)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    programs = [json.loads(line) for line in records.read_text().splitlines() if '"type": "start"' in line]
    assert [program["go_version"].split()[0] for program in programs] == [f"go{NEWEST}", "go1.26.6"]


@pytest.mark.parametrize("kind", ["from another thread", pytest.param("position-independent", marks=everywhere)])
@pytest.mark.thorough
def test_memory_of_what_is_executed(kind, kept, start, gotrace, tmp_path):
    """`gotrace mem --cycles`: the cycles of each program, in a recording of its own, too."""
    first, *rest = CHAINS[kind]()
    target = start(first, "-wait", *rest)
    path = tmp_path / "run.gotrace"
    tracer = subprocess.Popen(
        [*GOTRACE, "mem", "--cycles", "--format", "ndjson", "--pid", str(target.pid), "-o", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None and "Tracing" in tracer.stderr.readline()
    target.go()
    stdout, _ = target.process.communicate(timeout=60)
    printed, _ = tracer.communicate(timeout=60)
    counted = [int(number) for number in re.findall(r"collected (\d+)", stdout)]
    expected = [number for count in counted for number in range(1, count + 1)]
    assert [json.loads(line)["cycle"] for line in printed.splitlines()] == expected
    reports = [
        gotrace("report", str(each), "--format", "ndjson").stdout for each in [path, *sorted(tmp_path.glob("run.*.*"))]
    ]
    assert "".join(reports) == printed


def test_looks_at_what_is_executed(start, gotrace, tmp_path):
    """`gotrace mem` without a probe: each program's own numbers, and never what the other's addresses hold."""
    target = start(targets.build("lifecycle"), "exec", *execer("-wait", "-cycles", "5", **PIE))
    path = tmp_path / "looks.ndjson"
    looks = subprocess.Popen(
        [*GOTRACE, "mem", "-d", "20s", "-i", "50ms", "--pid", str(target.pid), "-o", path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert looks.stderr is not None
    assert f"pid {target.pid} executed " in looks.stderr.readline()
    time.sleep(1)
    target.go()
    looks.communicate(timeout=60)
    before, after = (
        [json.loads(line)["counters"] for line in each.read_text().splitlines()]
        for each in (path, path.with_name("looks.2.ndjson"))
    )
    collections = [each["num_gc"] for each in before]
    assert len(before) > 3 and collections == sorted(collections) and collections[-1] > 5
    assert len(after) > 3 and {each["num_gc"] for each in after} <= set(range(6))
    assert all(each["heap_alloc"] < 1 << 20 for each in after)
