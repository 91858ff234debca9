"""The threads that wait for the token, so that one slow answer holds up nobody else.

    main thread --- queue of jobs (bounded) ---> N threads ---> queue of landings + eventfd ---> main thread
                --- checks and repairs -------> one thread more ----^

A job runs on some thread and returns its landing, which the main thread calls. A worker touches its own handshake
and the token; rules, state and channels belong to the main thread.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .effects import Effect, Job, Landing

__all__ = ["Workers"]


class Workers:
    """`threads` daemon threads, and one for what is beside the handshakes.

    `fileno` is readable when `landings` has something.
    """

    def __init__(self, threads: int, longest_queue: int) -> None:
        self.submitted = 0
        """How many jobs there have been, those beside apart."""
        self._longest_queue = longest_queue
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._aside: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._landings: deque[Landing] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rung = False
        self._since: list[int | None] = [None] * (threads + 1)
        self._threads = [
            threading.Thread(target=self._run, args=(self._jobs, place), name=f"token-{place}", daemon=True)
            for place in range(threads)
        ]
        self._threads.append(threading.Thread(target=self._run, args=(self._aside, -1), name="aside", daemon=True))
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        """The eventfd."""
        return self._event

    def submit(self, job: Job) -> None:
        """Have some thread run `job`. Raises queue.Full; whoever hands out jobs keeps below the bound."""
        self._put(self._jobs, job)
        self.submitted += 1

    def submit_aside(self, job: Job) -> None:
        """Have the thread beside run `job`; these jobs run one after the other. Raises queue.Full."""
        self._put(self._aside, job)

    def landings(self) -> list[Landing]:
        """What has come back since the last call, in order."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return []
        # First this, then the queue: what lands in between rings again.
        self._rung = False
        return [self._landings.popleft() for _ in range(len(self._landings))]

    def longest_running(self) -> int:
        """For how many nanoseconds the slowest job has been running, those beside apart; 0 if none is."""
        started = [since for since in self._since[:-1] if since is not None]
        return time.monotonic_ns() - min(started) if started else 0

    def running_aside(self) -> int:
        """For how many nanoseconds the job beside has been running; 0 if none is."""
        since = self._since[-1]
        return 0 if since is None else time.monotonic_ns() - since

    def stop(self, timeout: float) -> bool:
        """Let the threads end, at most `timeout` seconds; True when all have."""
        deadline = time.monotonic() + timeout
        for jobs in (*[self._jobs] * (len(self._threads) - 1), self._aside):
            jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _put(self, jobs: queue.SimpleQueue[Job | None], job: Job) -> None:
        if jobs.qsize() >= self._longest_queue:
            raise queue.Full
        jobs.put(job)

    def _run(self, jobs: queue.SimpleQueue[Job | None], place: int) -> None:
        while (job := jobs.get()) is not None:
            self._since[place] = time.monotonic_ns()
            landing = _land(job)
            self._since[place] = None
            self._landings.append(landing)
            # An idle thread keeps nothing of the last handshake.
            del job, landing
            if not self._rung:
                self._rung = True
                os.eventfd_write(self._event, 1)


def _land(job: Job) -> Landing:
    try:
        return job()
    except Exception as error:
        fault = error

    def fail(_now: int) -> list[Effect]:
        raise fault

    return fail
