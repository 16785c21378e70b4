"""Signals that wait until work in hand is saved."""

import signal
import threading
from typing import Any


class HeldSignals:
    """Holds SIGINT and SIGTERM back until `deliver`; the second one acts at once. Does nothing outside the main
    thread."""

    def __init__(self, active: bool):
        self.active = active and threading.current_thread() is threading.main_thread()
        self.caught: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "HeldSignals":
        if self.active:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # what is ignored stays so
                    self.handlers[number] = signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()
        if self.caught is not None:
            signal.raise_signal(self.caught)

    def deliver(self) -> None:
        """Raises the signal again under the handler that it was meant for; returns if that one does."""
        number, self.caught = self.caught, None
        self._let_go()
        if number is not None:
            signal.raise_signal(number)
        self.__enter__()

    def _hold(self, number: int, frame: object) -> None:
        if self.caught is not None:
            self._let_go()
            signal.raise_signal(number)
        self.caught = number

    def _let_go(self) -> None:
        while self.handlers:
            signal.signal(*self.handlers.popitem())
