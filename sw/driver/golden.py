"""The golden model as an accelerator without a clock."""

from vrex.sw.driver.transport import Answer, AnyReport, Interface, Sent, Transport


class GoldenTransport(Transport[Sent, Answer, AnyReport]):
    """Runs commands on the golden model (see `Transport`)."""

    def __init__(self, interface: Interface[Sent, Answer, AnyReport]) -> None:
        super().__init__(interface, interface.new_report())
        self.reset()

    def submit(self, sent: Sent, /) -> Answer:
        """Executes commands in order (see `Transport`)."""
        answer = self._model(sent)
        self.report.count(sent, answer)
        return answer

    def reset(self) -> None:
        """Registers as after power-up; memory keeps its content."""
        self._model = self.interface.golden()
