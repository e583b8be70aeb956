"""What every Butler of this project holds from the start, the central one and the local ones."""

from lsst.daf.butler import Butler, CollectionType

from prompt_processing.domain import collections
from prompt_processing.instruments.dataset_types import butler_config, register_dataset_types
from prompt_processing.instruments.latiss import Latiss
from prompt_processing.instruments.lsstcam import LsstCam
from prompt_processing.instruments.skymap import SKYMAP, register_skymap


def make_butler(root: str, registry: str | None = None) -> None:
    """Make an empty Butler repository.

    Parameters
    ----------
    root
        Root of the repository, a folder or a URI; there must be no Butler in it.
    registry
        SQLAlchemy URL of the registry; an SQLite file in the root if it is `None`.
    """
    config = butler_config()
    if registry is not None:
        config["registry", "db"] = registry
    Butler.makeRepo(root, config=config)
    with Butler.from_config(root, writeable=True) as butler:
        prepare_butler(butler)


def prepare_butler(butler: Butler) -> None:
    """Register dataset types, skymap, instrument and collections; safe to repeat.

    Parameters
    ----------
    butler
        A writeable Butler.
    """
    register_dataset_types(butler)
    register_skymap(butler)
    butler.collections.register(collections.SKYMAPS, CollectionType.RUN)
    if butler.find_dataset("skyMap", skymap=SKYMAP.name, collections=collections.SKYMAPS) is None:
        butler.put(SKYMAP.config, "skyMap", skymap=SKYMAP.name, run=collections.SKYMAPS)
    for instrument in (Latiss(), LsstCam()):
        instrument.register(butler.registry)
        _register_collections(butler, instrument.getName())


def _register_collections(butler: Butler, instrument: str) -> None:
    """Register the collections from which pipelines take their inputs."""
    butler.collections.register(collections.raws(instrument), CollectionType.RUN)
    butler.collections.register(collections.template_epochs(instrument), CollectionType.RUN)
    butler.collections.register(collections.calibs(instrument), CollectionType.CALIBRATION)
    for chain in (collections.REFCATS, collections.templates(instrument), collections.defaults(instrument)):
        butler.collections.register(chain, CollectionType.CHAINED)
    butler.collections.redefine_chain(collections.defaults(instrument), collections.inputs(instrument))
