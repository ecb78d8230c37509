"""The golden model as an accelerator without a clock."""

from vrex.model.commands import Descriptor, Status
from vrex.model.config import Config
from vrex.model.dre.dre import Dre
from vrex.model.dre.kvpu import Kvpu
from vrex.model.lib.memory import Memory
from vrex.sw.driver.transport import Batch, Outcome, Results, TransportReport, write_memory


class GoldenTransport:
    """Runs commands on the golden model (see `Transport`): the KVPU's, or with a memory the DRE's."""

    def __init__(self, config: Config, memory: Memory | None = None) -> None:
        self.config, self.memory = config, memory
        self.report = TransportReport("kvpu" if memory is None else "dre")
        self.reset()

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order (see `Transport`)."""
        results = [self._execute(command, payload) for command, payload in batch]
        self.report.count(batch, results)
        return results

    def _execute(self, command: Descriptor, payload: bytes) -> Outcome:
        """One command; of a failed one what it delivered is thrown away."""
        outcome = Outcome(*self._device.execute(command, payload))
        return outcome if outcome.completion.status == Status.OK else outcome._replace(kv=b"")

    def write(self, address: int, data: bytes) -> None:
        """Writes the DRE's memory (see `Transport`)."""
        write_memory(self.memory, address, data)

    def reset(self) -> None:
        """Registers as after power-up; memory keeps its content."""
        self._device = Kvpu(self.config) if self.memory is None else Dre(self.config, self.memory)

    def close(self) -> None:
        """Nothing to let go of."""
