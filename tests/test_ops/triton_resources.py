"""Compiles the kernels of the fused scan for chips that need not be there; prints what they use as JSON.

Runs as a program, in a process without TRITON_INTERPRET: takes a JSON list of cases, keyword arguments of
:func:`resources`.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch

from mmmamba.ops.scan.fused import ScanInputs
from mmmamba.ops.triton import scan
from mmmamba.ops.triton.tiling import Tiling

TYPES = {torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16', torch.int32: '*i32'}
OPTIONS = {'num_warps', 'num_stages', 'maxnreg'}


def launches(
    directions: list[str], batch: int, height: int, width: int, channels: int, states: int, rank: int, dtype: str,
    tiling: dict | None = None,
) -> list[tuple]:
    """What a forward and a backward pass launch, (kernel, arguments, constants), on tensors without memory.

    Step sizes are given if ``rank`` is 0.
    """
    heads = len(directions)
    pixels = height * width
    empty = lambda *shape, dtype=torch.float32: torch.empty(shape, dtype=dtype, device='meta')  # noqa: E731
    x = empty(batch, pixels, channels, dtype=getattr(torch, dtype))
    inputs = ScanInputs(
        x=x,
        projected=empty(batch, pixels, heads, rank + 2 * states),
        delta=None if rank else x,
        dt_weight=empty(heads, channels, rank) if rank else None,
        bias=empty(heads, channels),
        A=empty(heads, channels, states),
        D=empty(heads, channels),
        W=None,
        directions=directions,
        width=width,
        softplus=True,
    )
    cut = Tiling(**tiling) if tiling else None
    found: list[tuple] = []
    with mock.patch.object(scan, '_launch', lambda kernel, programs, *args, **kw: found.append((kernel, args, kw))):
        kept = scan.forward(inputs, True, cut)[2]
        scan.backward(inputs, kept, x, None, cut)
    return found


def compile_for(arch: int, kernel, arguments: tuple, constants: dict) -> tuple[bytes, int]:
    """The cubin that a launch with these arguments would run, and the bytes of shared memory that it is given."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {'num_warps': 1, 'num_stages': 1, **{k: v for k, v in constants.items() if k in OPTIONS}}
    constants = {k: v for k, v in constants.items() if k not in OPTIONS}
    signature, attributes = {}, {}
    for parameter, argument in zip(kernel.params, arguments):
        if argument is None:
            signature[parameter.name], constants[parameter.name] = 'constexpr', None
        elif isinstance(argument, torch.Tensor):
            signature[parameter.name] = TYPES[argument.dtype]
            if not parameter.do_not_specialize_on_alignment:
                attributes[(parameter.num,)] = [['tt.divisibility', 16]]
        else:
            assert parameter.do_not_specialize, f'{kernel.__name__} is compiled for every {parameter.name}.'
            signature[parameter.name] = 'i32' if argument < 2**31 else 'i64'
    signature |= {name: 'constexpr' for name in constants if name not in signature}
    source = ASTSource(
        kernel,
        {name: signature[name] for name in kernel.arg_names},
        {(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attributes,
    )
    compiled = triton.compile(source, target=GPUTarget('cuda', arch, 32), options=options)
    return compiled.asm['cubin'], compiled.metadata.shared


def usage(cubin: bytes, dynamic: int) -> dict[str, int]:
    """Registers of a thread, bytes of its stack and of shared memory, instructions that access local memory."""
    import triton

    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        command = [tool, '--dump-resource-usage', '-sass', file.name]
        dump = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return {
        'registers': int(re.search(r'REG:(\d+)', dump)[1]),
        'stack': int(re.search(r'STACK:(\d+)', dump)[1]),
        'shared': int(re.search(r'SHARED:(\d+)', dump)[1]) + dynamic,
        'local_accesses': len(re.findall(r'\b(?:LDL|STL)\b', dump)),
        'exponentials': len(re.findall(r'\bMUFU\.EX2\b', dump)),
        'instructions': len(re.findall(r'^\s+/\*[0-9a-f]{4,}\*/\s+\S', dump, re.MULTILINE)),
    }


def resources(arch: list[int], kernels: list[str] | None = None, **case) -> list[dict]:
    """Usage of each kernel, or of those named, that :func:`launches` finds, for each compute capability (as 90)."""
    found = launches(**case)
    return [
        {'kernel': kernel.__name__, 'reverse': constants.get('REVERSE', False), 'arch': chip, **case}
        | usage(*compile_for(chip, kernel, arguments, constants))
        for chip in arch
        for kernel, arguments, constants in found
        if kernels is None or kernel.__name__ in kernels
    ]


if __name__ == '__main__':
    print(json.dumps([row for case in json.loads(sys.argv[1]) for row in resources(**case)]))
