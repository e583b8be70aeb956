"""A camera as an instrument of the LSST middleware: its records in a repository, and who reads its raws."""

from typing import Any, ClassVar

from lsst.daf.butler import FormatterV2, Registry
from lsst.pipe.base import Instrument

from prompt_processing.domain.ids import EXPOSURE_ID_MAX
from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.formatters import RawFormatter

VISIT_SYSTEM = 0
"""Visit system in which every exposure is a visit of its own and lends it its id."""
GROUP_VISIT_SYSTEM = 1
"""Visit system in which all exposures of a group are one visit."""


class RubinInstrument(Instrument):
    """An instrument whose facts are those of a `~prompt_processing.instruments.camera.Camera`.

    Repositories name the classes below this one, by their dotted path.
    """

    camera: ClassVar[Camera]
    """What is known of the camera."""

    @classmethod
    def getName(cls) -> str:  # noqa: N802 - the name of the base class
        """Return the name of the instrument in data ids."""
        return cls.camera.name

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the records of the instrument, its detectors, filters and visit systems; safe to repeat.

        Raises
        ------
        lsst.daf.butler.registry.ConflictingDefinitionError
            If the instrument is there already, but different, and ``update`` is false.
        """
        with registry.transaction():
            for element, records in self._records().items():
                rows = [{"instrument": self.camera.name, **record} for record in records]
                if element == "instrument":
                    registry.syncDimensionData(element, rows[0], update=update)
                else:  # many at once: one after the other they take more than a second
                    registry.insertDimensionData(element, *rows, replace=update, skip_existing=not update)

    def getRawFormatter(self, dataId: Any) -> type[FormatterV2]:  # noqa: N802, N803 - as above
        """Return the formatter that reads a raw."""
        del dataId
        return RawFormatter

    def _records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the values of every dimension record, by element."""
        instrument = {
            "name": self.camera.name,
            "class_name": f"{type(self).__module__}.{type(self).__qualname__}",
            "visit_max": EXPOSURE_ID_MAX + 1,
            "exposure_max": EXPOSURE_ID_MAX + 1,
            "detector_max": max(self.camera.detectors) + 1,
            "visit_system": VISIT_SYSTEM,
        }
        return {
            "instrument": [instrument],
            "detector": [self._detector(detector) for detector in self.camera.detectors],
            "visit_system": [{"id": VISIT_SYSTEM, "name": "one-to-one"}],
            "physical_filter": [
                {"name": name, "band": self.camera.band_of(name)} for name in self.camera.filters()
            ],
        }

    def _detector(self, detector: int) -> dict[str, Any]:
        raft, sensor = self.camera.raft_and_sensor(detector)
        return {
            "id": detector,
            "full_name": f"{raft}_{sensor}",
            "name_in_raft": sensor,
            "raft": raft,
            "purpose": "SCIENCE",
        }
