"""The command `completion`: scripts for shells, made from the command line's grammar."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kumo_crt.cli import _errors as errors
from kumo_crt.cli import _grammar as grammar
from kumo_crt.cli._errors import UsageError
from kumo_crt.cli._output import Output

# Arguments that are files or directories of this machine, by how the help calls them.
_FILES = ("DB", "FILE", "TARGET", "DIR", "PEM")


@dataclass(frozen=True, slots=True)
class _Option:
    """An option of a command.

    Attributes:
        names: How it may be written.
        about: One line.
        takes: What follows it: ``nothing``, ``files``, ``words`` or ``text``.
        words: What may follow it.
        repeats: It may be given more than once.
    """

    names: tuple[str, ...]
    about: str
    takes: str
    words: tuple[str, ...]
    repeats: bool


@dataclass(slots=True)
class _Command:
    """A command, or what stands before it."""

    name: str
    about: str
    options: list[_Option] = field(default_factory=list)
    words: tuple[str, ...] = ()


def completion(args: argparse.Namespace, output: Output) -> int:
    """Writes the script of a shell."""
    shell = args.shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in _SCRIPTS:
        raise UsageError(
            f"completion: SHELL is {os.environ.get('SHELL', '')!r}: choose one of "
            f"{', '.join(_SCRIPTS)}"
        )
    before, *commands = _grammar()
    script = "\n".join(_SCRIPTS[shell](before, commands))
    output.document({"shell": shell, "script": script})
    output.result(script)
    return errors.DONE


def _grammar() -> list[_Command]:
    """What may be written: first what stands before the command, then each command."""
    parser = grammar.build()
    found = [_Command("", "", list(_options(parser)))]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                words = (a.choices or () for a in command._actions if not a.option_strings)
                flat = tuple(str(word) for some in words for word in some)
                found.append(_Command(name, abouts[name], list(_options(command)), flat))
    return found


def _options(parser: argparse.ArgumentParser) -> Iterator[_Option]:
    for action in parser._actions:
        if not action.option_strings:
            continue
        words = tuple(str(word) for word in action.choices or ())
        takes = "text"
        if action.nargs == 0:
            takes = "nothing"
        elif words:
            takes = "words"
        elif action.metavar in _FILES:
            takes = "files"
        yield _Option(
            tuple(action.option_strings),
            (action.help or "").split("; default")[0],
            takes,
            words,
            isinstance(action, argparse._AppendAction | argparse._CountAction),
        )


def _bash(before: _Command, commands: list[_Command]) -> Iterator[str]:
    names = " ".join(command.name for command in commands)
    every: dict[tuple[str, ...], _Option] = {}
    for option in (option for one in (before, *commands) for option in one.options):
        every.setdefault(option.names, option)
    yield '# eval "$(kumo-crt completion bash)", in ~/.bashrc'
    yield "_kumo_crt() {"
    yield "    local word command= words= current=${COMP_WORDS[COMP_CWORD]}"
    yield "    COMPREPLY=()"
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield f"        case $word in {names.replace(' ', '|')}) command=$word; break ;; esac"
    yield "    done"
    yield "    case $command:${COMP_WORDS[COMP_CWORD-1]} in"
    for command in (*commands, before):
        for option in command.options:
            # Some commands take only some of the words that others take.
            if option.takes == "words" and (not command.name or option not in before.options):
                words, one = " ".join(option.words), command.name or "*"
                yield f"        {'|'.join(f'{one}:{name}' for name in option.names)})"
                yield f'            COMPREPLY=($(compgen -W "{words}" -- "$current")); return ;;'
    for takes, action in (("files", "return"), ("text", "compopt +o default; return")):
        found = [f"*:{name}" for o in every.values() if o.takes == takes for name in o.names]
        yield f"        {'|'.join(found)}) {action} ;;"
    yield "    esac"
    yield "    case $command in"
    for command in (*commands, before):
        options = " ".join(name for option in command.options for name in option.names)
        yield f"        {command.name or _quoted('')})"
        yield f'            words="{options}"'
        if not command.name:
            yield f'            [[ $current == -* ]] || words="{names}" ;;'
        elif command.words:
            yield f'            [[ $current == -* ]] || words="{" ".join(command.words)}" ;;'
        else:
            # Of these, arguments are files or URLs: bash completes them by itself.
            yield "            [[ $current == -* ]] || return ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -o default -F _kumo_crt kumo-crt"


def _zsh(before: _Command, commands: list[_Command]) -> Iterator[str]:
    yield "#compdef kumo-crt"
    yield '# eval "$(kumo-crt completion zsh)", in ~/.zshrc behind compinit; or a file _kumo-crt in'
    yield "# a directory of fpath"
    yield "_kumo_crt() {"
    yield "    local context state state_descr line"
    yield "    typeset -A opt_args"
    yield "    local -a commands=("
    for command in commands:
        yield f"        {_quoted(f'{command.name}:{command.about}')}"
    yield "    )"
    yield "    _arguments -C \\"
    for option in before.options:
        yield from (f"        {spec} \\" for spec in _zsh_specs(option))
    yield "        '1:command:->command' '*::argument:->argument'"
    yield "    case $state in"
    yield "        command) _describe command commands ;;"
    yield "        argument)"
    yield "            case $words[1] in"
    for command in commands:
        yield f"                {command.name})"
        yield "                    _arguments \\"
        for option in command.options:
            yield from (f"                        {spec} \\" for spec in _zsh_specs(option))
        rest = f"({' '.join(command.words)})" if command.words else "_files"
        yield f"                        '*:argument:{rest}' ;;"
    yield "            esac ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _kumo_crt "$@"'
    yield "else compdef _kumo_crt kumo-crt; fi"


def _zsh_specs(option: _Option) -> Iterator[str]:
    about = option.about.replace("[", "(").replace("]", ")").replace(":", r"\:")
    after = {
        "nothing": "",
        "files": ":file:_files",
        "words": f":value:({' '.join(option.words)})",
        "text": ":value:",
    }[option.takes]
    for name in option.names:
        excluded = "*" if option.repeats else f"({' '.join(option.names)})"
        yield _quoted(f"{excluded}{name}[{about}]{after}")


def _fish(before: _Command, commands: list[_Command]) -> Iterator[str]:
    yield "# kumo-crt completion fish > ~/.config/fish/completions/kumo-crt.fish"
    first = "not __fish_seen_subcommand_from " + " ".join(command.name for command in commands)
    for option in before.options:
        yield _fish_option(first, option)
    for command in commands:
        about = _quoted(command.about)
        yield f"complete -c kumo-crt -n {_quoted(first)} -f -a {command.name} -d {about}"
        condition = f"__fish_seen_subcommand_from {command.name}"
        for option in command.options:
            yield _fish_option(condition, option)
        if command.words:
            words = _quoted(" ".join(command.words))
            yield f"complete -c kumo-crt -n {_quoted(condition)} -f -a {words}"


def _fish_option(condition: str, option: _Option) -> str:
    kinds = {2: "-l", 1: "-s"}
    names = [f"{kinds[len(n) - len(n.lstrip('-'))]} {n.lstrip('-')}" for n in option.names]
    takes = {
        "nothing": [],
        "files": ["-r", "-F"],
        "words": ["-x", "-a", _quoted(" ".join(option.words))],
        "text": ["-x"],
    }[option.takes]
    return " ".join(
        ("complete -c kumo-crt -n", _quoted(condition), *names, *takes, "-d", _quoted(option.about))
    )


def _quoted(text: str) -> str:
    r"""For all three shells: only fish reads a backslash within quotes, and ``\\`` as one."""
    return "'" + text.replace("'", "'\\''") + "'"


_SCRIPTS: dict[str, Callable[[_Command, list[_Command]], Iterator[str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
