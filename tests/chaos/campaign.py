"""One campaign: producers, readers, kills, and at the end every record accounted for."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql

from catalog.faults import ERROR_POINTS, KILL_POINTS
from chaos.judge import Judge, Letter
from chaos.plan import Outcome, Plan
from chaos.producer import Order, produce
from chaos.reader import Kind, Wish, _State, ask, read, read_letters, session
from chaos.site import (
    K2,
    Layout,
    Process,
    kill_pid,
    lay_out,
    pid_of,
    published_s,
    wait_until_gone,
)
from chaos.wires import Storm, Surroundings, Wires
from flight_server.exits import ExitCode

#: How often a kill point is passed before it kills, at most: the busy ones are met many times a
#: second, those around a commit once per flush.
BUSY = {"decode.before", "decode.after", "segment.written", "publish.before", "publish.renamed"}
#: What a process logs when a fault of K2_FAULTS took effect.
INJECTED = re.compile(r"fault_injected point=(\S+) kind=(\S+)")
#: The storm blows while the ingest has published within so many seconds: starts are to succeed.
SILENT_S = 1.5
#: Up to so many rows the last answer is all of them, above it their digest.
WHOLE_ROWS = 500_000
#: Longest wait for a named kill point, in seconds.
REACH_S = 60.0
#: Starts in a row that may end because a service did not answer (on a busy machine the broker may
#: need longer than a start waits); an operator starts again, and so do we.
REFUSED_IN_A_ROW = 5
#: Longest wait for an answer after a kill, in seconds.
RECOVER_S = 60.0
#: Longest silence of the campaign, in seconds.
QUIET_S = 30.0
#: Longest wait at the end for another record to become visible, in seconds.
VISIBLE_S = 120.0


def _either(supervisor: Process, wanted: Callable[[], bool]) -> bool:
    return supervisor.code is not None or wanted()


class Campaign:
    """Runs one leg of a plan in one folder, behind wires of its own."""

    def __init__(
        self, plan: Plan, around: Surroundings, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        broker = around.broker
        self.outcome = Outcome()
        self._say = say
        self._random = random.Random(plan.seed)
        self._topic = broker.create_topic(plan.partitions)
        self._wires = Wires(around)
        self._layout = lay_out(
            *(folder, self._wires.bootstrap, self._topic, plan.flush_rows),
            home=self._wires.home,
        )
        if plan.poison_every:
            with self._layout.config.open("a") as config:
                config.write('on_error = "dead_letter"\n')
        self._wires.open_flight(self._layout.port)
        self._storm = Storm(
            *(self._wires, random.Random(f"{plan.seed} storm")),
            calm_s=plan.calm_s if plan.faults else 0.0,
            pid_of=lambda role: pid_of(self._layout, role),
        )
        self._spawn = multiprocessing.get_context("spawn")
        self._stop_readers, self._stop_producers = self._spawn.Event(), self._spawn.Event()
        self._answers = self._spawn.Queue()
        self._orders = [self._order(broker.bootstrap, n) for n in range(2)]
        self._judge = Judge(self._topic, [order.journal for order in self._orders])
        self.outcome.verdict = self._judge.verdict

    @property
    def layout(self) -> Layout:
        """Where the system runs."""
        return self._layout

    def _order(self, bootstrap: str, number: int) -> Order:
        journal = self._layout.folder / f"journal-{number}.bin"
        journal.touch()
        return Order(
            *(bootstrap, self._topic, self.plan.partitions, self.plan.seed + number),
            transactional=number == 1,
            poison_every=self.plan.poison_every,
            journal=journal,
            budget=self._spawn.Value("q", 0),
            mark=self._spawn.Value("d", 0.0),
            stop=self._stop_producers,
        )

    def _wish(self, number: int) -> Wish:
        return Wish(
            *(number, self._wires.flight, self._layout.table, self._topic, self.plan.partitions),
            *(100 + self.plan.seed + number, self.plan.pause_s, self._stop_readers, self._answers),
        )

    def run(self) -> Outcome:
        """Everything; processes it started are ended, whatever happens."""
        began = time.monotonic()
        producers = [self._start(produce, order) for order in self._orders]
        readers = [self._start(read, self._wish(number)) for number in range(self.plan.readers)]
        try:
            self._named_kills()
            self._random_kills()
            self._finish(producers, readers)
        finally:
            self._stop_readers.set()
            self._stop_producers.set()
            for process in (*producers, *readers):
                self._end(process)
            self._answers.close()
            self._storm.end()
            self._wires.close()
        self.outcome.faults = self._injected()
        self.outcome.rows = self._judge.records
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _start(self, body: Callable[..., None], wish: object) -> BaseProcess:
        process = self._spawn.Process(target=body, args=(wish,), daemon=True)
        process.start()
        return process

    def _end(self, process: BaseProcess) -> None:
        limit = time.monotonic() + 20
        while process.is_alive() and time.monotonic() < limit:
            self._drain()  # a process with an undelivered answer does not end
            process.join(0.1)
        if process.is_alive():
            process.kill()
            process.join()

    # --- kills ----------------------------------------------------------------------------------

    def _named_kills(self) -> None:
        """Half of the kills: the ingest alone, at a named place; the server now and then."""
        total, points = self.plan.named, self.plan.points
        with self._running("serve", "--no-ingest") as server:
            for number in range(total):
                point = points[number % len(points)]
                count = self._random.randint(1, 40 if point in BUSY else 2)
                for _ in range(REFUSED_IN_A_ROW):
                    with self._running("ingest", kill_point=f"{point}:{count}") as ingest:
                        self._meet(ingest, point)
                    if ingest.code != ExitCode.UNAVAILABLE:
                        break
                else:
                    self._fail(f"the ingest found no broker or catalog, {REFUSED_IN_A_ROW} times")
                if self._random.random() < 0.1 and (pid := server.child("server")):
                    self.outcome.kills["random:server"] += kill_pid(pid)
                self._report(number + 1)

    def _meet(self, ingest: Process, point: str) -> None:
        self._release(self.plan.rows // self.plan.kills)
        if self._until(lambda: ingest.code is not None, REACH_S):
            if ingest.code == -9:
                self.outcome.kills[f"point:{point}"] += 1
            elif ingest.code == ExitCode.UNAVAILABLE:
                self.outcome.refused["ingest"] += 1
            else:
                self._ended_by_itself("ingest", ingest, f"before {point}")
            return
        self.outcome.unreached[point] += 1
        ingest.kill()
        self.outcome.kills["random:ingest"] += 1

    def _random_kills(self) -> None:
        """The other half: any process under `k2 serve`, at any time."""
        total, before, refused = self.plan.kills, sum(self.outcome.kills.values()), 0
        while before < total and refused < REFUSED_IN_A_ROW:
            with self._running("serve") as supervisor:
                while before < total:
                    self._release(self.plan.rows // self.plan.kills)
                    self._recover(supervisor)
                    self._until(lambda: False, self._random.uniform(0.0, 2.0))
                    role = self._random.choice(("server", "ingest", "supervisor"))
                    if supervisor.code == ExitCode.UNAVAILABLE:
                        refused += 1
                        self.outcome.refused["serve"] += 1
                        break
                    if supervisor.code is not None:
                        refused += 1
                        self._ended_by_itself("serve", supervisor, f"before kill {before + 1}")
                        break
                    before, refused = before + self._kill(supervisor, role), 0
                    self._report(before)
                    if role == "supervisor":
                        break
            if refused == REFUSED_IN_A_ROW:
                self._fail(f"k2 serve ended {refused} times in a row")
            left = wait_until_gone(self._layout, 15)
            if left:
                self._fail(f"children outlived their supervisor: {left}")
                for pid in left:
                    kill_pid(pid)

    def _recover(self, supervisor: Process) -> None:
        """Waits for an answer: the next kill is to hit a system that works, not one that starts."""
        before, began = self._judge.taken, time.monotonic()

        def over() -> bool:
            return self._judge.taken > before or supervisor.code is not None

        if not self._until(over, RECOVER_S):
            self._fail(f"no answer within {RECOVER_S:g} s after a kill")
        self.outcome.recovered_s.append(time.monotonic() - began)

    def _kill(self, supervisor: Process, role: str) -> bool:
        if role == "supervisor":
            supervisor.kill()
            killed = True
        else:
            pid = supervisor.child(role)
            killed = pid is not None and kill_pid(pid)
        self.outcome.kills[f"random:{role}"] += killed
        return killed

    # --- the end --------------------------------------------------------------------------------

    def _finish(self, producers: list[BaseProcess], readers: list[BaseProcess]) -> None:
        """Tops up rows and answers, then waits, in calm, until every record is visible."""
        for _ in range(REFUSED_IN_A_ROW):
            with self._running("serve") as supervisor:
                if self._topped_up(supervisor):
                    break
            if supervisor.code == ExitCode.UNAVAILABLE:  # a fault met its start
                self.outcome.refused["serve"] += 1
            else:
                self._ended_by_itself("serve", supervisor, "at the end")
        else:
            self._fail(f"k2 serve ended {REFUSED_IN_A_ROW} times in a row")
        self._storm.end()
        with self._running("serve", calm=True):
            self._settle(producers, readers)
        if (injected := sum(self._injected().values())) < self.plan.faults:
            self._fail(f"only {injected} faults took effect")
        if self._judge.verdict.mixed < self.plan.answers:
            self._fail(f"only {self._judge.verdict.mixed} answers held live and history rows")

    def _topped_up(self, supervisor: Process) -> bool:
        """Whether there are rows, answers and faults enough; not where the system ended before."""
        for wanted, timeout_s, trickle in (
            (self._has_rows, 600, 5_000),
            (lambda: self._judge.verdict.mixed >= self.plan.answers, 3_600, 100),
            (lambda: sum(self._injected().values()) >= self.plan.faults, 600, 100),
        ):
            self._until(partial(_either, supervisor, wanted), timeout_s, trickle=trickle)
        return supervisor.code is None

    def _settle(self, producers: list[BaseProcess], readers: list[BaseProcess]) -> None:
        """Nothing comes any more: all that was written is there, once."""
        self._stop_producers.set()
        for producer in producers:
            producer.join(60)
            if producer.is_alive():
                self._fail("a producer did not end within 60 s")
        self._stop_readers.set()
        for reader in readers:
            self._end(reader)
        self._drain()
        self._judge.settle(time.monotonic())
        self._judge.load()  # also where no answer waited: the last one is held against all
        self._last_answer()
        if self.plan.poison_every:
            self._last_letters()
        self._audit()

    def _has_rows(self) -> bool:
        self._judge.load()
        return self._judge.records >= self.plan.rows

    def _last_answer(self) -> None:
        kind: Kind = "whole" if self._judge.records <= WHOLE_ROWS else "digest"
        wish, limit, most = self._wish(99), time.monotonic() + VISIBLE_S, 0
        while True:
            try:
                with session(self._layout.uri) as cursor:
                    last = ask(cursor, kind, wish, _State())
                rows = last.live + last.history
                if rows > most:  # behind is not missing: a slow machine catches up slowly
                    most, limit = rows, time.monotonic() + VISIBLE_S
                if rows >= self._judge.records or time.monotonic() > limit:
                    break
            except flightsql.Error as error:
                if time.monotonic() > limit:
                    self._fail(f"no answer at the end: {error}")
                    return
            time.sleep(0.5)
        self._judge.settle_complete(last)

    def _last_letters(self) -> None:
        """Waits until every poison record is a dead letter: a flush commits what waits."""
        limit, letters = time.monotonic() + VISIBLE_S, Counter[Letter]()
        while letters.total() < len(self._judge.poison) and time.monotonic() < limit:
            time.sleep(0.5)
            try:
                with session(self._layout.uri) as cursor:
                    letters = read_letters(cursor, self._layout.table)
            except flightsql.Error as error:
                self._say(f"no dead letters yet: {error}")
        self._judge.settle_letters(letters)

    # --- the loop of everything -----------------------------------------------------------------

    def _until(
        self, condition: Callable[[], bool], timeout_s: float, *, trickle: int = 100
    ) -> bool:
        """Keeps rows flowing and answers judged until the condition holds, or time is up."""
        limit, said = time.monotonic() + timeout_s, time.monotonic()
        while time.monotonic() < limit:
            if condition():
                return True
            if time.monotonic() > said + QUIET_S:
                said = time.monotonic()
                self._report(sum(self.outcome.kills.values()))
            if time.time() - published_s(self._layout) < SILENT_S:
                self._storm.blow()
            else:
                self._storm.hold()
            self._release(trickle)
            self._drain()
            self._judge.settle(min(order.mark.value for order in self._orders))
            time.sleep(0.05)
        return condition()

    def _release(self, rows: int) -> None:
        """Lets the producers send ``rows`` more, one in ten in transactions."""
        for order, share in zip(self._orders, (0.9, 0.1), strict=True):
            with order.budget.get_lock():
                order.budget.value += max(1, int(rows * share))

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._judge.take(self._answers.get_nowait())

    @contextlib.contextmanager
    def _running(
        self, *arguments: str, kill_point: str = "", calm: bool = False
    ) -> Iterator[Process]:
        environment = {"K2_KILL_POINT": kill_point} if kill_point else {}
        if self.plan.faults and not calm:
            environment["K2_FAULTS"] = self._named_faults()
        process = Process(self._layout, arguments, environment)
        try:
            yield process
        finally:
            process.end()

    def _named_faults(self) -> str:
        """One call that fails now and then, and two places that are slow."""
        slow = [
            f"{point}:{100 if point in BUSY else 3}:delay:{self._random.uniform(0.01, 0.5):.2f}"
            for point in self._random.sample(KILL_POINTS, 2)
        ]
        failing = f"{self._random.choice(ERROR_POINTS)}:{self._random.randint(2, 5)}:error"
        return ",".join([failing, *slow])

    def _injected(self) -> Counter[str]:
        """Faults that took effect so far: on the wires, by signals, at named places."""
        found = self._wires.hits
        found.update({f"stopped: {role}": n for role, n in self._storm.stopped.items()})
        for log in self._layout.folder.glob("*.log"):
            for point, kind in INJECTED.findall(log.read_text(errors="replace")):
                found[f"{point}: {kind}"] += 1
        return found

    def _audit(self) -> None:
        """What an operator runs: the table proves itself."""
        command = [K2, "verify", self._layout.table, "--config", str(self._layout.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr)[-1000:]
            self._fail(f"k2 verify ended with {done.returncode}: {said}")

    def _ended_by_itself(self, command: str, process: Process, when: str) -> None:
        said = (self._layout.folder / f"{command}.log").read_text(errors="replace").splitlines()
        self._fail(f"{command} ended by itself with {process.code} ({when}): {said[-5:]}")

    def _fail(self, what: str) -> None:
        self._judge.verdict.faults.append(what)
        self._say(f"FAULT {what}")

    def _report(self, kills: int) -> None:
        verdict = self._judge.verdict
        self._say(
            f"kills={kills} faults={self._storm.count} rows={self._judge.records} "
            f"answers={sum(verdict.judged.values())} mixed={verdict.mixed} "
            f"pending={self._judge.pending} wrong={len(verdict.faults)}"
        )
