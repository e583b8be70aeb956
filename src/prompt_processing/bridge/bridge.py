"""The flow from a record to its messages: nothing is committed that was not acknowledged."""

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import structlog

from prompt_processing.bridge.dead_letters import DeadLetters
from prompt_processing.bridge.decode import Decoder, Event
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import Record, RecordSource
from prompt_processing.bridge.rules import Rules, Skipped
from prompt_processing.domain.errors import (
    EventError,
    RefusedMessageError,
    RetriableError,
)
from prompt_processing.domain.visit import CancelVisit, DetectorVisit, NextVisit
from prompt_processing.messaging.port import Publisher

_LOG: Final = structlog.get_logger(__name__)

POLL: Final = 1.0
"""Longest wait for a record before it is looked whether to stop [s]."""
KEEP: Final = 0.25
"""Time between two signs of life while a record takes long [s]."""
SILENCE: Final = 60.0
"""Time without a sign of life after which a bridge hangs [s]."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
"""Longest wait after a failure before the same is tried again [s]; it doubles with each failure."""
type Message = DetectorVisit | CancelVisit

_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Handled(StrEnum):
    """What became of a record."""

    SENT = "sent"
    SKIPPED = "skipped"
    UNSENDABLE = "unsendable"
    """It cannot be read, or the sink will never take it."""
    LEFT = "left"
    """Not handled: the next owner of the partition handles it."""


class Bridge:
    """Takes records one after the other, and sends the messages of each.

    A record is committed when all of its messages are acknowledged, or when it stands among the dead letters.
    Until then it is tried again: what happens to be sent twice has the same ``dedup_key``.

    Parameters
    ----------
    source
        Where records come from.
    decoder
        Reads them.
    rules
        Say who gets an event.
    sink
        Where messages go.
    dead_letters
        Where records go that cannot be read, or that the sink will never take.
    metrics
        What is counted and measured.
    drain
        Time that the record in hand gets when the bridge is stopped [s].
    """

    def __init__(
        self,
        *,
        source: RecordSource,
        decoder: Decoder,
        rules: Rules,
        sink: Publisher,
        dead_letters: DeadLetters,
        metrics: BridgeMetrics,
        drain: float,
    ) -> None:
        self._source = source
        self._decoder = decoder
        self._rules = rules
        self._sink = sink
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._drain = drain
        self._seen = time.monotonic()

    def is_alive(self) -> bool:
        """Return whether the loop goes round; it does also while it waits for others."""
        return time.monotonic() - self._seen < SILENCE

    def run(self, stop: threading.Event, on_record: Callable[[Handled], None] = lambda _: None) -> None:
        """Work until it is stopped, or there are no more records.

        Parameters
        ----------
        stop
            Ends the work when it is set.
        on_record
            Called with what became of each record.
        """
        try:
            while not (stop.is_set() or self._source.ended):
                self._seen = time.monotonic()
                record = self._receive(stop)
                if record is None:
                    continue
                self._metrics.working(record.timestamp)
                on_record(self._finish(record, stop))
                self._metrics.working(0.0)
        finally:
            self._source.close()

    def _receive(self, stop: threading.Event) -> Record | None:
        try:
            return self._source.receive(POLL)
        except RetriableError as error:
            _LOG.warning("no records", error=str(error))
            stop.wait(FIRST_PAUSE)
            return None

    def _finish(self, record: Record, stop: threading.Event) -> Handled:
        """Do all that a record asks for, and commit it."""
        seen = self._rules.now()  # however long it takes, it does not become too old meanwhile
        deadline = _Deadline(stop, self._drain)
        handled = self._until_done(
            lambda: self._beside(lambda: self._handle(record, seen), deadline), record, deadline
        )
        if handled is not Handled.LEFT:
            handled = self._until_done(lambda: self._commit(record, handled), record, deadline)
        if handled is Handled.LEFT:
            _LOG.warning("record left to the next owner of the partition", record=str(record))
        return handled

    def _until_done(self, attempt: Callable[[], Handled], record: Record, deadline: "_Deadline") -> Handled:
        """Try something until it succeeds, the record is another's, or time is up."""
        pause = FIRST_PAUSE
        while True:
            try:
                return attempt()
            except RetriableError as error:
                _LOG.warning("to be tried again", record=str(record), error=str(error))
            except Exception:  # noqa: BLE001 (logged with its traceback)
                # A fault of ours: the record waits, and this is loud, but nothing is lost.
                _LOG.exception("to be tried again", record=str(record))
            self._metrics.retries.inc()
            if not self._wait(pause, deadline.stop):
                return Handled.LEFT
            pause = min(2 * pause, LONGEST_PAUSE)

    def _wait(self, pause: float, stop: threading.Event) -> bool:
        """Wait for about some time [s]; `False` if there is nothing to be tried again after it."""
        end = time.monotonic() + random.uniform(pause / 2, pause)  # noqa: S311 (spreads the load)
        while (left := end - time.monotonic()) > 0:
            if stop.wait(min(left, KEEP)) or not self._keep():
                return False
        return not stop.is_set()

    def _beside(self, work: Callable[[], Handled], deadline: "_Deadline") -> Handled:
        """Do some work in a thread, so that the group hears of this member however long it takes.

        It is left if its end is not worth waiting for any more.
        """
        future = _in_thread(work)
        while not wait([future], KEEP).done:
            if deadline.is_over() or not self._keep():
                return Handled.LEFT
        return future.result()

    def _commit(self, record: Record, handled: Handled) -> Handled:
        self._source.done(record)
        return handled

    def _keep(self) -> bool:
        self._seen = time.monotonic()
        try:
            return self._source.keep()
        except RetriableError as error:
            _LOG.warning("no records", error=str(error))
            return True

    def _handle(self, record: Record, seen: float) -> Handled:
        """Send the messages of a record, or store it as a dead letter, or count it as skipped."""
        try:
            event = self._decoder(record)
            found = self._rules.messages(event, seen)
            if isinstance(found, Skipped):
                self._skip(record, event, found.reason)
                return Handled.SKIPPED
            self._send(record, event, found)
        except (EventError, RefusedMessageError) as error:
            kept = self._dead_letters.put(record, error)
            self._metrics.dead_letters.inc()
            what = "record is now a dead letter" if kept else "record cannot be sent"
            _LOG.error(what, record=str(record), error=str(error))
            return Handled.UNSENDABLE
        return Handled.SENT

    def _skip(self, record: Record, event: Event, reason: str) -> None:
        self._metrics.skipped.labels(reason=reason).inc()
        if reason == "expired":
            self._metrics.expired.inc()
        _LOG.info("event skipped", record=str(record), reason=reason, group=event.groupId)

    def _send(self, record: Record, event: Event, messages: Sequence[Message]) -> None:
        began = time.monotonic()
        self._sink.publish([message.model_dump_json() for message in messages], _origin(record))
        metrics, kind = self._metrics, messages[0].kind
        metrics.publish_seconds.observe(time.monotonic() - began)
        taken = max(time.time() - record.timestamp, 0.0)
        metrics.record_seconds.observe(taken)
        metrics.fanout_messages.labels(kind=kind).inc(len(messages))
        if isinstance(event, NextVisit):
            metrics.visit(record.timestamp)
        _LOG.info(
            "event sent",
            record=str(record),
            kind=kind,
            group=event.groupId,
            instrument=messages[0].instrument,
            messages=len(messages),
            seconds=round(taken, 3),
        )


