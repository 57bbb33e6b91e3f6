"""What the screen shows of a run: a bar and a few lines; the log file has everything."""
from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from mmengine.logging import MMLogger
from tqdm import tqdm

_BAR = '{desc} |{bar:12}| {n_fmt}/{total_fmt}{postfix}'
_COLUMNS, _ROWS = 80, 20  # of a terminal that does not tell its size, as in a container
# Warnings of libraries that nobody can act upon who trains with them.
_OF_NO_USE = re.compile('|'.join((
    '"FileClient" will be deprecated', '"HardDiskBackend" is the alias',  # mmengine's own use of them
    'make sure that the mlflow server is running',  # if it is not, MLflow says so
    'testing results of the whole dataset is empty',  # which the line of the validation says
    r'torch\.meshgrid: in an upcoming release',
    "'pin_memory' argument is set as true but no accelerator",
    r'Detected call of `\w+\.step\(\)` before `optimizer\.step\(\)`',  # float16 skips the first steps
)))
_TALKATIVE = ('pycocotools.', 'mmengine.')  # libraries that print their progress
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# COCO's summary, and mmdet's tables.
_RESULT = re.compile(r'\s*(Average (Precision|Recall) |\+-)')


class _Bar(tqdm):
    monitor_interval = 0  # no thread, whose lock a forked data worker could inherit in a locked state


class Console:
    """Keeps the screen short and the bar whole: decides which of a logger's records and of what is printed is shown.

    Shown are what :meth:`say` says, warnings of use, what the user's own code prints, and, while ``shows_results`` is
    set, tables of results. Everything else (the environment, the config, mmengine's line for every few iterations,
    what libraries print) is in the log file alone.

    Args:
        logger: The runner's; its handler of the screen is changed.
        everything: Whether all records are shown, as mmengine formats them.
    """

    def __init__(self, logger: MMLogger, everything: bool = False) -> None:
        self.shows_results = False
        self._logger = logger
        self.shows_everything = everything
        self._bar: _Bar | None = None
        self._bars_on: TextIO | None = None
        self._warned_of: set[str] = set()
        self._process = os.getpid()
        for index, handler in enumerate(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                logger.handlers[index] = _ScreenHandler(handler, self)
                if handler.level <= logging.INFO and os.environ.get('TERM') != 'dumb':
                    self._bars_on = next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)

    def shows(self, record: logging.LogRecord) -> bool:
        """Tells whether a record is for the screen."""
        if self.shows_everything:
            return True
        if record.levelno >= logging.WARNING:
            return not _OF_NO_USE.search(record.getMessage())
        return getattr(record, 'shown', False) or self.shows_results and bool(_RESULT.match(record.getMessage()))

    def say(self, text: str) -> None:
        """Shows a line, which goes to the log file as well."""
        self._logger.info(text, extra={'shown': True})

    def start_bar(self, what: str, total: int, done: int = 0) -> None:
        """Draws a bar, where there is a terminal; another one ends."""
        self.end_bar()
        if self._bars_on:
            self._bar = _Bar(desc=what, total=total, initial=done, file=self._bars_on, leave=False, bar_format=_BAR,
                             ncols=_columns(self._bars_on), nrows=_ROWS)

    def advance_bar(self, facts: list[str]) -> None:
        """Moves the bar by one, if there is any.

        Args:
            facts: What is written after it, the most important first; as many as fit.
        """
        if self._bar is not None:
            self._bar.ncols = _columns(self._bars_on)
            room = self._bar.ncols - len(f'{self._bar.desc} |{"":12}| {self._bar.total}/{self._bar.total}') - 1
            while facts and len(', '.join(('', *facts))) > room:
                facts = facts[:-1]
            self._bar.set_postfix_str(', '.join(facts), refresh=False)
            self._bar.update()

    @property
    def has_bar(self) -> bool:
        """Tells whether a bar is drawn."""
        return self._bar is not None

    def end_bar(self) -> None:
        """Takes the bar away, if there is any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Decides, while it is entered, about what is printed and warned of; at its end there is no bar."""
        shown, warnings.showwarning = warnings.showwarning, self._on_warning
        prints = _Prints(sys.stdout, self)
        try:
            with redirect_stdout(prints):
                yield
        finally:
            warnings.showwarning = shown
            self.end_bar()
            prints.finish()

    def write(self, stream: TextIO, lines: str) -> None:
        """Writes whole lines to a stream, above the bar."""
        bar = self._bar if os.getpid() == self._process else None  # data workers leave the bar alone
        if bar is not None:
            bar.clear()
        stream.write(lines)
        stream.flush()
        if bar is not None:
            bar.refresh()

    def print_or_log(self, stream: TextIO, lines: str, module: str) -> None:
        """Prints lines, or logs them if they are progress messages of a library."""
        for line in lines.split('\n'):
            if module.startswith(_TALKATIVE) and not (self.shows_results and _RESULT.match(line)):
                self._logger.info(line)
            else:
                self.write(stream, f'{line}\n')

    def _on_warning(self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
                    file: TextIO | None = None, line: str | None = None) -> None:
        text = str(message) if category is UserWarning else f'{category.__name__}: {message}'
        if text not in self._warned_of:  # Python warns once for every line of code
            self._warned_of.add(text)
            level = logging.INFO if issubclass(category, _FOR_DEVELOPERS) else logging.WARNING
            self._logger.log(level, f'{text} ({filename}:{lineno})')


class _ScreenHandler(logging.StreamHandler):
    """The logger's handler of the screen, which asks a console what to show, and writes where the bar is not."""

    def __init__(self, replaced: logging.StreamHandler, console: Console) -> None:
        super().__init__(replaced.stream)
        self.setLevel(replaced.level)
        self.filters = replaced.filters  # mmengine's, of warnings that were shown before
        self.setFormatter(replaced.formatter if console.shows_everything else _PlainFormatter())
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record or leaves it out."""
        if self._console.shows(record):
            self._console.write(self.stream, f'{self.format(record)}\n')


class _PlainFormatter(logging.Formatter):
    """Writes messages as they are, and says of warnings and errors that they are such."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text."""
        text = super().format(record)
        return f'{record.levelname.lower()}: {text}' if record.levelno >= logging.WARNING else text


class _Prints:
    """Standard output by whole lines, which knows whose code prints them."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        self._stream = stream
        self._console = console
        self._rest = ''

    def write(self, text: str) -> int:
        """Takes text; its whole lines go on."""
        lines, end, self._rest = (self._rest + text).rpartition('\n')
        if end:
            self._console.print_or_log(self._stream, lines, sys._getframe(1).f_globals.get('__name__', ''))
        return len(text)

    def finish(self) -> None:
        """Writes what is left, a line without an end."""
        self._stream.write(self._rest)
        self._rest = ''

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def _columns(stream: TextIO) -> int:
    """Returns the width of a terminal."""
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    return _COLUMNS


def quiet_config_reading() -> None:
    """Keeps off the screen what mmengine notes of a config's variables, before there is a runner with a log."""
    if not MMLogger.check_instance_created('mmengine'):
        MMLogger.get_instance('mmengine', log_level='WARNING')
