"""The host's side of the accelerators: interchangeable transports, and the engines above them."""

from vrex.sw.driver.backends import open_core, open_lxe, open_recall, open_transport, open_voter
from vrex.sw.driver.command_interface import CommandReport, CommandTransport
from vrex.sw.driver.dre import Capacity, DreEngine, MemoryLayout
from vrex.sw.driver.kvpu import KvpuEngine, SelectRequest
from vrex.sw.driver.lxe import LxeEngine
from vrex.sw.driver.recall import RecallEngine, RecallRequest, StoreLayout, StoreRequest
from vrex.sw.driver.transport import DriverError
from vrex.sw.driver.voter import VoterEngine, VoteRequest

__all__ = [
    "Capacity",
    "CommandReport",
    "CommandTransport",
    "DreEngine",
    "DriverError",
    "KvpuEngine",
    "LxeEngine",
    "MemoryLayout",
    "RecallEngine",
    "RecallRequest",
    "SelectRequest",
    "StoreLayout",
    "StoreRequest",
    "VoteRequest",
    "VoterEngine",
    "open_core",
    "open_lxe",
    "open_recall",
    "open_transport",
    "open_voter",
]