class _Deadline:
    """When the record in hand is left, once the bridge is stopped.

    Parameters
    ----------
    stop
        Stops the bridge when it is set.
    drain
        Time after that [s].
    """

    def __init__(self, stop: threading.Event, drain: float) -> None:
        self.stop = stop
        self._drain = drain
        self._end: float | None = None

    def is_over(self) -> bool:
        """Return whether it is left now."""
        if not self.stop.is_set():
            return False
        self._end = self._end or time.monotonic() + self._drain
        return time.monotonic() > self._end


def _in_thread(work: Callable[[], Handled]) -> Future[Handled]:
    """Run work in a daemon thread, which does not keep the process alive."""
    future: Future[Handled] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again by `Future.result`)
            future.set_exception(error)

    threading.Thread(target=run, name="record", daemon=True).start()
    return future


def _origin(record: Record) -> dict[str, str]:
    """Return where the messages of a record come from (https://www.w3.org/TR/trace-context/)."""
    given = record.headers.get("traceparent", b"").decode(errors="replace")
    digest = hashlib.sha256(str(record).encode()).hexdigest()
    # Without one, derive it from the record's place: each bridge gives a record the same trace.
    trace = given if _TRACEPARENT.fullmatch(given) else f"00-{digest[:32]}-{digest[32:48]}-01"
    return {
        "source_topic": record.topic,
        "source_partition": str(record.partition),
        "source_offset": str(record.offset),
        "traceparent": trace,
        "published_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
