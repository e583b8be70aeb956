"""Taking up again what nobody works on."""

from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.ledger.port import Ledger
from prompt_processing.messaging.port import Publisher


def sweep(ledger: Ledger, publisher: Publisher, older_than: float) -> list[DetectorVisitKey]:
    """Publish the message of every detector-visit again that has no outcome and that nobody works on.

    Safe to repeat, and for several to do at the same time: whoever gets a message that is not needed any more
    finds that out in the ledger.

    Parameters
    ----------
    ledger
        Where the messages are stored.
    publisher
        Where they are sent.
    older_than
        Only visits that nobody has worked on for longer than this [s].

    Returns
    -------
    visits
        Whose message was sent.

    Raises
    ------
    StoreError
        If the ledger or the other side of the publisher does not answer.
    """
    stale = [record.visit for record in ledger.stale(older_than=older_than)]
    publisher.publish([visit.model_dump_json() for visit in stale])
    return [visit.key for visit in stale]
