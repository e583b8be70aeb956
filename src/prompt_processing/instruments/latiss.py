"""LATISS, the imager and spectrograph of Rubin's Auxiliary Telescope, for the LSST middleware."""

from prompt_processing.instruments.cameras import LATISS
from prompt_processing.instruments.instrument import RubinInstrument


class Latiss(RubinInstrument):
    """LATISS."""

    camera = LATISS
