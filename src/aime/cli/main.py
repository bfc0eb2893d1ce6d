"""The `aime` command: finds the verb, runs it, and turns what a user can put right into one line."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
import traceback
from types import ModuleType

from aime.cli.failures import EXIT_BROKEN_PIPE, EXIT_DEFECT, EXIT_USER_ERROR, explain, explain_defect
from aime.cli.output import discard, make_safe
from aime.errors import AimeError
from aime.primitives.signals import exit_status, handled

VERBS = {
    "train": "train a world model on a data set",
    "evaluate": "measure a run's predictions on episodes it has never seen",
    "inspect": "measure the effect of every part of a run, by replacing its output",
    "predict": "draw truth, dreams and difference side by side, moving",
    "ablate": "compare the complete model with variants that lack one part",
    "agent": "act with a run: imitate, learn in imagination, plan, and be judged",
    "benchmark": "run the protocol of DMC-VB: what distractors cost a representation and a policy",
    "report": "show everything about a run in one HTML page",
    "collect": "record episodes of DeepMind Control or gymnasium environments",
    "import": "bring a data set of another project into shards: DMC-VB, LeRobot, Minari, videos, …",
    "export": "write a data set in the format of another project",
    "data": "check and describe a data set, with a contact sheet",
    "doctor": "say what this machine has, and what is missing",
}
"""Each verb's summary; the verb is the module of that name beside this one, with `main(arguments) -> status`."""

MODULES = {"import": "importing"}
"""Modules of another name, where the verb is a word of Python's own."""


FILES = ("train", "ablate", "agent", "benchmark", "collect", "import", "export")
"""Verbs whose results are files: they go on where nobody reads their output any longer."""


def entry() -> None:
    """Run the command line that the shell gave, and exit with its status."""
    arguments = sys.argv[1:]
    make_safe(lasting=any(argument in FILES for argument in arguments[:2]))
    with handled(to_the_end=True) as interruption:
        try:
            status = main(arguments)
            interruption.over = True
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            status = exit_status(error)
        except BrokenPipeError:
            status = EXIT_BROKEN_PIPE
        except OSError as error:
            print(f"aime: standard output cannot be written: {error.strerror}", file=sys.stderr)
            status = EXIT_USER_ERROR
        interruption.over = True
        try:
            sys.stdout.flush()
        except OSError:  # at exit Python would write what is left, and fail once more
            discard(1)
    sys.exit(status)


def main(arguments: list[str]) -> int:
    """Run one command line, without the program's name, and return the exit status.

    The status is 0 after success, 2 after an error that the user can put right (one line on stderr; `--debug`
    anywhere on the line shows the traceback), 1 after a defect of the program (one line, too) and, after a signal, 128
    and its number: 130 for Ctrl-C.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"aime {version()}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    try:
        return _module(verb).main(rest)
    except KeyboardInterrupt as error:
        print(f"aime {verb}: interrupted", file=sys.stderr)
        return exit_status(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        message, status = explain(error), EXIT_USER_ERROR
        if message is None:
            message, status = explain_defect(error), EXIT_DEFECT
        if debug:
            traceback.print_exc()
        print(f"aime {verb}: {message}" if verb in VERBS else f"aime: {message}", file=sys.stderr)
        return status


def overview() -> str:
    """The help of the command as a whole: a line a verb."""
    width = max(map(len, VERBS))
    lines = [
        "usage: aime VERB [ARGUMENTS]",
        "",
        "Train a world model on videos with actions, and look at what it dreams.",
        "",
    ]
    lines += [f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items()]
    lines += [
        "",
        "aime VERB --help explains a verb's arguments; --version prints the version; --debug shows tracebacks.",
    ]
    return "\n".join(lines)


def version() -> str:
    """The version of the installed package."""
    return importlib.metadata.version("aime")


def _module(verb: str) -> ModuleType:
    # imported on demand, so that a verb pays for its own libraries only
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `aime --help`"
        raise AimeError(f"there is no verb '{verb}'; expected {', '.join(VERBS)}: {hint}")
    return importlib.import_module(f"aime.cli.{MODULES.get(verb, verb)}")
