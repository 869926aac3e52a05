"""The failure ledger keeps the first reason and never forgets a rejection."""

from __future__ import annotations

import pytest

from rillcast.errors import DeliveryError
from rillcast.transports.kafka.common.ledger import FailureLedger


def test_every_check_raises_the_first_reason_and_the_count_until_the_ledger_is_cleared() -> None:
    ledger = FailureLedger("broker:9092")
    ledger.raise_failure()
    ledger.note("too large", rejected=True)
    ledger.note("timed out", rejected=False)
    for _ in range(2):
        with pytest.raises(DeliveryError, match=r"2 published records were not delivered.*too large"):
            ledger.raise_failure()
    ledger.clear()
    ledger.raise_failure()
    assert ledger.rejected, "the sink still asks after its abort"


@pytest.mark.parametrize("said", ["Broker: Invalid timestamp", "[Error 32] InvalidTimestampError: out of range"])
def test_a_time_that_the_broker_refuses_is_a_matter_of_clocks(said: str) -> None:
    ledger = FailureLedger("broker:9092")
    ledger.note(said, rejected=True)
    with pytest.raises(DeliveryError, match=r"set the clocks .*message\.timestamp\.type=LogAppendTime"):
        ledger.raise_failure()
