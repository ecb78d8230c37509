"""The golden model as an accelerator without a clock."""

from vrex.model.config import Config
from vrex.model.kvpu import Kvpu
from vrex.sw.driver.transport import Batch, Results, TransportReport


class GoldenTransport:
    """Runs commands on the golden model (see `Transport`)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.report = TransportReport()
        self._device = Kvpu(config)

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order (see `Transport`)."""
        results = [self._device.execute(command, payload) for command, payload in batch]
        self.report.count(batch, results)
        return results

    def reset(self) -> None:
        """Registers as after power-up."""
        self._device = Kvpu(self.config)

    def close(self) -> None:
        """Nothing to let go of."""
