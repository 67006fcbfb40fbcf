"""The models and languages that Whisper knows, read from the source of its package.

Whoever imports any module of that package imports torch, which takes seconds and memory. The code location
and the sensor do without. Nothing here loads a model.
"""

import ast
import functools
import importlib.util
import pathlib


@functools.cache
def model_urls() -> dict[str, str]:
    """By name, where `whisper.load_model` downloads a model from."""
    return ast.literal_eval(_assigned("__init__.py", "_MODELS"))


@functools.cache
def language_codes() -> dict[str, str]:
    """By code and by English name in small letters, the code of each language."""
    names = ast.literal_eval(_assigned("tokenizer.py", "LANGUAGES"))
    # Further names stand behind those that the source itself makes of LANGUAGES.
    also = _assigned("tokenizer.py", "TO_LANGUAGE_CODE")
    assert isinstance(also, ast.Dict)
    entries = [(key, value) for key, value in zip(also.keys, also.values, strict=True) if key is not None]
    return {
        **{code: code for code in names},
        **{name: code for code, name in names.items()},
        **{ast.literal_eval(key): ast.literal_eval(value) for key, value in entries},
    }


def _assigned(file: str, name: str) -> ast.expr:
    """What a module of Whisper assigns to a name."""
    spec = importlib.util.find_spec("whisper")
    [folder] = (spec and spec.submodule_search_locations) or [""]
    tree = ast.parse(pathlib.Path(folder, file).read_text(encoding="utf-8"))
    [found] = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name
    ]
    return found
