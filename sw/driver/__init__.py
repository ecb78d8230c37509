"""The host's side of the accelerator: commands over interchangeable transports, and the engine above them."""

from vrex.sw.driver.engine import Engine, SelectRequest
from vrex.sw.driver.transport import DriverError, Transport, TransportReport, open_transport

__all__ = ["DriverError", "Engine", "SelectRequest", "Transport", "TransportReport", "open_transport"]
