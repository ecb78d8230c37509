"""An accelerator watched by the golden model."""

from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor

from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.transport import Answer, AnyReport, DriverError, Sent, Transport


class CheckedTransport(Transport[Sent, Answer, AnyReport]):
    """Runs every command on an accelerator and on the golden model and compares (see `Transport`).

    Where they differ the golden result is passed on, so that what follows stays comparable and one fault
    is counted once. Cycles come from the accelerator. The golden model works on memory of its own, which is
    also the one that the host sees.
    """

    def __init__(self, device: Transport[Sent, Answer, AnyReport]) -> None:
        """Watches an accelerator whose memory holds nothing but zeros yet."""
        interface = device.interface.with_new_memory()
        super().__init__(interface, device.report)
        self._device = device
        self._golden = GoldenTransport(interface)
        # A simulation leaves the other core to the golden model.
        self._worker = ThreadPoolExecutor(1)

    def submit(self, sent: Sent, /) -> Answer:
        """Executes commands in order (see `Transport`)."""
        running = self._worker.submit(self._device.submit, sent)
        expected = self._golden.submit(sent)
        try:
            actual = running.result()
        except DriverError:
            # The accelerator was reset.
            self._golden.reset()
            self._forget()
            raise
        return self._compare(sent, expected, actual)

    def write(self, address: int, data: bytes) -> None:
        """Writes both memories (see `Transport`)."""
        self._device.write(address, data)
        self._golden.write(address, data)

    def close(self) -> None:
        """Closes the accelerator."""
        self._device.close()

    @abstractmethod
    def _compare(self, sent: Sent, expected: Answer, actual: Answer) -> Answer:
        """Counts in the report what was compared and what differs; returns what to pass on."""

    def _forget(self) -> None:
        """The accelerator was reset: forgets what is known of its registers."""
