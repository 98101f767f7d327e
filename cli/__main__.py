"""Where `gotrace` begins: Ctrl-C ends it quietly from here on, while the rest is still being imported."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from gotrace.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
