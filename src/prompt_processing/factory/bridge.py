"""What is plugged into what in the bridge: builds it from the settings."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from confluent_kafka.admin import AclOperation

from prompt_processing.bridge.bridge import Bridge
from prompt_processing.bridge.check import Found, look_at_kafka, look_at_schema, look_at_sink
from prompt_processing.bridge.dead_letters import DeadLetters, unwrap
from prompt_processing.bridge.decode import Decoder, cancel_schema, visit_schema
from prompt_processing.bridge.kafka_group import GroupSource
from prompt_processing.bridge.kafka_range import RangeSource
from prompt_processing.bridge.metrics import BridgeMetrics
from prompt_processing.bridge.records import RecordSource
from prompt_processing.bridge.rules import Rules
from prompt_processing.config import Settings, check_confidential
from prompt_processing.domain.clock import Clock, NightClock, WallClock
from prompt_processing.domain.errors import ConfigError
from prompt_processing.factory.stores import open_lines, open_sink
from prompt_processing.instruments.cameras import CAMERAS, get_camera
from prompt_processing.instruments.detector_map import DetectorMap
from prompt_processing.instruments.fan_out import active_detectors
from prompt_processing.messaging.kafka import KafkaWriter, connection, open_registry


class BridgeFactory:
    """Builds the parts of a bridge.

    Parameters
    ----------
    repo
        Folder with the settings; with none there, the environment's hold.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    """

    def __init__(self, repo: Path) -> None:
        self.settings = Settings.load(repo)
        self.detectors = DetectorMap(self.settings.instruments)
        for name in CAMERAS:
            active_detectors(name, self.detectors.active())
        kafka = self.settings.kafka
        check_confidential("kafka.registry", kafka.registry, kafka.registry_password.get_secret_value())
        _check_queues(self.settings.bridge.script_queues)
        self._client = connection(kafka)
        self.metrics = BridgeMetrics()

    @property
    def topics(self) -> Sequence[str]:
        """Topics of the events."""
        return self.settings.bridge.visits_topic, self.settings.bridge.cancel_topic

    def group_source(self) -> GroupSource:
        """Return what gives the events as they come."""
        bridge = self.settings.bridge
        return GroupSource(
            self._client,
            self.topics,
            group=bridge.group,
            session=bridge.session_s,
            max_age=self.settings.worker.expiry_s,
            metrics=self.metrics,
        )

    def range_source(self) -> RangeSource:
        """Return what gives the events of some time once more."""
        return RangeSource(self._client, group=f"{self.settings.bridge.group}-replay")

    def letters_source(self, *, commit: bool = False, unwrapped: bool = True) -> RangeSource:
        """Return what gives the dead letters.

        Parameters
        ----------
        commit
            Whether to remember which are done.
        unwrapped
            Whether to give the records that they are about, in their stead.
        """
        group = f"{self.settings.bridge.group}-dead-letters"
        change = unwrap if unwrapped else lambda letter: letter
        return RangeSource(self._client, group=group, commit=commit, unwrap=change)

    def bridge(
        self,
        source: RecordSource,
        *,
        expiry: float | None = None,
        keep_letters: bool = True,
        dry_run: bool = False,
    ) -> Bridge:
        """Return a bridge.

        Parameters
        ----------
        source
            Where records come from.
        expiry
            Age at which an event is too old [s]; that of the settings if it is `None`.
        keep_letters
            Whether what cannot be sent becomes a dead letter.
        dry_run
            Whether to print messages, and to write nothing.

        Raises
        ------
        ConfigError
            If a setting of the sink is missing.
        """
        settings = self.settings.bridge
        letters = None
        if keep_letters and not dry_run:
            letters = KafkaWriter(self._client, settings.dead_letters_topic).write
        age = self.settings.worker.expiry_s if expiry is None else expiry
        return Bridge(
            source=source,
            decoder=self.decoder(),
            rules=Rules(settings, self.detectors, expiry=age, clock=self._clock()),
            sink=open_lines() if dry_run else open_sink(self.settings),
            dead_letters=DeadLetters(letters),
            metrics=self.metrics,
            drain=settings.drain_s,
        )

    def decoder(self) -> Decoder:
        """Return what reads records."""
        bridge = self.settings.bridge
        return Decoder(
            open_registry(self.settings.kafka),
            visits_topic=bridge.visits_topic,
            cancel_topic=bridge.cancel_topic,
        )

    def check(self, *, send: bool) -> Iterator[Found]:
        """Yield whether each of the things is there that a bridge needs.

        Parameters
        ----------
        send
            Whether to send a warm-up message to the sink.
        """
        bridge, registry = self.settings.bridge, open_registry(self.settings.kafka)
        topics = {
            **dict.fromkeys(self.topics, AclOperation.READ),
            bridge.dead_letters_topic: AclOperation.WRITE,
        }
        if bridge.sink == "kafka":
            topics[bridge.messages_topic] = AclOperation.WRITE
        yield from look_at_kafka(self._client, topics, bridge.group)
        for topic, schema in zip(self.topics, (visit_schema(), cancel_schema()), strict=True):
            yield look_at_schema(registry, topic, schema)
        for name in sorted(CAMERAS):
            active, known = active_detectors(name, self.detectors.active()), get_camera(name).detectors
            yield Found(name, fine=True, text=f"{len(active)} of {len(known)} detectors are on")
        yield look_at_sink(bridge.sink, partial(open_sink, self.settings), send=send)

    def _clock(self) -> Clock:
        offset = self.settings.worker.clock_offset_s
        return NightClock(offset) if offset else WallClock()


def _check_queues(queues: Mapping[int, Sequence[str]]) -> None:
    unknown = {name for names in queues.values() for name in names} - CAMERAS.keys()
    if unknown:
        known = ", ".join(sorted(CAMERAS))
        raise ConfigError(f"bridge.script_queues: {', '.join(sorted(unknown))}: unknown; known are {known}")
