"""The cameras that are known."""

from typing import Final

from prompt_processing.domain.errors import ConfigError
from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.latiss import Latiss
from prompt_processing.instruments.lsstcam import LsstCam

CAMERAS: Final[dict[str, type[Camera]]] = {camera.name: camera for camera in (Latiss, LsstCam)}
"""Every camera by its name in data ids."""


def get_instrument(name: str) -> Camera:
    """Return the camera of a name.

    Raises
    ------
    ConfigError
        If there is no such camera.
    """
    if name not in CAMERAS:
        raise ConfigError(f"there is no instrument {name!r}; known are {', '.join(sorted(CAMERAS))}")
    return CAMERAS[name]()


def band_of(instrument: str, physical_filter: str) -> str:
    """Return the band of a physical filter of a camera.

    Raises
    ------
    ConfigError
        If there is no such camera.
    """
    return get_instrument(instrument).band_of(physical_filter)
