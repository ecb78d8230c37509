"""The event-driven core: tasks with predecessors on resources that serve one task at a time."""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple


class Task(NamedTuple):
    """Something that holds a resource for a while.

    Attributes:
        name: for the log, as `attention 3`.
        kind: what a breakdown counts it as: `vision`, `compute`, `prediction`, `fetch`, `update`.
        resource: what it holds.
        seconds: for how long.
        after: numbers of earlier tasks that must have ended.
    """

    name: str
    kind: str
    resource: str
    seconds: float
    after: tuple[int, ...] = ()


class Record(NamedTuple):
    """A task of the past: when it became ready, began and ended, in seconds."""

    task: Task
    ready: float
    start: float
    end: float


def run(tasks: Sequence[Task]) -> list[Record]:
    """Runs all tasks from time 0.

    A resource serves the task that has been ready longest, of several the one with the lowest number; what
    ends at one time is all taken note of before anything begins.

    Args:
        tasks: each after its predecessors.

    Returns:
        A record of each task, in the order of `tasks`.
    """
    followers: list[list[int]] = [[] for _ in tasks]
    missing = []
    for number, task in enumerate(tasks):
        before = set(task.after)
        assert not before or (min(before) >= 0 and max(before) < number), task
        missing.append(len(before))
        for earlier in before:
            followers[earlier].append(number)
    ready = [0.0] * len(tasks)
    queues: dict[str, list[tuple[float, int]]] = {task.resource: [] for task in tasks}
    ends: list[tuple[float, int]] = []
    records: list[Record] = [Record(task, 0.0, 0.0, 0.0) for task in tasks]
    busy: set[str] = set()

    def release(number: int, now: float) -> None:
        ready[number] = now
        heapq.heappush(queues[tasks[number].resource], (now, number))

    def start(resource: str, now: float) -> None:
        if resource not in busy and queues[resource]:
            _, number = heapq.heappop(queues[resource])
            task = tasks[number]
            busy.add(resource)
            records[number] = Record(task, ready[number], now, now + task.seconds)
            heapq.heappush(ends, (now + task.seconds, number))

    for number, count in enumerate(missing):
        if not count:
            release(number, 0.0)
    for resource in list(queues):
        start(resource, 0.0)
    while ends:
        now = ends[0][0]
        touched = set()
        while ends and ends[0][0] == now:
            _, number = heapq.heappop(ends)
            busy.discard(tasks[number].resource)
            touched.add(tasks[number].resource)
            for follower in followers[number]:
                missing[follower] -= 1
                if not missing[follower]:
                    release(follower, now)
                    touched.add(tasks[follower].resource)
        for resource in sorted(touched):
            start(resource, now)
    return records


def latency(log: Iterable[Record], kinds: Collection[str] | None = None) -> float:
    """When the last task ended, of these kinds or of all."""
    return max((record.end for record in log if kinds is None or record.task.kind in kinds), default=0.0)


def busy(log: Iterable[Record], resources: Collection[str]) -> float:
    """Seconds in which at least one of the resources works."""
    spans = sorted((record.start, record.end) for record in log if record.task.resource in resources)
    total, reached = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def breakdown(log: Sequence[Record], kinds: Sequence[str]) -> dict[str, float]:
    """Seconds by kind: at each moment the first of `kinds` that is at work counts; `idle` is the rest."""
    times = sorted({time for record in log for time in (record.start, record.end)} | {0.0})
    rank = {kind: place for place, kind in enumerate(kinds)}
    at_work = [0] * len(kinds)
    changes: dict[float, list[tuple[int, int]]] = defaultdict(list)
    for record in log:
        if record.end > record.start and record.task.kind in rank:
            changes[record.start].append((rank[record.task.kind], 1))
            changes[record.end].append((rank[record.task.kind], -1))
    found = dict.fromkeys([*kinds, "idle"], 0.0)
    for now, later in pairwise(times):
        for place, change in changes[now]:
            at_work[place] += change
        first = next((kind for kind in kinds if at_work[rank[kind]]), "idle")
        found[first] += later - now
    return found


def little(log: Sequence[Record], resource: str) -> tuple[float, float, float]:
    """What Little's law relates, for a resource and its queue, over the whole log.

    Returns:
        (mean number of tasks waiting or served, arrivals/s, mean seconds from ready to end); the first is
        measured by following the number over time, not from the other two.
    """
    mine = [record for record in log if record.task.resource == resource]
    horizon = latency(log)
    steps = sorted([(record.ready, 1) for record in mine] + [(record.end, -1) for record in mine])
    area, number, before = 0.0, 0, 0.0
    for time, change in steps:
        area += number * (time - before)
        number, before = number + change, time
    waits = sum(record.end - record.ready for record in mine)
    return area / horizon, len(mine) / horizon, waits / len(mine)
