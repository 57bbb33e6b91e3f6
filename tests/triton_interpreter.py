"""Triton's interpreter, without what it does over and over: half of its time on kernels as small as the tests'."""
from __future__ import annotations

from functools import cache, wraps
from types import ModuleType


def hasten(interpreter: ModuleType) -> None:
    """Changes ``triton.runtime.interpreter`` of Triton 3.7; an older one stays as it is.

    Its functions for the language's own are put in place once in a launch for every module that kernels call them
    through, instead of at every call of a device function; the table of dtypes is read once a dtype; and integer sums
    and products are not computed a second time, in 64 bits, to see whether they overflow.
    """
    if not hasattr(interpreter, '_LangPatchScope'):
        return
    patch_lang, launch, language = interpreter._patch_lang, interpreter.GridExecutor.__call__, interpreter.tl
    look_up, look_up_once = interpreter._get_np_dtype, cache(interpreter._get_np_dtype)
    patched: set[tuple[bool, bool]] = set()

    def patch_lang_once(function):
        modules = list(filter(lambda value: isinstance(value, ModuleType), function.__globals__.values()))
        key = language in modules, language.core in modules
        if key in patched:
            return interpreter._LangPatchScope()
        patched.add(key)
        return patch_lang(function)

    @wraps(launch)
    def launch_afresh(self, *args, **kwargs):
        patched.clear()
        return launch(self, *args, **kwargs)

    def numpy_dtype(dtype):
        scalar = dtype.scalar
        return look_up(scalar) if isinstance(scalar, language.pointer_type) else look_up_once(scalar)

    interpreter._patch_lang = patch_lang_once
    interpreter.GridExecutor.__call__ = launch_afresh
    interpreter._get_np_dtype = numpy_dtype
    object.__setattr__(interpreter.interpreter_builder.options, 'sanitize_overflow', False)
