"""Ctrl-C, which a terminal sends to each process of a command: the first one answers it, the others say nothing."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile; processes that are started in it do so until they call `meet_interrupts`."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))  # whichever thread gets the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if _MASKS else set()  # processes inherit it
    try:
        yield
    finally:
        if _MASKS:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


def meet_interrupts(answer: signal.Handlers) -> None:
    """In a process begun under `interrupts_held`: end at Ctrl-C (``SIG_DFL``) or leave it to others (``SIG_IGN``)."""
    signal.signal(signal.SIGINT, answer)
    if _MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
