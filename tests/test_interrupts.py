"""Ctrl-C is held back, whichever thread the system gives it to, and never lost."""

import os
import signal
import threading

import pytest

from pushpull_conv.interrupts import interrupts_held


@pytest.fixture(autouse=True)
def met():
    """Ctrl-C is met as usual, also where the tests are a job in the background, which ignores it."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


def by_another_thread():
    """Have a thread of its own, which does not block the signal, receive Ctrl-C for the process."""

    def receive():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=receive)
    thread.start()
    thread.join()


@pytest.mark.parametrize("interrupt", [lambda: os.kill(os.getpid(), signal.SIGINT), by_another_thread])
def test_what_is_begun_is_ended_before_ctrl_c_is_met(interrupt):
    done, handler = [], signal.getsignal(signal.SIGINT)

    def begin():
        with interrupts_held():
            interrupt()
            done.extend(range(1000))

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert len(done) == 1000
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_error_passes_and_nothing_stays_held():
    with pytest.raises(ValueError, match="wrong"), interrupts_held():
        raise ValueError("wrong")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_thread_is_left_alone():
    handlers = []

    def work():
        with interrupts_held():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
