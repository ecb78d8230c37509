"""The host's side of the accelerator: commands over interchangeable transports, and the engine above them."""

from vrex.sw.driver.dre import DreEngine, Layout, Room
from vrex.sw.driver.kvpu import KvpuEngine, SelectRequest
from vrex.sw.driver.transport import DriverError, Transport, TransportReport, open_transport

__all__ = [
    "DreEngine",
    "DriverError",
    "KvpuEngine",
    "Layout",
    "Room",
    "SelectRequest",
    "Transport",
    "TransportReport",
    "open_transport",
]
