"""A serial port of this machine, by the system's own terminal interface: raw bytes, without waiting."""

import errno
import fcntl
import os
import select
import termios
import tty
from contextlib import suppress

from vrex.sw.driver.transport import DriverError

READ_BYTES = 1 << 16
GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF)
"""What the system says of a port whose other end was pulled out."""


class SerialPort:
    """An open port; nobody else who locks it as is customary (flock) has it.

    Attributes:
        name: as it was given.
    """

    def __init__(self, name: str, baud: int) -> None:
        """Opens a port: 8 bits, no parity, 1 stop bit, no flow control.

        Args:
            name: such as /dev/ttyUSB0.
            baud: bits a second, one of the system's rates.

        Raises:
            DriverError: there is no such port, it is in use or may not be used, or has no such rate.
        """
        self.name = name
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise DriverError(f"this system has no serial rate of {baud} baud; choose another, as in 1000000")
        self._file = _open(name)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tty.setraw(self._file)
            settings = termios.tcgetattr(self._file)
            settings[2] = settings[2] & ~(termios.PARENB | termios.CSTOPB | termios.CRTSCTS) | termios.CLOCAL
            settings[4] = settings[5] = speed
            termios.tcsetattr(self._file, termios.TCSANOW, settings)
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except (OSError, termios.error) as error:
            os.close(self._file)
            self._file = -1
            if isinstance(error, BlockingIOError):
                raise DriverError(
                    f"serial port {name} is in use by another program; end that one, or name another port"
                ) from error
            raise DriverError(
                f"serial port {name} can't be set to {baud} baud ({error.args[-1]}); choose another rate"
            ) from error

    def exchange(self, data: bytes, seconds: float) -> tuple[int, bytes]:
        """Sends and receives what is possible now; waits only if nothing is.

        Args:
            data: to send.
            seconds: to wait at most.

        Returns:
            How many bytes of `data` went out, and those that came in.

        Raises:
            DriverError: the port is not there any more.
        """
        if self._file < 0:
            raise DriverError(f"serial port {self.name} was closed; open it again")
        sent, got = 0, b""
        try:
            readable, writable, _ = select.select(
                [self._file], [self._file] if data else [], [], max(0.0, seconds)
            )
            if readable:
                got = os.read(self._file, READ_BYTES)
                if not got:
                    raise OSError(errno.EIO, "end of file")
            if writable:
                sent = os.write(self._file, data)
        except BlockingIOError:
            # Between the two calls somebody else changed what is possible.
            pass
        except OSError as error:
            if error.errno not in GONE:
                raise
            self.close()
            raise DriverError(
                f"serial port {self.name} went away in the middle; plug the board in and start again"
            ) from error
        return sent, got

    def close(self) -> None:
        """Lets go of the port; a second call does nothing."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        # A session that nobody closed leaves the port to the next one.
        if hasattr(self, "_file"):
            self.close()


def _open(name: str) -> int:
    """The open file of a port.

    Raises:
        DriverError: it can't be opened, or is no serial port.
    """
    try:
        file = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        match error.errno:
            case errno.ENOENT | errno.ENXIO | errno.ENODEV | errno.ENOTDIR:
                reason = f"there is no serial port {name}; plug the board in, or name another port"
            case errno.EACCES | errno.EPERM:
                reason = f"serial port {name} may not be used by this user; have yourself added to its group"
            case errno.EBUSY:
                reason = (
                    f"serial port {name} is in use by another program; end that one, or name another port"
                )
            case errno.EISDIR:
                reason = f"{name} is a folder, not a serial port; name one such as /dev/ttyUSB0"
            case _:
                reason = f"serial port {name} can't be opened ({error.strerror}); name another port"
        raise DriverError(reason) from error
    if not os.isatty(file):
        os.close(file)
        raise DriverError(f"{name} is not a serial port; name one such as /dev/ttyUSB0")
    return file
